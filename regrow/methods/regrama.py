"""ReGraMa: re-draws units whose incoming weights get little gradient."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Generator, Tensor

from regrow.methods.method import check_amount, check_share
from regrow.methods.unit_method import Choice, PeriodicMethod, Readings, Statistic, lowest, relative


@dataclass(frozen=True)
class ReGraMa(PeriodicMethod, name="regrama"):
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
    reads_every_step: ClassVar[bool] = False

    threshold: float = 0.01
    largest_share: float = 1.0

    def __post_init__(self) -> None:
        """Check the settings once, at the boundary."""
        super().__post_init__()
        check_amount(self, "threshold")
        check_share(self, "largest_share")

    @property
    def needs(self) -> Statistic:
        """Mean |∂L/∂w_in|."""
        return "incoming_gradient"

    def initial_state(self, taps: int, size: int) -> dict[str, Tensor]:
        """The last reading; a unit that has had none counts as fully alive."""
        return {"gradient": torch.zeros(size), "read": torch.zeros(size)}

    def observe(self, readings: Readings, state: dict[str, Tensor], age: Tensor) -> None:
        """The gradient of this step."""
        gradient = readings.incoming_gradient()
        readings.distrust(~gradient.isfinite())
        state["gradient"].copy_(gradient)
        state["read"].fill_(1.0)

    def choose(
        self, readings: Readings, state: dict[str, Tensor], age: Tensor, due: int, generator: Generator
    ) -> Choice:
        """Those with a score of at most τ; none in a group that no backward pass has reached."""
        score = torch.where(state["read"] > 0, self.score(state["gradient"]), float("inf"))
        return Choice(lowest(score, self.threshold, self.largest_share))

    def score(self, gradient: Tensor) -> Tensor:
        """The gradient of each unit over the mean of its group."""
        return relative(gradient, torch.finfo(gradient.dtype).tiny)

    def utility_now(self, readings: Readings, state: dict[str, Tensor], age: Tensor) -> Tensor:
        """The score at the last look."""
        return self.score(state["gradient"])
