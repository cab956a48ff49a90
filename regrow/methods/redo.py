"""ReDo: recycles dormant units."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from regrow.methods.unit_method import Readings, Statistic, ThresholdMethod, relative
from regrow.units import host


@dataclass(frozen=True)
class ReDo(ThresholdMethod, name="redo"):
    r"""Re-draws units that are nearly silent, every `period` steps.

    $s_i = \overline{|h_i|}\,/\,(\frac1n\sum_j\overline{|h_j|} + 10^{-9})$ over the batch of that step (a channel: over
    its places too); units with $s_i \le \tau$ are re-drawn, with outgoing weights 0 and the optimizer's state of
    both sides cleared, as in the authors' code (google/dopamine, labs/redo). There the statistics come from a batch of
    256 of their own, and new weights from one law for all layers; here from the training batch, which takes no forward
    more, and each layer's own law, so that a new unit is like those that the layer began with.

    The `period` of 1000 steps is that of the paper (unverified); the code's default is 200,000, which many a run never
    reaches.

    Args:
        threshold: τ ≥ 0. Published .1; .025 for the default replay ratio (second-hand); the code's default is 0.
        largest_share: at most this share of a group at one look, lowest first: one large score lifts the mean, and
            almost a whole layer can fall under the threshold. Published: 1, no limit.
    """

    reference: ClassVar[str] = "Sokar et al., ICML 2023"
    cost: ClassVar[str] = "nothing between acts; then each activation, once"
    off: ClassVar[Mapping[str, Any]] = {"largest_share": 0.0}
    brisk: ClassVar[Mapping[str, Any]] = {"period": 4, "threshold": 0.5, "largest_share": 0.2}

    threshold: float = 0.1

    @property
    def needs(self) -> Statistic:
        """Mean |h|."""
        return "mean_abs"

    def initial_state(self, taps: int, size: int) -> dict[str, Tensor]:
        """The last reading."""
        return {"activity": host.zeros(size)}

    def observe(self, readings: Readings, state: dict[str, Tensor], age: Tensor) -> None:
        """Mean |h|, over taps if there are several."""
        activity = torch.stack(readings.mean_abs()).mean(dim=0)
        readings.distrust(~activity.isfinite())
        state["activity"].copy_(activity)

    def score(self, state: dict[str, Tensor]) -> Tensor:
        """The activity of each unit over the mean of its group; one that is not finite spoils its own score only."""
        return relative(state["activity"], 1e-9)
