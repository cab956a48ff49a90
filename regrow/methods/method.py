"""What a method is: a frozen set of hyperparameters with a rule. Everything else is inherited.

`UnitMethod` scores and replaces units; `WeightMethod` edits gradients or weights. Hooks, state, devices,
checkpoints and surgery live once, in `regrow.attachment`; a new method writes its rule only. Defining a
subclass with `name=` registers it: there is no list to edit and no factory that knows methods.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Literal, Protocol

from torch import Generator, Tensor

from regrow.errors import ConfigError, nearest
from regrow.methods.schedule import Budget, Schedule

Statistic = Literal["mean_abs", "activations", "first_order"]


@dataclass(frozen=True)
class Method:
    """A way to keep a network plastic. Use one of the two bases below."""

    name: ClassVar[str] = ""
    registry: ClassVar[dict[str, type["Method"]]] = {}

    def __init_subclass__(cls, name: str = "", **keywords: Any) -> None:
        """Register a method under its command-line name; bases have none."""
        super().__init_subclass__(**keywords)
        if not name:
            return
        if name in Method.registry:
            raise ConfigError(f"Two methods are called {name!r}: {Method.registry[name].__name__} and {cls.__name__}.")
        cls.name = name
        Method.registry[name] = cls

    def settings(self) -> dict[str, Any]:
        """The hyperparameters, by field name."""
        return {item.name: getattr(self, item.name) for item in fields(self)}


def method_named(name: str, **settings: Any) -> Method:
    """Build a registered method from its name.

    Raises:
        ConfigError: no method has that name, or one of the settings is not a field of it.
    """
    if name not in Method.registry:
        raise ConfigError(f"There is no method {name!r}; {nearest(name, Method.registry)}")
    kind = Method.registry[name]
    known = [item.name for item in fields(kind)]
    for key in settings:
        if key not in known:
            raise ConfigError(f"{kind.__name__} has no setting {key!r}; {nearest(key, known)}")
    return kind(**settings)


class Readings(Protocol):
    """What a unit method can see of one group after an optimizer step. All tensors are float32 of shape (units,)
    unless said, on the device of the group's parameters.
    """

    size: int

    def mean_abs(self) -> list[Tensor]:
        """Mean |h| of each unit at each tap, over all forwards that count since the last step."""

    def activations(self) -> list[Tensor]:
        """h itself at each tap, of shape (observations, units)."""

    def first_order(self) -> Tensor:
        """Σ w_out·∂L/∂w_out of each unit, as it was just before the step. It equals Σ h·∂L/∂h over the batch: by how
        much the loss would fall, to first order, if the unit grew silent.
        """

    def outgoing(self) -> list[Tensor]:
        """Σ|w_out| of each unit, apart for each tap: as they are now, after the step."""

    def incoming(self) -> Tensor:
        """Σ|w_in| of each unit, without biases: as they are now, after the step."""


@dataclass(frozen=True)
class UnitMethod(Method, ABC):
    """Replaces units: each step the ones with the lowest utility among those that are due.

    Args:
        replacement_rate: ρ, share of the eligible units of a group to replace per optimizer step, in [0, 1].
        maturity_threshold: m, a unit is eligible once its age in optimizer steps is greater than this.
        budget: "carried" keeps the fraction of a unit that is due for later steps (the article);
            "bernoulli" draws it at each step (the published PPO).

    Raises:
        ConfigError: a rate outside [0, 1], a negative maturity or an unknown budget.
    """

    replacement_rate: float = 1e-4
    maturity_threshold: int = 100
    budget: Budget = "carried"

    @property
    def needs(self) -> Statistic | None:
        """Which of the `Readings` it asks for at every step; None if it needs none."""
        return None

    def without_taps(self) -> "UnitMethod | None":
        """The method that serves in its place where no module sees the activation of a group, by gradients for example.
        None if there is none: such groups are not served then.
        """
        return None if self.reads_activations else self

    @property
    def reads_activations(self) -> bool:
        """Whether it needs a tap."""
        return self.needs in ("mean_abs", "activations")

    def __post_init__(self) -> None:
        """Check the settings once, at the boundary."""
        check_share(self, "replacement_rate")
        check_count(self, "maturity_threshold")
        check_choice(self, "budget", ("carried", "bernoulli"))

    def schedule(self, size: int) -> Schedule:
        """The replacement schedule of a group of `size` units."""
        return Schedule(size, self.replacement_rate, self.maturity_threshold, self.budget)

    @abstractmethod
    def initial_state(self, taps: int, size: int) -> dict[str, Tensor]:
        """State of a fresh group whose activation can be read at `taps` places. The last dimension of every
        tensor is the unit; where a unit is replaced, its entries return to 0.
        """

    @abstractmethod
    def observe(self, readings: Readings, state: dict[str, Tensor], age: Tensor) -> Tensor | None:
        """Take in one optimizer step, in place, and return which units had a reading that is not finite.

        Called only when there is something new to read. `age` is the number of steps since each unit was drawn,
        this one included.
        """

    @abstractmethod
    def utility(self, readings: Readings, state: dict[str, Tensor], age: Tensor, generator: Generator) -> Tensor:
        """How useful each unit is, of shape (units,): the lowest are replaced first. Called when some are due."""


@dataclass(frozen=True)
class Update:
    """One parameter that a weight method may edit, with the step size of its parameter group."""

    parameter: Tensor
    learning_rate: float


@dataclass(frozen=True)
class WeightMethod(Method):
    """Edits gradients before the optimizer's step, or weights before or after it. Override what applies."""

    @property
    def acts(self) -> bool:
        """Whether the method does anything at all."""
        kind = type(self)
        return kind.before_step is not WeightMethod.before_step or kind.after_step is not WeightMethod.after_step

    def before_step(self, updates: Sequence[Update], step: int, generator: Generator) -> None:
        """Edit gradients or weights in place, just before optimizer step number `step` (from 1)."""

    def after_step(self, updates: Sequence[Update], step: int, generator: Generator) -> None:
        """Edit weights in place, just after optimizer step number `step` (from 1)."""


def check_share(method: Method, setting: str) -> None:
    """Raise unless the setting is a number in [0, 1]."""
    value = getattr(method, setting)
    if not _is_number(value) or not 0 <= value <= 1:  # also refuses NaN
        raise ConfigError(f"{type(method).__name__}.{setting} is a share and must lie in [0, 1], but is {value!r}.")


def check_count(method: Method, setting: str, least: int = 0) -> None:
    """Raise unless the setting is a whole number of at least `least`."""
    value = getattr(method, setting)
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ConfigError(
            f"{type(method).__name__}.{setting} must be a whole number of at least {least}, but is {value!r}."
        )


def check_amount(method: Method, setting: str) -> None:
    """Raise unless the setting is a finite number of at least 0."""
    value = getattr(method, setting)
    if not _is_number(value) or not 0 <= value < float("inf"):
        raise ConfigError(f"{type(method).__name__}.{setting} must be a finite number ≥ 0, but is {value!r}.")


def _is_number(value: object) -> bool:
    """Whether it is a plain number, as the state that names the settings can hold it."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def check_choice(method: Method, setting: str, choices: tuple[str, ...]) -> None:
    """Raise unless the setting is one of the choices."""
    value = getattr(method, setting)
    if value not in choices:
        raise ConfigError(f"{type(method).__name__}.{setting} cannot be {value!r}; {nearest(str(value), choices)}")
