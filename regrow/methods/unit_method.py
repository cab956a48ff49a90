"""Methods that replace units: what they read, when they act, which units they choose, how far those are re-drawn."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import ClassVar, Literal, Protocol

import torch
from torch import Generator, Tensor

from regrow.methods.method import Method, check_amount, check_choice, check_count, check_share
from regrow.methods.schedule import Budget, Periodic, Quota, Schedule

Moments = Literal["cleared", "kept"]
Statistic = Literal["mean_abs", "activations", "fired", "first_order", "incoming_gradient"]
OverRanks = Literal["mean", "sum", "max", "same"]
ACTIVATION = ("mean_abs", "activations", "fired")  # those that need a tap


class Readings(Protocol):
    """What a unit method can see of one group after an optimizer step: the statistic that it needs, and the weights.
    All tensors are float32 of shape (units,) unless said, on the device of the group's parameters.
    """

    size: int

    @property
    def step(self) -> int:
        """Number of the optimizer step for the group, from 1; see `Schedule`."""

    def mean_abs(self) -> list[Tensor]:
        """Mean |h| of each unit at each tap, over all forwards that count since the last step."""

    def activations(self) -> list[Tensor]:
        """h itself at each tap, of shape (observations, units)."""

    def fired(self) -> Tensor:
        """Whether each unit was positive anywhere, at any tap, in any forward that counts since the last step; bool."""

    def examples(self) -> int | Tensor:
        """Number of examples in these forwards: the length of the first dimension of what the taps saw. A tensor of no
        dimensions where it was counted by compiled code.
        """

    def first_order(self) -> Tensor:
        """Σ w_out·∂L/∂w_out of each unit, as it was just before the step. It equals Σ h·∂L/∂h over the batch: by how
        much the loss would fall, to first order, if the unit grew silent.
        """

    def incoming_gradient(self) -> Tensor:
        """Mean |∂L/∂w_in| over each unit's incoming weights, as it was just before the step."""

    def outgoing(self) -> list[Tensor]:
        """Σ|w_out| of each unit, apart for each tap: as they are now, after the step."""

    def incoming(self) -> Tensor:
        """Σ|w_in| of each unit, without biases: as they are now, after the step."""

    def distrust(self, units: Tensor) -> None:
        """Note, by a mask of shape (units,), those with a reading that is not finite. The user is warned once."""


@dataclass(frozen=True, eq=False)
class Choice:
    """Units to be re-drawn.

    Attributes:
        units: their indices, int64 of shape (n,).
        share: how far each goes towards a new unit, of shape (n,) in [0, 1]; None for all the way. A unit that goes
            part of the way keeps its age and state, and what the optimizer remembers of it.
    """

    units: Tensor
    share: Tensor | None = None


def relative(reading: Tensor, least: float) -> Tensor:
    """Each reading over the mean of those that are finite, to which `least` is added so that it is never 0."""
    finite = reading.isfinite()
    mean = torch.where(finite, reading, 0.0).sum() / finite.sum().clamp(min=1)
    return reading / (mean + least)


@dataclass(frozen=True)
class UnitMethod(Method, ABC):
    """Replaces units. Use `QuotaMethod` or `PeriodicMethod`.

    Attributes:
        reads_every_step: it observes every step, and not only those at which something is due.
        over_ranks: how each entry of its state is combined over the ranks of a data-parallel run when something is
            due: "mean" unless named here; "same" for what is alike on all. Only if it reads activations: weights and
            gradients are alike.
    """

    reads_every_step: ClassVar[bool] = True
    over_ranks: ClassVar[dict[str, OverRanks]] = {}

    @property
    def needs(self) -> Statistic | None:
        """Which of the `Readings` it asks for; None if it needs none but the weights."""
        return None

    @property
    def reads_activations(self) -> bool:
        """Whether it needs a tap."""
        return self.needs in ACTIVATION

    @property
    def keeps_moments(self) -> bool:
        """Whether what the optimizer remembers of a unit's weights stays when they are re-drawn."""
        return False

    def without_taps(self) -> "UnitMethod | None":
        """The method that serves in its place where no module sees the activation of a group, by gradients for example.
        None if there is none: such groups are not served then.
        """
        return None if self.reads_activations else self

    @abstractmethod
    def schedule(self, size: int) -> Schedule:
        """When something is due in a group of `size` units."""

    @abstractmethod
    def initial_state(self, taps: int, size: int) -> dict[str, Tensor]:
        """State of a fresh group whose activation can be read at `taps` places. The last dimension of every
        tensor is the unit; where a unit is replaced, its entries return to 0.
        """

    @abstractmethod
    def observe(self, readings: Readings, state: dict[str, Tensor], age: Tensor) -> None:
        """Take in one optimizer step, in place.

        Called only when there is something new to read. `age` is the number of steps since each unit was drawn,
        this one included.
        """

    @abstractmethod
    def choose(
        self, readings: Readings, state: dict[str, Tensor], age: Tensor, due: int, generator: Generator
    ) -> Choice:
        """Which units to re-draw, when `due` of them are due by the schedule."""

    def utility_now(self, readings: Readings, state: dict[str, Tensor], age: Tensor) -> Tensor | None:
        """By what units are ranked at the moment, of shape (units,), to look at; None if there is no such thing."""
        return None


@dataclass(frozen=True)
class QuotaMethod(UnitMethod):
    """Replaces a fixed share of the eligible units: each step those with the lowest utility among them.

    Args:
        replacement_rate: ρ, share of the eligible units of a group to replace per optimizer step, in [0, 1].
        maturity_threshold: m, a unit is eligible once its age in optimizer steps is greater than this. Steps count
            alike whatever their size, but with `attach(..., time="step_sizes")`: where the step size falls to 0, new
            units come of age without having grown, and are replaced again.
        budget: "carried" keeps the fraction of a unit that is due for later steps (the article);
            "carried_of_all" does so too, but as soon as one unit of a group is eligible it is due a share of all its
            units, not of the eligible ones (the published code for convolutions);
            "bernoulli" draws the fraction at each step (the published PPO).
        moments: "cleared": the optimizer forgets what it remembers of the weights of a new unit; "kept": it does not,
            as in the published code for PPO.

    Raises:
        ConfigError: a rate outside [0, 1], a negative maturity, an unknown budget or another word for moments.
    """

    replacement_rate: float = 1e-4
    maturity_threshold: int = 100
    budget: Budget = "carried"
    moments: Moments = field(default="cleared", kw_only=True)

    @property
    def keeps_moments(self) -> bool:
        """See `UnitMethod`."""
        return self.moments == "kept"

    def __post_init__(self) -> None:
        """Check the settings once, at the boundary."""
        check_share(self, "replacement_rate")
        check_count(self, "maturity_threshold")
        check_choice(self, "budget", ("carried", "carried_of_all", "bernoulli"))
        check_choice(self, "moments", ("cleared", "kept"))

    def schedule(self, size: int) -> Quota:
        """Known without the data: see `Quota`."""
        return Quota(size, self.replacement_rate, self.maturity_threshold, self.budget)

    @abstractmethod
    def utility(self, readings: Readings, state: dict[str, Tensor], age: Tensor, generator: Generator) -> Tensor:
        """How useful each unit is, of shape (units,): the lowest are replaced first. Called when some are due."""

    def choose(
        self, readings: Readings, state: dict[str, Tensor], age: Tensor, due: int, generator: Generator
    ) -> Choice:
        """The lowest of those that are eligible."""
        utility = self.utility(readings, state, age, generator)
        finite = utility.isfinite()
        readings.distrust(~finite)
        eligible = (age > self.maturity_threshold).nonzero().flatten()
        # A utility that is not finite is no reason to replace a unit: such units come last.
        ranked = torch.where(finite, utility, float("inf"))[eligible].argsort(stable=True)
        return Choice(eligible[ranked[:due]])

    def utility_now(self, readings: Readings, state: dict[str, Tensor], age: Tensor) -> Tensor | None:
        """The utility, 0 for units drawn in this step; None if nothing is remembered to rank by."""
        if not state:
            return None
        return torch.where(age > 0, self.utility(readings, state, age.clamp(min=1), Generator()), 0.0)


@dataclass(frozen=True)
class PeriodicMethod(UnitMethod):
    """Looks at all units every `period` optimizer steps, and re-draws those that its rule finds.

    Args:
        period: optimizer steps between two looks. Longer than a task, it makes waves in curves over tasks.

    Raises:
        ConfigError: a period below 1.
    """

    period: int = 1000

    def __post_init__(self) -> None:
        """Check the settings once, at the boundary."""
        check_count(self, "period", least=1)

    def schedule(self, size: int) -> Periodic:
        """All units, every `period` steps."""
        return Periodic(size, self.period)


@dataclass(frozen=True)
class ThresholdMethod(PeriodicMethod):
    """Re-draws the units that it finds with a score of at most a threshold.

    Args:
        threshold: τ ≥ 0.
        largest_share: at most this share of a group at one look, lowest first, in [0, 1].
        moments: "cleared": the optimizer forgets what it remembers of the weights of a new unit; "kept": it does not.

    Raises:
        ConfigError: a threshold below 0, a share outside [0, 1] or another word for moments.
    """

    reads_every_step: ClassVar[bool] = False

    threshold: float = 0.0
    largest_share: float = 1.0
    moments: Moments = field(default="cleared", kw_only=True)

    @property
    def keeps_moments(self) -> bool:
        """See `UnitMethod`."""
        return self.moments == "kept"

    def __post_init__(self) -> None:
        """Check the settings once, at the boundary."""
        super().__post_init__()
        check_amount(self, "threshold")
        check_share(self, "largest_share")
        check_choice(self, "moments", ("cleared", "kept"))

    @abstractmethod
    def score(self, state: dict[str, Tensor]) -> Tensor:
        """How alive each unit was at the last look, of shape (units,); 1 for the mean of its group."""

    def choose(
        self, readings: Readings, state: dict[str, Tensor], age: Tensor, due: int, generator: Generator
    ) -> Choice:
        """Those with a score of at most τ, lowest first. One that is not finite is no reason to choose a unit."""
        score = self.score(state)
        order = score.argsort(stable=True)[: int(self.largest_share * len(score))]
        return Choice(order[(score[order] <= self.threshold) & score[order].isfinite()])

    def utility_now(self, readings: Readings, state: dict[str, Tensor], age: Tensor) -> Tensor:
        """The score."""
        return self.score(state)
