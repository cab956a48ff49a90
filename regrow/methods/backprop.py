"""Plain backpropagation: the baseline that every figure needs, on the same path as all methods."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from regrow.methods.weight_method import WeightMethod


@dataclass(frozen=True)
class Backprop(WeightMethod, name="backprop"):
    """Does nothing: training is bit for bit what it is without regrow."""

    reference: ClassVar[str] = "Rumelhart et al., Nature 1986"
    cost: ClassVar[str] = "nothing"
    off: ClassVar[Mapping[str, Any]] = {}
