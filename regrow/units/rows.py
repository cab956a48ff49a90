"""Which positions of a parameter each of its units owns."""

from collections.abc import Sequence

import torch
from torch import Tensor

from regrow.units import host
from regrow.units.labels import varying


class Rows:
    """Positions of all units of one parameter, in one role.

    Args:
        plane: unit of each element.

    Attributes:
        units: their numbers, ascending.
        dims: the dimensions that are indexed; along the others a unit has all.
        counts: for each unit, how many positions it has along each of these.
        scattered: units whose elements are not a block, that is all combinations of their positions.
    """

    def __init__(self, plane: Tensor) -> None:
        plane = plane if plane.numel() else plane.flatten()
        dims = list(varying(plane))
        if not dims and plane.dim():
            # One unit has all: index a dimension made for it, or the first.
            dims = [next((dim for dim in range(plane.dim()) if plane.size(dim) == 1), 0)]
        rest = [dim for dim in range(plane.dim()) if dim not in dims]
        small = plane.permute(*dims, *rest)
        for _ in rest if plane.numel() else ():
            small = small.select(-1, 0)
        lengths = []
        for dim in range(len(dims)):
            small, length = _without_repeats(small, dim)
            lengths.append(length)
        place = (small >= 0).nonzero().unbind(1)
        self.dims = tuple(dims)
        self.units, owner = small[place].unique(return_inverse=True)
        owned = torch.ones_like(owner)
        block = torch.ones_like(self.units)
        self._along = []
        for runs, length in zip(place, lengths, strict=True):
            along = _Along(owner, runs, length, len(self.units))
            self._along.append(along)
            owned, block = owned * length[runs], block * along.counts
        owned = torch.zeros_like(self.units).index_add(0, owner, owned)
        self.scattered = self.units[block != owned]
        self.counts = list(zip(*(along.counts.tolist() for along in self._along), strict=True)) or [()] * len(
            self.units
        )

    def of(self, units: Sequence[int]) -> dict[int, Tensor]:
        """Positions of some units, alike in number, along each indexed dimension: int64 of shape (units, positions)."""
        numbers = torch.searchsorted(self.units, host.tensor(units))
        return {dim: along.of(numbers) for dim, along in zip(self.dims, self._along, strict=True)}


class _Along:
    """Positions of all units along one dimension."""

    def __init__(self, owner: Tensor, runs: Tensor, lengths: Tensor, units: int) -> None:
        pairs = (owner * len(lengths) + runs).unique()
        owner, runs = pairs // len(lengths), pairs % len(lengths)
        self.counts = host.zeros(units, dtype=torch.int64).index_add(0, owner, lengths[runs])
        # All have the same, as of an embedding without its row for padding: kept once for all of them.
        self._same = units > 0 and len(pairs) == units * len(runs.unique())
        starts = lengths.cumsum(0) - lengths
        self._places = (
            _ranges(starts[runs], lengths[runs])
            if not self._same
            else _ranges(starts[runs.unique()], lengths[runs.unique()])
        )
        self._first = self.counts.cumsum(0) - self.counts

    def of(self, numbers: Tensor) -> Tensor:
        if self._same:
            return self._places.expand(len(numbers), -1)
        return self._places[self._first[numbers][:, None] + host.arange(int(self.counts[numbers[0]]))]


def _without_repeats(plane: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """The plane with each run of equal slices along a dimension narrowed to one; and the lengths of the runs."""
    if plane.size(dim) < 2:
        return plane, host.ones(plane.size(dim), dtype=torch.int64)
    others = [other for other in range(plane.dim()) if other != dim]
    last = plane.size(dim) - 1
    differs = plane.narrow(dim, 1, last) != plane.narrow(dim, 0, last)
    new = torch.cat([host.ones(1, dtype=torch.bool), differs.any(dim=others) if others else differs])
    starts = new.nonzero().flatten()
    return plane.index_select(dim, starts), torch.cat([starts, host.tensor([last + 1])]).diff()


def _ranges(starts: Tensor, lengths: Tensor) -> Tensor:
    """All whole numbers from each start on, as many as its length, one after the other."""
    within = host.arange(int(lengths.sum())) - (lengths.cumsum(0) - lengths).repeat_interleave(lengths)
    return starts.repeat_interleave(lengths) + within
