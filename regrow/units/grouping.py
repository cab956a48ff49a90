"""From the evidence of a forward to groups of units."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor, nn

from regrow.units.evidence import Claim, Leak
from regrow.units.graph import Role, Slice, Status, Tap, UnitGraph, UnitGroup
from regrow.units.labels import NONE, UNUSED, ZERO, Units, compress, core, units_in, varying
from regrow.units.memory import Geometry, extent
from regrow.units.sightings import Sighting

Rows = tuple[tuple[int, Tensor], ...]  # positions of one unit along each indexed dimension
Key = tuple[str, Role]


@dataclass(eq=False)
class Evidence:
    """All that the forward told.

    Attributes:
        units: numbers that planes refer to.
        sightings: of values by modules.
        claims: uses of parameters, in forward order.
        leaks: effects beyond labels.
        returned: numbers of the leaks that reached an output.
        counted: numbers of those that matter in any case.
        read: numbers of those that met a parameter on their way, so that it is not the output that makes them.
        outputs: units in what the network returned.
        random_parts: whether random numbers may choose which parts of the network run.
    """

    units: Units
    sightings: list[Sighting]
    claims: list[Claim] = field(default_factory=list)
    leaks: list[Leak] = field(default_factory=list)
    returned: set[int] = field(default_factory=set)
    counted: set[int] = field(default_factory=set)
    read: set[int] = field(default_factory=set)
    outputs: list[Tensor] = field(default_factory=list)
    random_parts: bool = False

    def note(self, leak: Leak) -> int:
        """Add a leak and return its number; one that is known already keeps its own."""
        for number, known in enumerate(self.leaks):
            if (known.reason, known.parameter) == (leak.reason, leak.parameter) and torch.equal(
                known.units, leak.units
            ):
                return number
        self.leaks.append(leak)
        return len(self.leaks) - 1


def group_units(evidence: Evidence, parameters: Mapping[str, nn.Parameter], tensors: Mapping[str, Tensor]) -> UnitGraph:
    """Settle which units are the same and what holds each back, and put like ones into groups.

    Args:
        evidence: of all forward passes.
        parameters: the model's parameters by name.
        tensors: parameters and buffers by name.
    """
    return _Grouping(evidence, parameters, tensors).graph()


class _Kind(NamedTuple):
    """What units have in common that are put into one group."""

    status: Status
    reasons: tuple[str, ...]
    parts: tuple[tuple[Key, tuple[tuple[int, int], ...]], ...]  # dimensions indexed, and how many positions


class _Grouping:
    def __init__(
        self, evidence: Evidence, parameters: Mapping[str, nn.Parameter], tensors: Mapping[str, Tensor]
    ) -> None:
        self.evidence = evidence
        self.units = evidence.units
        self.parameters = parameters
        self.tensors = tensors
        self.reasons: dict[int, dict[str, str]] = {}  # unit: reason: kind
        self.claims: dict[Key, list[Claim]] = {}
        for claim in evidence.claims:
            self.claims.setdefault((claim.name, claim.role), []).append(claim)
        self.planes = self._settle()

    def graph(self) -> UnitGraph:
        self._collect_reasons()
        rows = {key: self._rows_of(key, plane) for key, plane in self.planes.items()}
        output = set(self.units.find(torch.cat(self.evidence.outputs)).tolist()) if self.evidence.outputs else set()
        members: dict[_Kind, list[int]] = {}
        for unit in sorted({unit for found in rows.values() for unit in found}):
            held = {key: found[unit] for key, found in rows.items() if unit in found}
            status, reasons = self._status(unit, held, unit in output)
            parts = tuple((key, tuple((dim, len(positions)) for dim, positions in part)) for key, part in held.items())
            members.setdefault(_Kind(status, reasons, parts), []).append(unit)
        names: dict[str, int] = {}
        groups = []
        for kind, units in members.items():
            slices = self._slices(units, [key for key, _ in kind.parts], rows)
            name = self._name(slices)
            names[name] = names.get(name, 0) + 1
            if names[name] > 1:
                name = f"{name}:{names[name]}"
            groups.append(UnitGroup(name, len(units), kind.status, kind.reasons, slices))
        claimed = {part.parameter for group in groups for part in group.slices}
        left = {name: self._why_unclaimed(name) for name in self.parameters if name not in claimed}
        return UnitGraph(tuple(groups), left)

    # Which unit each element of a parameter belongs to, in each role.

    def _settle(self) -> dict[Key, Tensor]:
        spread = {
            key: [self._spread(claim) for claim in claims]
            for key, claims in sorted(self.claims.items(), key=lambda item: item[0][1] != "outgoing")
        }
        before = -1
        while before != self.units.joins:  # joins of one parameter's units can settle another's
            before = self.units.joins
            for (_, role), planes in spread.items():
                if role in ("incoming", "outgoing"):
                    for plane in planes[1:]:
                        self._join(planes[0], plane, role)
        settled = {key: self._fold(key, planes) for key, planes in spread.items()}
        self._forbid_two_roles(settled)
        order = {key: number for number, key in enumerate(self.claims)}
        return {key: plane for key, plane in sorted(settled.items(), key=lambda item: order[item[0]])}

    def _spread(self, claim: Claim) -> Tensor:
        """A claim's plane on the whole parameter, `UNUSED` where it says nothing."""
        tensor = self.tensors[claim.name]
        plane = claim.plane
        if claim.role == "outgoing":
            plane = torch.where(core(plane) == ZERO, UNUSED, core(plane)).expand(plane.shape)
        if not isinstance(claim.place, Tensor):
            axes = _axes(claim.place, tensor)
            if axes is not None:
                return _permuted(plane, axes, tensor)
        flat = torch.full((extent(tensor),), UNUSED, dtype=torch.int64)
        if isinstance(claim.place, Tensor):
            place = claim.place.expand(plane.shape)
            inside = (place >= 0) & (place < len(flat))
            flat[place[inside]] = plane[inside]
        else:
            offset, shape, strides = claim.place
            flat.as_strided(shape, strides, offset).copy_(plane)
        return compress(flat.as_strided(tensor.shape, tensor.stride()))

    def _join(self, first: Tensor, second: Tensor, role: Role) -> None:
        """Units read by the same weight are one. So are units made by the same weight, if that pairs them off."""
        one, other = _cores(self.units.find(first), self.units.find(second))
        if role == "incoming" and min(int(one.min()), int(other.min())) >= 0:
            if len(one.unique()) != len(other.unique()):
                return  # as of a large tied embedding, without spelling out all pairs
        one, other = torch.broadcast_tensors(one, other)
        both = (one >= 0) & (other >= 0) & (one != other)
        pairs = torch.stack([one[both], other[both]]).unique(dim=1)
        paired_off = all(len(side.unique()) == pairs.size(1) for side in pairs)
        if role == "outgoing" or paired_off:
            self.units.join(pairs[0], pairs[1])

    def _fold(self, key: Key, planes: list[Tensor]) -> Tensor:
        """One plane from those of all uses. A unit whose element is also something else's is noted."""
        name, role = key
        result = self.units.find(planes[0])
        for plane in planes[1:]:
            shape = result.shape
            small = _cores(result, self.units.find(plane))
            one, other = torch.broadcast_tensors(*small)
            clash = (one != other) & (one != UNUSED) & (other != UNUSED)
            if bool(clash.any()):
                units = torch.cat([_under(clash, side) for side in small])
                if role in ("incoming", "outgoing"):
                    self._note(units, "mix", f"{name} also {_CLASH[role]}")
                else:  # a bias or gain that several units share is reset with none of them
                    one = torch.where(clash, NONE, one)
            result = compress(torch.where(one == UNUSED, other, one).expand(shape))
        return result

    def _forbid_two_roles(self, planes: dict[Key, Tensor]) -> None:
        """A weight may read one unit and make another. Anything else in two roles cannot be replaced."""
        for (name, role), plane in planes.items():
            for (other_name, other_role), other in planes.items():
                if name != other_name or role >= other_role:
                    continue
                one, two = torch.broadcast_tensors(*_cores(plane, other))
                if {role, other_role} == {"incoming", "outgoing"}:
                    makes, reads = (one, two) if role == "incoming" else (two, one)
                    self._forbid_tied(name, makes, reads)
                else:
                    both = (one != UNUSED) & (two != UNUSED)
                    self._note(torch.cat([one[both], two[both]]), "mix", f"{name} is used in two roles")

    def _forbid_tied(self, name: str, makes: Tensor, reads: Tensor) -> None:
        own = makes[(makes == reads) & (makes >= 0)]
        if not len(own):
            return
        units, counts = own.unique(return_counts=True)
        for unit, number in zip(units.tolist(), counts.tolist(), strict=True):
            if number == int((makes == unit).sum()):
                self._note(torch.tensor([unit]), "mix", f"{name} both makes and reads it (tied weights)")

    # What holds a unit back.

    def _note(self, units: Tensor, kind: str, reason: str) -> None:
        for unit in units.unique().tolist():
            if unit >= 0:
                self.reasons.setdefault(unit, {}).setdefault(reason, kind)

    def _collect_reasons(self) -> None:
        for number in sorted(self.evidence.counted | self.evidence.returned):
            leak = self.evidence.leaks[number]
            if leak.parameter is None:
                at_the_end = leak.kind in ("norm", "mix") and number not in self.evidence.read | self.evidence.counted
                self._note(self.units.find(leak.units), "end" if at_the_end else leak.kind, leak.reason)
                continue
            for (name, _), plane in self.planes.items():
                if name == leak.parameter:
                    self._note(units_in(plane), leak.kind, leak.reason)
        for (name, role), plane in self.planes.items():
            if role != "statistic" and not self.parameters[name].requires_grad:
                self._note(units_in(plane), "mix", f"{name} does not require grad")

    def _status(self, unit: int, held: Mapping[Key, Rows], returned: bool) -> tuple[Status, tuple[str, ...]]:
        found = self.reasons.get(unit, {})
        reasons = tuple(found)
        shown = reasons if len(reasons) <= 4 else (*reasons[:3], f"and {len(reasons) - 3} reasons more of this kind")
        kinds = set(found.values())
        read = any(role == "outgoing" for _, role in held)
        if returned:
            return "output", ("the network returns it",)
        if not read and "end" in kinds:
            return "output", shown
        if kinds - {"norm"}:
            return "blocked", shown
        if not read:
            return "unused", ("nothing reads it",)
        if kinds:
            return "coupled", shown
        return ("free" if sum(role == "incoming" for _, role in held) == 1 else "shared"), ()

    def _why_unclaimed(self, name: str) -> str:
        for leak in self.evidence.leaks:
            if leak.parameter == name:
                return leak.reason
        if any(claim.name == name for claim in self.evidence.claims):
            return f"{name} meets values of no unit, or of several"
        if self.evidence.random_parts:
            return "no run of the example reached it, and random numbers may choose what runs"
        return "the example does not reach it"

    # Slices.

    def _rows_of(self, key: Key, plane: Tensor) -> dict[int, Rows]:
        """Positions of each unit's elements."""
        dims = list(varying(plane))
        if not dims and plane.dim():
            # One unit has all: index a dimension made for it, or the first.
            dims = [next((dim for dim in range(plane.dim()) if plane.size(dim) == 1), 0)]
        rest = [dim for dim in range(plane.dim()) if dim not in dims]
        small = _first_along(plane.permute(*dims, *rest), len(rest)) if plane.numel() else plane.flatten()
        order = small.flatten().argsort(stable=True)
        labels, counts = small.flatten()[order].unique_consecutive(return_counts=True)
        found: dict[int, Rows] = {}
        for unit, places in zip(labels.tolist(), order.split(counts.tolist()), strict=True):
            if unit < 0:
                continue
            if len(dims) == 1:
                found[unit] = ((dims[0], places),)
                continue
            positions = [along.unique() for along in torch.unravel_index(places, small.shape)]
            found[unit] = tuple(zip(dims, positions, strict=True))
            if torch.Size(map(len, positions)).numel() != len(places):
                self._note(torch.tensor([unit]), "mix", f"its part of {key[0]} is not a block of rows and columns")
        return found

    def _slices(self, units: list[int], keys: list[Key], rows: Mapping[Key, Mapping[int, Rows]]) -> tuple[Slice, ...]:
        taps: dict[object, Tap | None] = {}
        parts = []
        for key in keys:
            name, role = key
            indexed = {
                dim: torch.stack([rows[key][unit][number][1] for unit in units])
                for number, (dim, _) in enumerate(rows[key][units[0]])
            }
            tap = self._tap(units, key, taps) if role == "outgoing" else None
            shape = tuple(self.tensors[name].shape)
            parts.append(Slice(name, role, shape, indexed, self.claims[key][0].fresh, tap))
        return tuple(parts)

    def _name(self, slices: tuple[Slice, ...]) -> str:
        first = next((part for part in slices if part.role == "incoming"), slices[0]).parameter
        module = first.rpartition(".")[0]
        made = {name for name, role in self.claims if role == "incoming" and name.rpartition(".")[0] == module}
        return module if module and len(made) == 1 else first

    # Taps.

    def _tap(self, units: list[int], key: Key, known: dict[object, Tap | None]) -> Tap | None:
        claims = [
            claim
            for claim in self.claims[key]
            if bool(torch.isin(self.units.find(core(claim.plane)), torch.tensor(units)).any())
        ]
        passes = [claim.value[0] for claim in claims if claim.value is not None]
        values = frozenset(claim.value for claim in claims if claim.value is not None and claim.value[0] == passes[0])
        if values not in known:
            # A recurrent layer returns what it reads at the next step.
            returned = [
                seen for seen in self.evidence.sightings if seen.place[:2] == (key[0].rpartition(".")[0], "output")
            ]
            known[values] = next(
                (
                    tap
                    for exact, seen in ((True, claims[0].sightings), (False, claims[0].near), (False, returned))
                    for sighting in seen
                    if (tap := self._tap_at(units, sighting, exact)) is not None
                ),
                None,
            )
        return known[values]

    def _tap_at(self, units: list[int], sighting: Sighting, exact: bool) -> Tap | None:
        """The tap at a sighting, if whenever the module runs it sees these units there."""
        labels = self.units.find(sighting.labels)
        for other in self._sightings(sighting.place):
            if other.dim != sighting.dim or not torch.equal(self.units.find(other.labels), labels):
                return None
        if sighting.dim is None:
            return None
        places = [(labels == unit).nonzero().flatten() for unit in units]
        if len({len(found) for found in places}) != 1 or not len(places[0]):
            return None
        module, where, position = sighting.place
        return Tap(module, where, position, sighting.dim, torch.stack(places), exact)

    def _sightings(self, place: object) -> list[Sighting]:
        return [sighting for sighting in self.evidence.sightings if sighting.place == place]


_CLASH = {"incoming": "makes other units", "outgoing": "multiplies something else"}


def _axes(place: Geometry, tensor: Tensor) -> dict[int, int] | None:
    """Which dimension of a view each dimension of its tensor is, if the view is all of it, dimensions permuted."""
    offset, shape, strides = place
    axes = {}
    for dim, (size, stride) in enumerate(zip(tensor.shape, tensor.stride(), strict=True)):
        if size > 1:
            same = [axis for axis in range(len(shape)) if shape[axis] == size and strides[axis] == stride]
            if len(same) != 1:
                return None
            axes[dim] = same[0]
    rest = [shape[axis] for axis in range(len(shape)) if axis not in axes.values()]
    return axes if offset == 0 and all(size == 1 for size in rest) else None


def _permuted(plane: Tensor, axes: dict[int, int], tensor: Tensor) -> Tensor:
    rest = [axis for axis in range(plane.dim()) if axis not in axes.values()]
    kept = _first_along(plane.permute(*axes.values(), *rest), len(rest))
    for dim in range(tensor.dim()):
        if dim not in axes:
            kept = kept.unsqueeze(dim)
    return compress(kept)


def _first_along(plane: Tensor, count: int) -> Tensor:
    """The plane without its last dimensions, at their first position."""
    for _ in range(count):
        plane = plane.select(-1, 0)
    return plane


def _under(mask: Tensor, plane: Tensor) -> Tensor:
    """What a plane that is broadcast to the shape of a mask holds where the mask is set."""
    dims = [dim for dim in range(mask.dim()) if plane.size(dim) == 1 and mask.size(dim) > 1]
    return plane[mask.any(dim=dims, keepdim=True) if dims else mask]


def _cores(one: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    return core(one), core(other)
