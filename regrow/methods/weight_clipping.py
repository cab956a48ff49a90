"""Weight clipping: no weight leaves the range that it could have started in."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from regrow.methods.method import check_amount
from regrow.methods.weight_method import Moment, WeightMethod


@dataclass(frozen=True)
class WeightClipping(WeightMethod, name="weight-clipping"):
    r"""Clips weights and biases to the range in which they could have started.

    After each step $w \leftarrow \mathrm{clamp}(w, -\kappa b, \kappa b)$ with $b = 1/\sqrt{\text{fan-in}}$.

    b is the bound of torch's uniform initial law for linear layers and convolutions, whatever law the layer really
    began with: one that starts wider is cut at the first step, if κ is not larger. Biases have the bound of their
    layer. Gains, tables and what has no layer are left alone.

    Args:
        bound: κ > 0. Published 1 (README of the authors' code); searched from 1 to 5. 0 turns it off.
        skip_output: leave the output layer as it is, an option of the paper.
    """

    reference: ClassVar[str] = "Elsayed et al., RLC 2024"
    cost: ClassVar[str] = "each weight, once"
    off: ClassVar[Mapping[str, Any]] = {"bound": 0.0}
    brisk: ClassVar[Mapping[str, Any]] = {"bound": 0.5}
    needs_units: ClassVar[bool] = True
    takes_whole: ClassVar[bool] = True

    bound: float = 1.0
    skip_output: bool = False

    def __post_init__(self) -> None:
        """Check the settings once, at the boundary."""
        check_amount(self, "bound")

    def after_step(self, moment: Moment) -> None:
        """Clip."""
        for weight in moment.weights if self.bound else ():
            if weight.role in ("matrix", "bias") and weight.fan_in and not (self.skip_output and weight.layer == 0):
                bound = self.bound / math.sqrt(weight.fan_in)
                weight.parameter.clamp_(-bound, bound)
