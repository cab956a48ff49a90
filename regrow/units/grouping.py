"""From the evidence of a forward to groups of units."""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from regrow.units.adapters import find_adapters
from regrow.units.evidence import Claim, Evidence
from regrow.units.graph import Slice, Status, UnitGraph, UnitGroup
from regrow.units.reasons import Key, Reasons, status
from regrow.units.rows import Rows
from regrow.units.settling import settle
from regrow.units.tapping import TapFinder


def group_units(evidence: Evidence, parameters: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> UnitGraph:
    """Settle which units are the same and what holds each back, and put like ones into groups.

    Args:
        evidence: of all forward passes.
        parameters: the model's parameters by name, with what stands in their place.
        tensors: parameters and buffers by name.
    """
    return _Grouping(evidence, parameters, tensors).graph()


class _Kind(NamedTuple):
    """What units have in common that are put into one group."""

    status: Status
    reasons: tuple[str, ...]
    parts: tuple[tuple[Key, tuple[int, ...]], ...]  # how many positions along each indexed dimension


class _Grouping:
    def __init__(self, evidence: Evidence, parameters: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> None:
        self.evidence = evidence
        self.parameters = parameters
        self.tensors = tensors
        self.claims: dict[Key, list[Claim]] = {}
        for claim in evidence.claims:
            self.claims.setdefault((claim.name, claim.role), []).append(claim)
        self.reasons = Reasons()
        planes = settle(self.claims, tensors, evidence.units, self.reasons)
        self.reasons.collect(evidence, planes, parameters)
        self.adapters = find_adapters(self.claims, planes, parameters, evidence.units)
        self.rows = {key: Rows(plane) for key, plane in planes.items()}
        for (name, _), rows in self.rows.items():
            self.reasons.note(rows.scattered, "mix", f"its part of {name} is not a block of rows and columns")
        self.taps = TapFinder(
            evidence, {name: claims for (name, role), claims in self.claims.items() if role == "outgoing"}
        )
        self.makers: dict[str, set[str]] = {}  # module: its parameters that make units
        for name, role in self.claims:
            if role == "incoming":
                self.makers.setdefault(name.rpartition(".")[0], set()).add(name)

    def graph(self) -> UnitGraph:
        names: dict[str, int] = {}
        groups = []
        for kind, units in self._members().items():
            slices = self._slices(units, [key for key, _ in kind.parts])
            name = self._name(slices)
            names[name] = names.get(name, 0) + 1
            if names[name] > 1:
                name = f"{name}:{names[name]}"
            groups.append(UnitGroup(name, len(units), kind.status, kind.reasons, slices))
        return UnitGraph(tuple(groups), self._unclaimed({part.parameter for group in groups for part in group.slices}))

    def _members(self) -> dict[_Kind, list[int]]:
        """Units of each kind, ascending."""
        held: dict[int, list[tuple[Key, tuple[int, ...]]]] = {}
        for key, rows in self.rows.items():
            for unit, counts in zip(rows.units.tolist(), rows.counts, strict=True):
                held.setdefault(unit, []).append((key, counts))
        found = [self.evidence.units.find(output).unique() for output in self.evidence.outputs]
        output = set(torch.cat(found).tolist()) if found else set()
        members: dict[_Kind, list[int]] = {}
        kinds: dict[object, _Kind] = {}
        for unit in sorted(held.keys() - self.adapters.keys()):
            parts, reasons, returned = tuple(held[unit]), self.reasons.of(unit), unit in output
            if (alike := (parts, reasons, returned)) not in kinds:
                settled = status(reasons, [role for (_, role), _ in parts], returned)
                kinds[alike] = _Kind(*settled, parts)
            members.setdefault(kinds[alike], []).append(unit)
        return members

    def _slices(self, units: list[int], keys: list[Key]) -> tuple[Slice, ...]:
        taps = self.taps.taps(units, [name for name, role in keys if role == "outgoing"])
        parts = []
        for key in keys:
            name, role = key
            shape, fresh = tuple(self.tensors[name].shape), self.claims[key][0].fresh
            tap = taps[name] if role == "outgoing" else None
            parts.append(Slice(name, role, shape, self.rows[key].of(units), fresh, tap))
        return tuple(parts)

    def _name(self, slices: tuple[Slice, ...]) -> str:
        first = next((part for part in slices if part.role == "incoming"), slices[0]).parameter
        module = first.rpartition(".")[0]
        return module if module and len(self.makers.get(module, ())) == 1 else first

    def _unclaimed(self, claimed: set[str]) -> dict[str, str]:
        """Parameters that belong to no unit, with the reason."""
        leaks: dict[str | None, str] = {}
        for leak in self.evidence.leaks:
            leaks.setdefault(leak.parameter, leak.reason)
        met = {claim.name for claim in self.evidence.claims}
        of_adapters = {
            name: self.adapters[unit]
            for (name, role), rows in self.rows.items()
            for unit in rows.units.tolist()
            if unit in self.adapters and role != "outgoing"
        }
        found = {}
        for name in self.parameters:
            if name in of_adapters:
                found[name] = of_adapters[name]
            elif name in claimed:
                continue
            elif name in leaks:
                found[name] = leaks[name]
            elif name in met:
                found[name] = f"{name} meets values of no unit, or of several"
            elif self.evidence.random_parts:
                found[name] = "no run of the example reached it, and random numbers may choose what runs"
            else:
                found[name] = "the example does not reach it"
        return found
