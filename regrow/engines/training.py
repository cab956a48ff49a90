"""How a stream becomes steps: loss, mini-batches and optimizer; and what is told of how well it went."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from regrow.errors import ConfigError, nearest

Loss = Literal["cross_entropy", "squared_error"]
OptimizerName = Literal["sgd", "adam"]


@dataclass(frozen=True)
class Outcome:
    """What a task is judged by.

    Attributes:
        measure: its column in the curves.
        name: what a reader calls it.
        unit: behind a number, with its blank; "" if it has none.
        heading: what numbers are counted in, above a column of them.
        change_heading: what differences are counted in.
        factor: from the column to what is shown.
        digits: decimals that are shown.
        higher_is_better: the direction.
        margin: a smaller change, in the column's own unit, is not called a loss, however sure it is.
    """

    measure: str
    name: str
    unit: str
    heading: str
    change_heading: str
    factor: float
    digits: int
    higher_is_better: bool
    margin: float

    def number(self, value: float, sign: str = "") -> str:
        """A value of the column as it is shown below a heading; sign="+" for a difference."""
        return f"{self.factor * value:{sign}.{self.digits}f}".replace("-", "−")

    def gain(self, change: Any) -> Any:
        """A change of the measure, turned so that more is better: a number or an array."""
        return change if self.higher_is_better else -change

    def text(self, value: float) -> str:
        """A value of the column as it is shown by itself."""
        return self.number(value) + self.unit


OUTCOMES: dict[Loss, Outcome] = {
    "cross_entropy": Outcome("accuracy", "online accuracy", " %", "%", "points", 100, 1, True, 0.01),
    "squared_error": Outcome("squared_error", "squared error", "", "squared error", "squared error", 1, 2, False, 0.02),
}

TEST_ACCURACY = Outcome("test_accuracy", "test accuracy", " %", "%", "points", 100, 1, True, 0.01)
"""Of a classifier that learns its tasks in epochs."""

RETURN = Outcome("return", "return", "", "return", "return", 1, 0, True, 20)
"""Of an agent: the sum of the rewards of an episode, not discounted."""


def outcome_among(columns: Iterable[str]) -> Outcome:
    """The outcome that a run recorded; online accuracy if it recorded none."""
    there = set(columns)
    return next(
        (each for each in (TEST_ACCURACY, RETURN, *OUTCOMES.values()) if each.measure in there),
        OUTCOMES["cross_entropy"],
    )


@dataclass(frozen=True)
class Training:
    """What turns examples into steps, beside the step size.

    Attributes:
        loss: "cross_entropy" of int64 classes [n], or "squared_error" of float32 values [n, outputs], the mean over the
            batch and the outputs; its gradient is 2·(prediction - value).
        batch: examples of a step; the last batch of a task may be smaller.
        optimizer: "sgd", or "adam" with torch's defaults.
        momentum: SGD's, as torch has it; in [0, 1).
        weight_decay: times the parameter, added to its gradient by the optimizer.

    Raises:
        ConfigError: an unknown loss or optimizer, a batch below 1, or a momentum or weight decay out of its range.
    """

    loss: Loss = "cross_entropy"
    batch: int = 1
    optimizer: OptimizerName = "sgd"
    momentum: float = 0.0
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        """Check the settings once, at the boundary."""
        for name, choices in (("loss", get_args(Loss)), ("optimizer", get_args(OptimizerName))):
            value = getattr(self, name)
            if value not in choices:
                raise ConfigError(f"Training.{name} cannot be {value!r}; {nearest(str(value), choices)}")
        if self.batch < 1:
            raise ConfigError(f"Training.batch must be a whole number of at least 1, but is {self.batch!r}.")
        if not 0 <= self.momentum < 1 or (self.momentum and self.optimizer != "sgd"):
            raise ConfigError(
                f"Training.momentum must lie in [0, 1), and be 0 unless the optimizer is sgd, but is {self.momentum!r} "
                f"with {self.optimizer}."
            )
        if not self.weight_decay >= 0:
            raise ConfigError(f"Training.weight_decay must be at least 0, but is {self.weight_decay!r}.")

    @classmethod
    def of(cls, problem: Mapping[str, Any]) -> "Training":
        """Read it from the numbers of a run; what is not among them has its default."""
        return cls(**{item.name: problem[item.name] for item in fields(cls) if item.name in problem})

    @property
    def outcome(self) -> Outcome:
        """What a task is judged by."""
        return OUTCOMES[self.loss]

    def make_optimizer(self, network: nn.Module, learning_rate: float) -> Optimizer:
        """The optimizer of all parameters of a network."""
        parameters, decay = network.parameters(), self.weight_decay
        if self.optimizer == "sgd":
            return torch.optim.SGD(parameters, lr=learning_rate, momentum=self.momentum, weight_decay=decay)
        # The loop over parameters would take longer than the rest of the step.
        return torch.optim.Adam(parameters, lr=learning_rate, weight_decay=decay, fused=True)

    def loss_of(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """The loss of a batch."""
        if self.loss == "cross_entropy":
            return nn.functional.cross_entropy(outputs, labels)
        return nn.functional.mse_loss(outputs, labels)

    def judge(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """How good each prediction of a batch is: bool [n], whether it is right, or float [n], its squared error."""
        if self.loss == "cross_entropy":
            return outputs.argmax(dim=1) == labels
        return (outputs - labels).square().mean(dim=1)
