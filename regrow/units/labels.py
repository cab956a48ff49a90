"""Unit numbers, which of them are the same unit, and planes of them.

A plane is an int64 tensor of the shape of some value. It says for each element which unit the element depends on.
Along dimensions where it is constant its stride is 0, so that the plane of a large value costs almost nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from regrow.units import host

NONE = -1  # depends on no unit
ZERO = -2  # known to be zero, so multiplying it says nothing about a weight
UNUSED = -3  # in planes over a parameter: this element was never used so


class Units:
    """Numbers of units, in the order in which the forward made them, joined by union-find."""

    def __init__(self) -> None:
        self._count = 0
        # An earlier number of the same unit, or itself. The last three entries are where negative labels point to.
        self._parents = host.tensor([UNUSED, ZERO, NONE])
        self.joins = 0

    def new(self, count: int) -> Tensor:
        """Numbers of `count` new units."""
        numbers = host.arange(self._count, self._count + count)
        self._count += count
        if self._count > len(self._parents) - 3:
            room = host.arange(2 * self._count)
            room[: len(self._parents) - 3] = self._parents[:-3]
            self._parents = torch.cat([room, self._parents[-3:]])
        return numbers

    def join(self, left: Tensor, right: Tensor) -> None:
        """Declare units the same, pair by pair. The earliest number stands for all of them."""
        while True:
            left, right = self.find(left), self.find(right)
            apart = left != right
            if not bool(apart.any()):
                return
            left, right = left[apart], right[apart]
            # Several pairs may join the same number to others; the earliest of these counts, and the rest come next.
            later = torch.maximum(left, right)
            self._parents.scatter_reduce_(0, later, torch.minimum(left, right), "amin")
            self.joins += len(later.unique())

    def find(self, plane: Tensor) -> Tensor:
        """The plane with each unit replaced by the number that stands for it."""
        small = core(plane)
        roots = self._parents[small]
        if torch.equal(roots, small):
            return plane
        while not torch.equal(roots, higher := self._parents[roots]):
            self._parents[small] = roots = higher
        return roots.expand(plane.shape)


def constant(label: int, shape: Sequence[int]) -> Tensor:
    """A plane that is the same everywhere."""
    return host.full((), label, dtype=torch.int64).expand(tuple(shape))


def core(plane: Tensor) -> Tensor:
    """The plane with each constant dimension narrowed to one position; `expand` undoes it."""
    for dim in range(plane.dim()):
        if plane.stride(dim) == 0 and plane.size(dim) > 1:
            plane = plane.narrow(dim, 0, 1)
    return plane


def compress(plane: Tensor) -> Tensor:
    """The same plane with stride 0 along every dimension where it is constant."""
    small = core(plane)
    if small.numel():
        for dim in range(small.dim()):
            first = small.narrow(dim, 0, 1)
            if small.size(dim) > 1 and bool((small == first).all()):
                small = first
    return small.expand(plane.shape)


def without_zeros(plane: Tensor) -> Tensor:
    """The plane with known zeros as values of no unit, for what an operator makes of zero is something else."""
    return core(plane).clamp(min=NONE).expand(plane.shape)


def fill_zeros(plane: Tensor, dims: Sequence[int]) -> Tensor:
    """The plane with known zeros as of the unit that is elsewhere along some dimensions, whose bias they get, or of no
    unit where there is none.
    """
    if not bool((core(plane) == ZERO).any()):
        return plane
    return compress(torch.where(plane == ZERO, meet(plane, dims).label.clamp(min=NONE), plane))


def varying(plane: Tensor) -> tuple[int, ...]:
    """Dimensions along which a compressed plane is not constant."""
    return tuple(dim for dim in range(plane.dim()) if plane.size(dim) > 1 and plane.stride(dim) != 0)


def has_units(plane: Tensor) -> bool:
    """Whether any element belongs to a unit."""
    return bool((core(plane) >= 0).any())


def units_in(plane: Tensor) -> Tensor:
    """Numbers of the units in a plane, ascending."""
    found: Tensor = core(plane).unique()
    return found[found >= 0]


@dataclass(frozen=True)
class Met:
    """What a plane holds along some dimensions, for each position of the others.

    Attributes:
        label: the highest label there, so a unit if there is any; those dimensions have size 1.
        left: for every position with several units, their numbers ...
        right: ... pair by pair.
        foreign: whether that position has a unit and also a value of no unit.
        several: whether that position has a unit and anything else, another unit or a value of none.
    """

    label: Tensor
    left: Tensor
    right: Tensor
    foreign: Tensor
    several: Tensor


def meet(plane: Tensor, dims: Sequence[int]) -> Met:
    """Collect a plane along dimensions."""
    small, dims = core(plane), tuple(dims)
    shape = [1 if dim in dims else size for dim, size in enumerate(plane.shape)]
    if not small.numel():
        empty, nowhere = host.empty(0, dtype=torch.int64), constant(0, shape).bool()
        return Met(constant(NONE, shape), empty, empty, nowhere, nowhere)
    highest = small.amax(dim=dims, keepdim=True) if dims else small
    other = (small >= 0) & (small != highest)
    pairs = torch.stack([highest.expand(small.shape)[other], small[other]]).unique(dim=1)
    foreign = (highest >= 0) & (small == NONE)
    if dims:
        other, foreign = other.any(dim=dims, keepdim=True), foreign.any(dim=dims, keepdim=True)
    return Met(highest.expand(shape), pairs[0], pairs[1], foreign.expand(shape), (other | foreign).expand(shape))


def align(planes: Sequence[Tensor], shape: Sequence[int]) -> Tensor:
    """Planes broadcast to one shape and stacked along a new last dimension, constant dimensions kept at stride 0."""
    small = [core(plane.expand(tuple(shape))) for plane in planes]
    common = torch.broadcast_shapes(*(plane.shape for plane in small))
    stacked = torch.stack([plane.expand(common) for plane in small], dim=-1)
    return stacked.expand(*shape, len(planes))
