"""ReGraMa: re-draws units whose incoming weights get little gradient."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from regrow.methods.unit_method import Readings, Statistic, ThresholdMethod, relative
from regrow.units import host


@dataclass(frozen=True)
class ReGraMa(ThresholdMethod, name="regrama"):
    r"""Re-draws units whose incoming weights get little gradient, every `period` steps.

    As `ReDo`, with the gradient in the place of the activation: $s_i =
    \overline{|\nabla_{w_{in,i}}L|}\,/\,\frac1n\sum_j\overline{|\nabla_{w_{in,j}}L|}$ of the gradient of that step,
    biases left out; units with $s_i \le \tau$ are re-drawn. Rule as in the authors' code; that the paper agrees is
    second-hand, and so are the defaults.

    Args:
        threshold: τ ≥ 0. Published .01, every 1000 updates.
        largest_share: at most this share of a group at one look, lowest first. Published: 1, no limit.
    """

    reference: ClassVar[str] = "Liu et al., NeurIPS 2025"
    cost: ClassVar[str] = "nothing between acts; then each gradient, once"
    off: ClassVar[Mapping[str, Any]] = {"largest_share": 0.0}
    brisk: ClassVar[Mapping[str, Any]] = {"period": 4, "threshold": 0.5, "largest_share": 0.2}

    threshold: float = 0.01

    @property
    def needs(self) -> Statistic:
        """Mean |∂L/∂w_in|."""
        return "incoming_gradient"

    def initial_state(self, taps: int, size: int) -> dict[str, Tensor]:
        """The last reading; a unit that has had none counts as fully alive."""
        return {"gradient": host.zeros(size), "read": host.zeros(size)}

    def observe(self, readings: Readings, state: dict[str, Tensor], age: Tensor) -> None:
        """The gradient of this step."""
        gradient = readings.incoming_gradient()
        readings.distrust(~gradient.isfinite())
        state["gradient"].copy_(gradient)
        state["read"].fill_(1.0)

    def score(self, state: dict[str, Tensor]) -> Tensor:
        """The gradient of each unit over the mean of its group; infinite in one that no backward pass has reached."""
        score = relative(state["gradient"], torch.finfo(torch.float32).tiny)
        return torch.where(state["read"] > 0, score, float("inf"))
