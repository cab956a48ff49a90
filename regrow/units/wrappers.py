"""Looking through what is put around a network to compile or to distribute it."""

from torch import nn


def without_wrapper(model: nn.Module) -> nn.Module:
    """The network within `torch.compile`, DistributedDataParallel or DataParallel, in any order; else itself.

    Parameters are the same in both, so what is found in the network holds for the wrapper. Names are the network's.
    """
    if isinstance(model, nn.parallel.DistributedDataParallel | nn.DataParallel):
        return without_wrapper(model.module)
    compiled_from = getattr(model, "_orig_mod", None)
    return without_wrapper(compiled_from) if isinstance(compiled_from, nn.Module) else model
