"""What must hold of the units of any network, checked without knowing what they are."""

from collections import Counter
from typing import Any

import torch
from torch import Tensor, nn

from regrow.units.graph import UnitGraph, UnitGroup
from regrow.units.parametrized import parameters_behind
from regrow.units.trace import find_units
from regrow.units.verify import verify
from tests.units.probe import Probe


def complaints(model: nn.Module, example: Tensor, tally: Counter[str], units_per_group: int = 2) -> list[str]:
    """What is wrong with the units that are found in a network, one sentence each.

    Args:
        model: a network in double precision whose parameters hold nothing but different numbers.
        example: its argument.
        tally: counts what was tried.
        units_per_group: how many units of each group to try.
    """
    graph = find_units(model, example)
    found = [*_inconsistent(model, graph)]
    if _described(graph) != _described(find_units(model, example)):
        found.append("a second look finds other units")
    verification = verify(model, example, graph, units_per_group=units_per_group)
    for check in verification.checks:
        tally["without an effect in verify"] += len(check.idle)
        if check.moved and check.status != "coupled":
            found.append(f"verify: {check}")
    probe = Probe(model, example)
    owners = _Owners(probe, graph)
    for group in graph:
        tally[group.status] += 1
        if group.status in ("free", "shared", "coupled", "unused") and probe.knows(group):
            for unit in range(min(group.size, units_per_group)):
                found += _probed(probe, owners, group, unit, tally)
    return found


def _inconsistent(model: nn.Module, graph: UnitGraph) -> list[str]:
    claimed = {
        name
        for group in graph
        for part in group.slices
        if part.role != "statistic"
        for name in parameters_behind(model, part.parameter)
    }
    names = {name for name, _ in model.named_parameters()}
    wrong = names ^ claimed ^ set(graph.unclaimed)
    return [f"neither claimed nor unclaimed, or both: {sorted(wrong)}"] if wrong else []


class _Owners:
    """Which unit each element of each parameter makes; -1 for none."""

    def __init__(self, probe: Probe, graph: UnitGraph) -> None:
        self.makes = torch.full((probe.count,), -1)
        self.number = {}
        self._groups = []
        for group in graph:
            self._groups.append(torch.arange(group.size) + len(self.number))
            for unit in range(group.size):
                number = len(self.number)
                self.number[group.name, unit] = number
                self.makes[probe.elements(group, unit, "incoming", "bias", "gain")] = number

    def foreign(self, elements: Tensor, this: int) -> Tensor:
        """Those of some elements that make other units, but for a unit that lies across: it meets all of a group."""
        makes = self.makes[elements]
        others = (makes >= 0) & (makes != this)
        for group in self._groups:
            if len(group) > 1 and this not in group and bool(torch.isin(group, makes).all()):
                others &= ~torch.isin(makes, group)
        return elements[others]


def _probed(probe: Probe, owners: _Owners, group: UnitGroup, unit: int, tally: Counter[str]) -> list[str]:
    """What is wrong with one unit: its outgoing slices are all that lets it out, and they multiply nothing else."""
    this = owners.number[group.name, unit]
    own = probe.elements(group, unit, "incoming", "bias", "gain", "outgoing")
    outgoing = probe.elements(group, unit, "outgoing")
    generator = torch.Generator().manual_seed(0)
    idle = outgoing[torch.isin(outgoing, probe.known)]
    tally["probed"] += 1
    for _ in range(3):
        for training in (True, False):
            moved = probe.movement(group, unit, training, generator, freeze=group.status in ("coupled", "unused"))
            where = f"unit {unit} of {group.name} ({group.status}, {'training' if training else 'evaluation'})"
            if moved.output:
                return [f"{where} has an effect beside its outgoing slices"]
            for number, elements in moved.multiplied.items():
                idle = idle[~torch.isin(idle, elements)]
                missed = elements[~torch.isin(elements, own)]
                if len(missed) and number not in moved.passing and probe.matters(training, number):
                    return [f"{where} is also multiplied by {probe.describe(missed)}"]
            for number, elements in moved.met.items():
                foreign = owners.foreign(elements, this)
                # One that nothing reads is never re-drawn, and may lie across some units of others.
                if group.status != "unused" and len(foreign) and probe.matters(training, number):
                    return [f"{where} also meets {probe.describe(foreign)}, of another unit"]
                tally["met"] += len(elements)
        if not len(idle):
            break
    tally["multiplied"] += len(outgoing) - len(idle)
    tally["idle"] += len(idle)
    return []


def _described(graph: UnitGraph) -> list[Any]:
    return [
        (group.name, group.size, group.status, group.reasons)
        + tuple((part.parameter, part.role, [rows.tolist() for rows in part.rows.values()]) for part in group.slices)
        for group in graph
    ]
