"""Self-normalized resets: a unit is re-drawn when it has been silent for longer than is usual for it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Generator, Tensor

from regrow.errors import ConfigError
from regrow.methods.method import check_choice, check_count, check_share
from regrow.methods.unit_method import Choice, OverRanks, PeriodicMethod, Readings, Statistic
from regrow.units import host


@dataclass(frozen=True)
class SelfNormalizedReset(PeriodicMethod, name="snr"):
    r"""Re-draws units that have been silent for longer than is usual for them.

    Unit i is re-drawn when $P(A_i \ge a_i) \le \eta$, where $a_i$ is the number of examples since it last fired. It
    fires if it is positive anywhere in the batch (and map). The law of its gaps $A_i$ is estimated from its own
    history: every `update_period` steps its threshold becomes the $(1-\eta)$ percentile of the gaps since the last
    update if that is smaller than the present one, else twice the present one, at least one batch and at most
    `largest_gap`. Rule as in the authors' code (ajozefiak/SelfNormalizedResets); η and `largest_gap` second-hand.

    Here: gaps are counted in steps of `resolution` examples, rounded up; a unit with no gap on record, because it
    always fires, keeps its threshold (in the code it gets the lowest, so that one silent batch resets it); the batch is
    the one at hand (in the code 100); units are looked at every `period` steps, since a look needs the data; a unit
    that is re-drawn starts with the largest threshold and no history (in the code it keeps both, and the silence that
    ended so counts as a gap).

    Activations need a batch as their first dimension, since that is where examples are counted. The batches of all
    ranks of a data-parallel run count as one.

    Args:
        rejection_share: η in [0, 1]. Published .08.
        largest_gap: τ_max in examples, with which every unit starts. Published 20,000.
        update_period: steps between two updates of the thresholds. Published: 16 tasks.
        resolution: examples per bin of the history.
        reset_when: "longer" (default) asks for a silence longer than the threshold, which is what P(A ≥ a) ≤ η means;
            "as_long" for one as long as it, as the authors' code does: there a unit whose gaps are all alike is
            re-drawn at each of them.
    """

    reference: ClassVar[str] = "Farias & Jozefiak, ICLR 2025"
    cost: ClassVar[str] = "each activation, once"
    off: ClassVar[Mapping[str, Any]] = {"rejection_share": 0.0}
    brisk: ClassVar[Mapping[str, Any]] = {"period": 3, "largest_gap": 2, "update_period": 6, "resolution": 1}
    over_ranks: ClassVar[dict[str, OverRanks]] = {
        "fired": "max",
        "examples": "sum",
        **dict.fromkeys(("silent", "since", "threshold", "batch", "gaps"), "same"),
    }

    period: int = 16
    rejection_share: float = 0.08
    largest_gap: int = 20_000
    update_period: int = 1000
    resolution: int = 16
    reset_when: Literal["longer", "as_long"] = "longer"

    def __post_init__(self) -> None:
        """Check the settings once, at the boundary."""
        super().__post_init__()
        check_share(self, "rejection_share")
        for setting in ("largest_gap", "update_period", "resolution"):
            check_count(self, setting, least=1)
        check_choice(self, "reset_when", ("longer", "as_long"))
        if self.resolution > self.largest_gap:
            raise ConfigError(
                f"SelfNormalizedReset.resolution must be at most largest_gap, {self.largest_gap}, but is "
                f"{self.resolution}."
            )

    @property
    def needs(self) -> Statistic:
        """Whether units fired."""
        return "fired"

    def initial_state(self, taps: int, size: int) -> dict[str, Tensor]:
        """At the last look: examples since a unit fired, steps since its threshold was set, the threshold (0 for the
        largest), examples in a batch, and how often it was silent for how long. For each step since: whether it fired,
        and the examples.
        """
        bins = -(-self.largest_gap // self.resolution) + 1
        names = ("silent", "since", "threshold", "batch")
        state = {**{name: host.zeros(size) for name in names}, "gaps": host.zeros(bins, size)}
        return state | {name: host.zeros(self.period, size) for name in ("fired", "examples")}

    def observe(self, readings: Readings, state: dict[str, Tensor], age: Tensor) -> None:
        """Note who fired. It is counted at the next look: a unit that is silent here may fire on another rank."""
        row = (readings.step - 1) % self.period
        state["fired"][row] = readings.fired()
        state["examples"][row] = readings.examples()

    def choose(
        self, readings: Readings, state: dict[str, Tensor], age: Tensor, due: int, generator: Generator
    ) -> Choice:
        """Those that have been silent for longer than their threshold."""
        self._count(state)
        for name in ("fired", "examples"):
            state[name].zero_()
        self._update(state)
        if not self.rejection_share:
            return Choice(host.empty(0, dtype=torch.int64))
        silent, threshold = state["silent"], self.threshold(state)
        return Choice((silent > threshold if self.reset_when == "longer" else silent >= threshold).nonzero().flatten())

    def threshold(self, state: dict[str, Tensor]) -> Tensor:
        """The threshold of each unit, in examples."""
        return torch.where(state["threshold"] > 0, state["threshold"], float(self.largest_gap))

    def utility_now(self, readings: Readings, state: dict[str, Tensor], age: Tensor) -> Tensor:
        """What is left of a unit's threshold, as a share of it."""
        present = {name: value.clone() for name, value in state.items()}
        self._count(present)
        return 1 - present["silent"] / self.threshold(present)

    def _count(self, state: dict[str, Tensor]) -> None:
        """Count silence over the steps since the last look, and note how long it lasted where it ends."""
        silent, gaps, batch = state["silent"], state["gaps"], state["batch"]
        for fired, examples in zip(state["fired"] > 0, state["examples"], strict=True):
            # On a grid, so that nothing has to be fetched from the device.
            place = (silent / self.resolution).ceil().clamp(max=len(gaps) - 1).long()
            gaps.scatter_add_(0, place[None], (fired & (silent > 0)).float()[None])
            silent.add_(examples).masked_fill_(fired, 0.0)
            read = examples > 0
            state["since"].add_(read)
            batch.copy_(torch.where(read, examples, batch))

    def _update(self, state: dict[str, Tensor]) -> None:
        present, gaps = self.threshold(state), state["gaps"]
        due = state["since"] >= self.update_period
        if not bool(due.any()):
            state["threshold"].copy_(present)
            return
        count = gaps.sum(dim=0)
        reached = gaps.cumsum(dim=0) >= (1 - self.rejection_share) * count
        percentile = reached.float().argmax(dim=0) * float(self.resolution)
        new = torch.where(percentile < present, percentile, 2 * present)
        new = torch.maximum(new, state["batch"]).clamp(max=float(self.largest_gap))
        state["threshold"].copy_(torch.where(due & (count > 0), new, present))
        gaps.masked_fill_(due, 0.0)
        state["since"].masked_fill_(due, 0.0)
