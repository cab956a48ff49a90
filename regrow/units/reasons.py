"""What holds units back, and the status that follows."""

from collections.abc import Collection, Mapping

from torch import Tensor

from regrow.units.evidence import Evidence
from regrow.units.graph import Role, Status
from regrow.units.labels import units_in

Key = tuple[str, Role]


class Reasons:
    """Sentences for each unit, each with its kind, in the order in which they were found."""

    def __init__(self) -> None:
        self._of: dict[int, dict[str, str]] = {}

    def note(self, units: Tensor, kind: str, reason: str) -> None:
        """Add a reason to units."""
        for unit in units.unique().tolist():
            if unit >= 0:
                self._of.setdefault(unit, {}).setdefault(reason, kind)

    def of(self, unit: int) -> tuple[tuple[str, str], ...]:
        """Reasons of a unit, each with its kind."""
        return tuple(self._of.get(unit, {}).items())

    def collect(self, evidence: Evidence, planes: Mapping[Key, Tensor], parameters: Mapping[str, Tensor]) -> None:
        """Add the leaks that matter, and what does not require grad.

        Args:
            evidence: of all forward passes.
            planes: unit of each element of each parameter, in each role.
            parameters: by name.
        """
        uses: dict[str, list[Tensor]] = {}
        for (name, _), plane in planes.items():
            uses.setdefault(name, []).append(plane)
        met = evidence.read | evidence.counted
        for number in sorted(evidence.counted | evidence.returned):
            leak = evidence.leaks[number]
            if leak.parameter is None:
                at_the_end = leak.kind in ("norm", "mix") and number not in met
                self.note(evidence.units.find(leak.units), "end" if at_the_end else leak.kind, leak.reason)
                continue
            for plane in uses.get(leak.parameter, ()):
                self.note(units_in(plane), leak.kind, leak.reason)
        for (name, role), plane in planes.items():
            if role != "statistic" and (reason := _not_trained(name, parameters[name])):
                self.note(units_in(plane), "mix", reason)


def _not_trained(name: str, parameter: Tensor) -> str | None:
    if parameter.is_floating_point() or parameter.is_complex():
        return None if parameter.requires_grad else f"{name} does not require grad"
    kind = str(parameter.dtype).removeprefix("torch.")
    return f"{name} is of type {kind}, as quantised weights are, and numbers drawn anew would not fit"


def status(
    found: tuple[tuple[str, str], ...], roles: Collection[Role], returned: bool
) -> tuple[Status, tuple[str, ...]]:
    """Status of a unit, with the reasons.

    Args:
        found: its reasons, each with its kind.
        roles: one for each parameter (or buffer) that has elements of it.
        returned: whether the network's output is of this unit.
    """
    reasons = tuple(reason for reason, _ in found)
    kinds = {kind for _, kind in found}
    read = "outgoing" in roles
    if returned:
        return "output", ("the network returns it",)
    if not read and "end" in kinds:
        return "output", ("the network returns what is made of it, and nothing else reads it", *reasons)
    if kinds - {"norm"}:
        return "blocked", reasons
    if not read:
        return "unused", reasons or ("nothing reads it",)
    if kinds:
        return "coupled", reasons
    return ("free" if sum(role == "incoming" for role in roles) == 1 else "shared"), ()
