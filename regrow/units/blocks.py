"""Arithmetic on large tensors a block at a time.

A temporary as large as a weight matrix costs more in fresh memory than what is computed into it. On the host such work
is cut into blocks that stay in the processor's cache; elsewhere, and in compiled code, it stays whole.
"""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

_ELEMENTS = 1 << 17  # half a megabyte of float32
_ALIGNED = 16  # torch draws normal numbers by so many, so that draws into such blocks are those into the whole


def in_blocks(*tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """The same rows of several tensors of one length, block after block, as views; the first is the largest."""
    first = tensors[0]
    size = _block_length(first, 0) if first.dim() else 0
    if not size:
        yield tensors
        return
    size = -(-size // _ALIGNED) * _ALIGNED
    # A last block of a few elements would be drawn in another way: it goes with the one before.
    starts = [start for start in range(0, len(first), size) if not start or first[start:].numel() >= _ALIGNED]
    for start, end in zip(starts, [*starts[1:], len(first)], strict=True):
        yield tuple(tensor[start:end] for tensor in tensors)


def sums_along(dim: int, term: Callable[..., Tensor], *tensors: Tensor) -> Tensor:
    """Sum what is computed from the elements of some tensors of one shape over all dimensions but one, in float32."""
    first = tensors[0]
    dim = dim % first.dim()
    others = [other for other in range(first.dim()) if other != dim]
    if not others:
        return term(*tensors).float()
    if torch.compiler.is_compiling():
        return term(*tensors).sum(dim=others, dtype=torch.float32)
    along = max(others, key=lambda other: first.shape[other])
    size = _block_length(first, along)
    if not size:
        return term(*tensors).sum(dim=others, dtype=torch.float32)
    sums: Tensor | None = None
    for block in zip(*(tensor.split(size, along) for tensor in tensors), strict=True):
        part = term(*block).sum(dim=others, dtype=torch.float32)
        sums = part if sums is None else sums.add_(part)
    assert sums is not None  # split never returns nothing
    return sums


def _block_length(tensor: Tensor, along: int) -> int:
    """How long a block is along a dimension; 0 if the tensor is best left whole."""
    if tensor.numel() <= _ELEMENTS or tensor.device.type != "cpu" or torch.compiler.is_compiling():
        return 0
    return max(1, _ELEMENTS * tensor.shape[along] // tensor.numel())
