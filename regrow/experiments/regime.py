"""How a task is gone through by a learner that sees it for epochs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

from regrow.errors import ConfigError, nearest
from regrow.streams.seeds import whole_number

Head = Literal["kept", "zeroed", "grown"]
Selection = Literal["last", "best_validation"]
Memory = Literal["kept", "cleared"]
Reported = Literal["last", "best"]
Augmentation = Literal["none", "train", "train_and_test"]

_CHOICES = {
    "head": Head,
    "selection": Selection,
    "memory": Memory,
    "reported": Reported,
    "augmentation": Augmentation,
}


@dataclass(frozen=True)
class Regime:
    """How a task is gone through.

    Attributes:
        epochs: passes over the training images, each in a new order.
        epochs_in_turn: if given, in the place of `epochs`: those of the first task, of the second and so on, over and
            over, for tasks of different size.
        schedule: pairs of an epoch and the factor on the step size from there on; 1 before the first.
        head: what becomes of the output layer when a task begins: it is "kept"; weights and biases are "zeroed"; or it
            is "grown": outputs that come into use are drawn as the whole layer was at first.
        selection: the network that the next task begins with: that of the "last" epoch, or of the one with the
            "best_validation" accuracy, where the first of several counts. What methods remember is always that of the
            last.
        memory: with "best_validation", what the optimizer remembers when the task ends: it is "kept", that of the last
            epoch, as in the published code for class-incremental CIFAR; or "cleared", since it belongs to a network
            that was given up.
        reported: the test accuracy after the "last" epoch, or the "best" of all epochs, as the article has it for
            class-incremental CIFAR.
        augmentation: of "train" images, or, as the published code for class-incremental CIFAR does, "train_and_test".

    Raises:
        ConfigError: a value out of its range.
    """

    epochs: int
    epochs_in_turn: Sequence[int] = ()
    schedule: Sequence[tuple[int, float]] = ()
    head: Head = "kept"
    selection: Selection = "last"
    reported: Reported = "last"
    augmentation: Augmentation = "none"
    memory: Memory = "kept"

    def __post_init__(self) -> None:
        """Check the settings once, at the boundary."""
        for count in (self.epochs, *self.epochs_in_turn):
            whole_number("Regime.epochs", count, least=1)
        for name, kind in _CHOICES.items():
            value = getattr(self, name)
            if value not in get_args(kind):
                raise ConfigError(f"Regime.{name} cannot be {value!r}; {nearest(str(value), get_args(kind))}")
        starts = [start for start, _ in self.schedule]
        if starts != sorted(set(starts)) or not all(start >= 0 and factor > 0 for start, factor in self.schedule):
            raise ConfigError(
                "Regime.schedule must be pairs of an epoch, in ascending order, and a factor above 0, but is "
                f"{self.schedule!r}."
            )

    @classmethod
    def of(cls, problem: Mapping[str, Any]) -> "Regime":
        """Read it from the numbers of a run; what is not among them has its default."""
        return cls(**{item.name: problem[item.name] for item in fields(cls) if item.name in problem})

    def epochs_of(self, task: int) -> int:
        """How many epochs a task has, counted from 0."""
        return self.epochs_in_turn[task % len(self.epochs_in_turn)] if self.epochs_in_turn else self.epochs

    def factor(self, epoch: int) -> float:
        """On the step size, in an epoch that is counted from 0."""
        return next((factor for start, factor in reversed(self.schedule) if epoch >= start), 1.0)
