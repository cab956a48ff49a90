"""ReDo: recycles dormant units."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Generator, Tensor

from regrow.methods.method import check_amount, check_share
from regrow.methods.unit_method import Choice, PeriodicMethod, Readings, Statistic, lowest, relative


@dataclass(frozen=True)
class ReDo(PeriodicMethod, name="redo"):
    r"""Re-draws units that are nearly silent, every `period` steps.

    $s_i = \overline{|h_i|}\,/\,(\frac1n\sum_j\overline{|h_j|} + 10^{-9})$ over the batch of that step (a channel: over
    its places too); units with $s_i \le \tau$ are re-drawn, with outgoing weights 0 and the optimizer's state of
    both sides cleared, as in the authors' code (google/dopamine, labs/redo). There the statistics come from a batch of
    256 of their own, and new weights from one law for all layers; here from the training batch, and each layer's own
    law.

    The `period` of 1000 steps is that of the paper (unverified); the code's default is 200,000.

    Args:
        threshold: τ ≥ 0. Published .1; .025 for the default replay ratio (second-hand); the code's default is 0.
        largest_share: at most this share of a group at one look, lowest first: one large score lifts the mean, and
            almost a whole layer can fall under the threshold. Published: 1, no limit.
    """

    reference: ClassVar[str] = "Sokar et al., ICML 2023"
    reads_every_step: ClassVar[bool] = False

    threshold: float = 0.1
    largest_share: float = 1.0

    def __post_init__(self) -> None:
        """Check the settings once, at the boundary."""
        super().__post_init__()
        check_amount(self, "threshold")
        check_share(self, "largest_share")

    @property
    def needs(self) -> Statistic:
        """Mean |h|."""
        return "mean_abs"

    def initial_state(self, taps: int, size: int) -> dict[str, Tensor]:
        """The last reading."""
        return {"activity": torch.zeros(size)}

    def observe(self, readings: Readings, state: dict[str, Tensor], age: Tensor) -> None:
        """Mean |h|, over taps if there are several."""
        activity = torch.stack(readings.mean_abs()).mean(dim=0)
        readings.distrust(~activity.isfinite())
        state["activity"].copy_(activity)

    def choose(
        self, readings: Readings, state: dict[str, Tensor], age: Tensor, due: int, generator: Generator
    ) -> Choice:
        """Those with a score of at most τ."""
        return Choice(lowest(self.score(state["activity"]), self.threshold, self.largest_share))

    def score(self, activity: Tensor) -> Tensor:
        """The activity of each unit over the mean of its group; one that is not finite spoils its own score only."""
        return relative(activity, 1e-9)

    def utility_now(self, readings: Readings, state: dict[str, Tensor], age: Tensor) -> Tensor:
        """The score at the last look."""
        return self.score(state["activity"])
