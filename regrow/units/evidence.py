"""What the forward tells about units: claims on parameters, and leaks."""

from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from regrow.units.graph import Role
from regrow.units.labels import Units
from regrow.units.memory import Geometry
from regrow.units.sightings import Sighting

Value = tuple[int, int]  # numbers of the forward pass and, within it, of the value


@dataclass(frozen=True, eq=False)
class Claim:
    """One operator used a parameter (or buffer) in one role.

    Attributes:
        name: of the parameter.
        role: what its elements are to the units in the plane.
        place: which view of the parameter the plane lies on; or, for a copy, the number of each element (from the
            parameter's first; anything outside of it is not of this parameter).
        plane: the unit of each element.
        fresh: value to which the elements return when the unit is re-drawn.
        value: the value that met the weights, for an outgoing claim.
        operands: the values that met the weights, for an incoming claim.
        result: the value that came out, for an incoming claim.
        sightings: where modules saw that value, best first.
        near: where they saw nearly that value.
    """

    name: str
    role: Role
    place: Geometry | Tensor
    plane: Tensor
    fresh: float | None = None
    value: Value | None = None
    operands: frozenset[Value] = frozenset()
    result: Value | None = None
    sightings: tuple[Sighting, ...] = ()
    near: tuple[Sighting, ...] = ()


LeakKind = Literal["norm", "mix", "product", "operator", "value", "state"]


@dataclass(frozen=True, eq=False)
class Leak:
    """Units, or a parameter, had an effect on a value that carries no label of theirs.

    Attributes:
        kind: a statistic over units; several units made into one value, or summed with weights that are no
            parameter; an operator without a rule; a parameter used in no known role; a value kept between forwards.
        reason: the same as a sentence.
        units: their numbers, ascending; empty if it is a parameter's.
        parameter: the parameter's name, or None.
    """

    kind: LeakKind
    reason: str
    units: Tensor
    parameter: str | None = None


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
    _numbers: dict[tuple[str, str | None], list[int]] = field(default_factory=dict)

    def note(self, leak: Leak) -> int:
        """Add a leak and return its number; one that is known already keeps its own."""
        alike = self._numbers.setdefault((leak.reason, leak.parameter), [])
        for number in alike:
            if torch.equal(self.leaks[number].units, leak.units):
                return number
        alike.append(len(self.leaks))
        self.leaks.append(leak)
        return alike[-1]
