"""What the units of a network are: the data that `find_units` returns and everything above reads."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from torch import Tensor

from regrow.units.table import Row, format_table

Role = Literal["incoming", "bias", "gain", "statistic", "outgoing"]
Status = Literal["free", "shared", "coupled", "blocked", "output", "unused"]


@dataclass(frozen=True, eq=False)
class Tap:
    """Where the activation of every unit of a group can be read while the network runs.

    Two outgoing slices that meet the very same value carry the same `Tap` object.

    Attributes:
        module: qualified name of the module to hook ("" is the model itself).
        where: the module's input or its output.
        position: which one: index of the positional argument (or of the output tuple), or keyword (or key).
        dim: dimension along which the units lie, counted from the end (negative).
        rows: positions along `dim` that belong to each unit, int64 of shape (units, positions).
        exact: the value is the one that meets the outgoing weights; otherwise a near one.
    """

    module: str
    where: Literal["input", "output"]
    position: int | str
    dim: int
    rows: Tensor
    exact: bool = True


@dataclass(frozen=True, eq=False)
class Slice:
    """The elements of one parameter (or buffer) that belong to the units of one group, in one role.

    Attributes:
        parameter: qualified name of the parameter; for role "statistic", of the buffer; behind a parametrization such
            as weight norm, of the computed tensor ("0.weight"), whose elements are set through the originals.
        role: incoming (makes the unit), bias, gain (affine entry of a norm), statistic (running mean or
            variance) or outgoing (reads the unit).
        shape: shape of that tensor.
        rows: for each indexed dimension, the positions of each unit, int64 of shape (units, positions);
            dimensions that are absent are taken whole. With several dimensions, a unit owns their product.
        fresh: value to which a bias, gain or statistic returns when the unit is re-drawn; None means the
            value the element had at attach.
        tap: where the unit's activation can be read; only outgoing slices have one, and only where a module
            sees the value.
    """

    parameter: str
    role: Role
    shape: tuple[int, ...]
    rows: dict[int, Tensor]
    fresh: float | None = None
    tap: Tap | None = None

    def index(self, unit: int) -> tuple[slice | Tensor, ...]:
        """What to put in the brackets of the tensor (or its gradient, or optimizer state) for one unit."""
        meshed = iter(torch.meshgrid(*(positions[unit] for positions in self.rows.values()), indexing="ij"))
        return tuple(next(meshed) if dim in self.rows else slice(None) for dim in range(len(self.shape)))


@dataclass(frozen=True, eq=False)
class UnitGroup:
    """Units that one set of layers makes together: one row of the table.

    Attributes:
        name: qualified name of the first producer; unique in its graph and stable between runs.
        size: number of units.
        status: see the word list in docs/architecture.md.
        reasons: why the group is not free: one sentence each.
        slices: every element of every parameter that belongs to these units.
    """

    name: str
    size: int
    status: Status
    reasons: tuple[str, ...] = ()
    slices: tuple[Slice, ...] = ()

    def having(self, *roles: Role) -> tuple[Slice, ...]:
        """The slices in any of the given roles."""
        return tuple(part for part in self.slices if part.role in roles)

    @property
    def producers(self) -> tuple[str, ...]:
        """Names of the parameters whose incoming slices make the units."""
        return tuple(dict.fromkeys(part.parameter for part in self.having("incoming")))

    @property
    def consumers(self) -> tuple[str, ...]:
        """Names of the parameters whose outgoing slices read the units."""
        return tuple(dict.fromkeys(part.parameter for part in self.having("outgoing")))


@dataclass(frozen=True, eq=False)
class UnitGraph:
    """All units of a network.

    Attributes:
        groups: in forward order of their first producer; after all others those across them, as of an MLP-Mixer.
        unclaimed: every parameter that belongs to no unit, with the reason.
    """

    groups: tuple[UnitGroup, ...]
    unclaimed: dict[str, str] = field(default_factory=dict)

    def __iter__(self) -> Iterator[UnitGroup]:
        return iter(self.groups)

    def __getitem__(self, name: str) -> UnitGroup:
        for group in self.groups:
            if group.name == name:
                return group
        raise KeyError(name)

    def joined(self, other: "UnitGraph") -> "UnitGraph":
        """This graph, followed by the groups of another one that was found among its unclaimed parameters."""
        names = {group.name for group in self.groups}
        groups = list(self.groups)
        for group in other.groups:
            name, number = group.name, 1
            while name in names:
                number += 1
                name = f"{group.name}:{number}"
            names.add(name)
            groups.append(replace(group, name=name))
        claimed = {part.parameter for group in other.groups for part in group.slices}
        return UnitGraph(
            tuple(groups), {name: reason for name, reason in self.unclaimed.items() if name not in claimed}
        )

    def __str__(self) -> str:
        return self.table()

    def table(self, verbose: bool = False) -> str:
        """What `print` shows: every group, which parameters make and read it, its status with the reasons; and the
        parameters of no unit, with the reason.

        Args:
            verbose: a row for each group, with all names and reasons in full. Otherwise groups that repeat layer after
                layer share one row, and long lists of names are cut.
        """
        counts = Counter(group.status for group in self.groups)
        title = f"{len(self.groups)} groups" + (": " if counts else "")
        title += ", ".join(f"{count} {status}" for status, count in counts.items())
        rows = [
            Row(group.name, group.size, group.producers, group.consumers, group.status, "; ".join(group.reasons))
            for group in self.groups
        ]
        return f"{title}\n\n{format_table(rows, self.unclaimed, 'reasons', verbose)}"
