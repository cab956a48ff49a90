"""What a stream yields."""

from dataclasses import dataclass
from typing import final

from torch import Tensor


@final
@dataclass(frozen=True, eq=False)
class Task:
    """One stretch of a stream under one law: examples in the order in which they are to be learned.

    Attributes:
        index: which task of the stream, from 0.
        inputs: float32 [n, ...], one row an example.
        labels: what to predict: int64 classes [n], or float32 values [n, 1] in a regression.
    """

    index: int
    inputs: Tensor
    labels: Tensor

    def __len__(self) -> int:
        """Return the number of examples."""
        return len(self.labels)


@dataclass(frozen=True, eq=False)
class Examples:
    """Inputs and labels in a fixed order.

    Attributes:
        inputs: float32 [n, ...], one row an example.
        labels: int64 classes [n].
    """

    inputs: Tensor
    labels: Tensor

    def __len__(self) -> int:
        """Return the number of examples."""
        return len(self.labels)


@final
@dataclass(frozen=True, eq=False)
class SplitTask:
    """One stretch of a stream whose examples are learned several times, and that is judged on others.

    Attributes:
        index: which task of the stream, from 0.
        train: what is learned.
        test: what the learner is judged on.
        validation: what an epoch is chosen by; None if the problem has none.
        classes: how many outputs are in use: labels are below it.
        probe: what the network is measured on before the task, float32 [n, ...], in random order, so that the first of
            them are a fair sample.
    """

    index: int
    train: Examples
    test: Examples
    validation: Examples | None
    classes: int
    probe: Tensor
