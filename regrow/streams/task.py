"""What a stream yields."""

from dataclasses import dataclass

from torch import Tensor


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
