"""Looking through what is put around a network to compile or to distribute it."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

# What to do if hooks do not run, in errors.
IF_COMPILED = (
    "If it was compiled and called before attach(), give attach() what torch.compile returned, or call "
    "torch.compiler.reset() after attach()."
)


def without_wrapper(model: nn.Module) -> nn.Module:
    """The network within `torch.compile`, DistributedDataParallel or DataParallel, in any order; else itself.

    Parameters are the same in both, so what is found in the network holds for the wrapper. Names are the network's.
    """
    if isinstance(model, nn.parallel.DistributedDataParallel | nn.DataParallel):
        return without_wrapper(model.module)
    compiled_from = getattr(model, "_orig_mod", None)
    return without_wrapper(compiled_from) if isinstance(compiled_from, nn.Module) else model


def forget_compiled(model: nn.Module) -> None:
    """Have a model that is compiled, or has compiled parts, compiled anew at its next call: what was compiled before
    takes no notice of hooks that came later. That is so for all of the process, where there is no smaller unit.
    """
    if any(
        isinstance(getattr(module, "_orig_mod", None), nn.Module)
        or getattr(module, "_compiled_call_impl", None) is not None
        for module in model.modules()
    ):
        torch.compiler.reset()


def as_written(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function that runs as it was written, also where what calls it is compiled: the graph breaks there."""
    return torch.compiler.disable(function) if torch.compiler.is_compiling() else function
