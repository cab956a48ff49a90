"""Running a model on an example of any form, and leaving no trace of it."""

import random
import sys
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from regrow.errors import ModelError
from regrow.units.taps import examination


def run(model: nn.Module, example: Any) -> Any:
    """What the model returns for an example.

    Args:
        model: any network.
        example: a tensor, a tuple (positional arguments), a dict (keyword arguments), or a callable that takes the
            model and returns what the loss reads.

    Raises:
        ModelError: the model cannot take it; the model's own error is the cause.
    """
    try:
        if callable(example) and not isinstance(example, Tensor):
            return example(model)
        copy = _copied(example)
        if isinstance(copy, Mapping):
            return model(**copy)
        return model(*copy) if isinstance(copy, tuple) else model(copy)
    except ModelError:
        raise
    except Exception as error:
        mode = "training" if model.training else "evaluation"
        raise ModelError(
            f"{type(model).__name__} cannot take the example, {describe(example)}, in {mode} mode: "
            f"{type(error).__name__}: {error}. Give as example= what the model is called with: a tensor, a tuple of "
            "positional arguments, a dict of keyword arguments, or a callable that takes the model and returns what "
            "the loss reads."
        ) from error


def describe(example: Any) -> str:
    """An example in a few words."""
    if isinstance(example, Tensor):
        return f"a tensor of shape {tuple(example.shape)} and type {str(example.dtype).removeprefix('torch.')}"
    if isinstance(example, Mapping):
        return "keywords " + ", ".join(f"{key}={describe(value)}" for key, value in example.items())
    if isinstance(example, tuple):
        return f"({', '.join(describe(item) for item in example)})"
    if example is None:
        return "None"
    return "a callable" if callable(example) else f"a {type(example).__name__}"


def tensors_of(result: Any, depth: int = 6) -> Iterator[Tensor]:
    """All tensors in what a model returned, also within data classes, distributions and the like.

    Args:
        result: anything.
        depth: how many objects within objects are looked into; in containers all are found.
    """
    if isinstance(result, Tensor):
        yield result
    elif isinstance(result, Mapping):
        for item in result.values():
            yield from tensors_of(item, depth)
    elif isinstance(result, list | tuple | set | frozenset | deque):
        for item in result:
            yield from tensors_of(item, depth)
    elif depth and is_dataclass(result) and not isinstance(result, type):
        for attribute in fields(result):
            yield from tensors_of(getattr(result, attribute.name), depth - 1)
    elif depth and not isinstance(result, nn.Module | type):
        for item in getattr(result, "__dict__", {}).values():
            yield from tensors_of(item, depth - 1)
        for kind in type(result).__mro__:
            slots = vars(kind).get("__slots__", ())
            for name in [slots] if isinstance(slots, str) else slots:
                yield from tensors_of(getattr(result, name, None), depth - 1)


def python_draws() -> object:
    """State of the random generators of Python and NumPy, to compare."""
    of_numpy = np.random.get_state(legacy=False)["state"]
    return random.getstate(), of_numpy["key"].tobytes(), of_numpy["pos"]


def uncompiled() -> AbstractContextManager[Any]:
    """Compiled parts of a model run as they were written."""
    if "torch._dynamo" not in sys.modules or not hasattr(torch.compiler, "set_stance"):
        return nullcontext()
    stance: AbstractContextManager[Any] = torch.compiler.set_stance("force_eager")
    return stance


@contextmanager
def decomposed(model: nn.Module) -> Iterator[None]:
    """Attention and recurrent layers run as the operators that they are made of, and not as one fused kernel."""
    fast_path, cudnn, mkldnn = (
        torch.backends.mha.get_fastpath_enabled(),
        torch.backends.cudnn.enabled,
        torch._C._get_mkldnn_enabled(),
    )
    torch.backends.mha.set_fastpath_enabled(False)
    if any(isinstance(module, nn.RNNBase) for module in model.modules()):  # elsewhere these are only faster
        torch.backends.cudnn.enabled = False
        torch._C._set_mkldnn_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_path)
        torch.backends.cudnn.enabled = cudnn
        torch._C._set_mkldnn_enabled(mkldnn)


@contextmanager
def untouched(model: nn.Module) -> Iterator[None]:
    """Whatever happens inside is an examination, in which the model runs as it was written, and its buffers and
    training flags and all random generators, those that its modules hold too, come out as before.
    """
    flags = [(module, module.training) for module in model.modules()]
    buffers = [
        (module, name, buffer, None if buffer is None else buffer.detach().clone())
        for module in model.modules()
        for name, buffer in module._buffers.items()
    ]
    own = [value for module in model.modules() for value in vars(module).values() if isinstance(value, torch.Generator)]
    drawn = [(generator, generator.get_state()) for generator in own]
    numpy_state, python_state = np.random.get_state(), random.getstate()
    devices = sorted({tensor.device.index or 0 for tensor in model.parameters() if tensor.device.type == "cuda"})
    with examination(), uncompiled(), torch.random.fork_rng(devices):
        try:
            yield
        finally:
            for module, flag in flags:
                module.training = flag
            with torch.no_grad():
                for module, name, buffer, content in buffers:
                    module._buffers[name] = buffer
                    if buffer is not None and content is not None and not buffer.is_meta:
                        buffer.copy_(content)
            for generator, state in drawn:
                generator.set_state(state)
            np.random.set_state(numpy_state)
            random.setstate(python_state)


def _copied(example: Any) -> Any:
    """The example with its tensors copied, since a model may write into what it gets."""
    if isinstance(example, Tensor):
        return example.detach().clone().requires_grad_(example.requires_grad)
    if isinstance(example, Mapping):
        return {key: _copied(value) for key, value in example.items()}
    return tuple(_copied(value) for value in example) if type(example) is tuple else example
