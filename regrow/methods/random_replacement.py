"""The control for every unit method: as many replacements, at the same moments, of units drawn by lot."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Generator, Tensor

from regrow.methods.unit_method import QuotaMethod, Readings
from regrow.units import host


@dataclass(frozen=True)
class RandomReplacement(QuotaMethod, name="random-replacement"):
    """Replaces eligible units at random, at the rate and maturity of continual backpropagation.

    What a utility is worth is the distance between this and a method that uses it.
    """

    reference: ClassVar[str] = "control; Dohare et al., Nature 2024"
    cost: ClassVar[str] = "next to nothing"
    off: ClassVar[Mapping[str, Any]] = {"replacement_rate": 0.0}
    brisk: ClassVar[Mapping[str, Any]] = {"replacement_rate": 0.02, "maturity_threshold": 4}

    def initial_state(self, taps: int, size: int) -> dict[str, Tensor]:
        """Nothing is remembered."""
        return {}

    def observe(self, readings: Readings, state: dict[str, Tensor], age: Tensor) -> None:
        """Nothing is read."""

    def utility(self, readings: Readings, state: dict[str, Tensor], age: Tensor, generator: Generator) -> Tensor:
        """A uniform draw per unit, on the host."""
        return host.rand(readings.size, generator=generator).to(age.device, non_blocking=True)
