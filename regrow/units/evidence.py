"""What the forward tells about units: claims on parameters, and leaks."""

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from regrow.units.graph import Role
from regrow.units.memory import Geometry
from regrow.units.sightings import Sighting


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
        value: number of the forward pass and of the value that met the weights, for an outgoing claim.
        sightings: where modules saw that value, best first.
        near: where they saw nearly that value.
    """

    name: str
    role: Role
    place: Geometry | Tensor
    plane: Tensor
    fresh: float | None = None
    value: tuple[int, int] | None = None
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
