"""What can be put around a stream: changes that come gradually, and labels that are wrong.

Each is a stream again, with tasks that depend on seeds and their index alone, so that one can be put around another.
"""

from dataclasses import replace
from typing import Generic, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

from regrow.errors import ConfigError
from regrow.streams.seeds import generator, whole_number
from regrow.streams.task import Examples, SplitTask, Task

# Far from the numbers of the streams, which may have the same seed.
_GRADUAL, _NOISE, _MIXED = range(2000, 2003)


Kind = TypeVar("Kind", Task, SplitTask)
Given = TypeVar("Given", covariant=True)


class Stream(Protocol[Given]):
    """Tasks of one kind: of examples that are seen once, or with a training and a test part."""

    def task(self, index: int) -> Given:
        """Return task `index`, the same whenever it is asked for."""


class Gradual:
    """A stream of online tasks that pass into each other.

    Of the first `length` examples of a task, each comes from the task before with a probability that falls linearly
    from 1 to 0; it is then the example that this task had at the same place. The first task is as it was.

    Abrupt changes may be what costs plasticity; this is the sampling between tasks of Liu and Mou 2026
    (arXiv 2602.09234).

    Args:
        stream: tasks of one size.
        length: examples of the passage; 0 for none.
        seed: 0 or more.

    Raises:
        ConfigError: an argument is out of its range.
    """

    def __init__(self, stream: Stream[Task], length: int, seed: int = 0) -> None:
        self.stream = stream
        self.length = whole_number("length", length, least=0)
        self.seed = whole_number("seed", seed, least=0)

    def task(self, index: int) -> Task:
        """Return task `index`.

        Raises:
            ConfigError: `index` is negative or not whole, or the passage is longer than a task.
        """
        task = self.stream.task(index)
        if index == 0 or self.length == 0:
            return task
        before = self.stream.task(index - 1)
        shorter = min(len(task), len(before))
        if self.length > shorter:
            raise ConfigError(
                f"Gradual.length={self.length} is longer than a task of {shorter} examples: at most a whole task can "
                "be a passage."
            )
        probability = 1 - np.arange(self.length) / self.length
        old = torch.from_numpy(generator(self.seed, _GRADUAL, index).random(self.length) < probability)
        rows = torch.nonzero(old)[:, 0]
        inputs, labels = task.inputs.clone(), task.labels.clone()
        inputs[rows], labels[rows] = before.inputs[rows], before.labels[rows]
        return replace(task, inputs=inputs, labels=labels)


class GradualSplit:
    """A stream of tasks learned over epochs, with mixed tasks between them.

    Between two tasks come `between` more. In the i-th of these, a share i / (between + 1) of the training examples,
    drawn at random, has been changed for those of the task to come, place by place, and all else is of the task to
    come. Labels must mean the same in both, as in `ClassPairs`; for classes that are only ever added, as in
    `ClassIncremental`, it makes no sense.

    Args:
        stream: tasks with as many training examples each.
        between: mixed tasks between two; 0 for none.
        seed: 0 or more.

    Raises:
        ConfigError: an argument is out of its range.
    """

    def __init__(self, stream: Stream[SplitTask], between: int, seed: int = 0) -> None:
        self.stream = stream
        self.between = whole_number("between", between, least=0)
        self.seed = whole_number("seed", seed, least=0)

    def task(self, index: int) -> SplitTask:
        """Return task `index`, mixed ones counted.

        Raises:
            ConfigError: `index` is negative or not whole, or the tasks have different sizes or outputs.
        """
        index = whole_number("index", index, least=0)
        whole, part = divmod(index, self.between + 1)
        if part == 0:
            return replace(self.stream.task(whole), index=index)
        old, new = self.stream.task(whole), self.stream.task(whole + 1)
        if len(old.train) != len(new.train) or old.classes != new.classes:
            raise ConfigError(
                f"Tasks {whole} and {whole + 1} have {len(old.train)} and {len(new.train)} training examples of "
                f"{old.classes} and {new.classes} classes: only tasks of one size can be mixed."
            )
        # One order for the whole passage, so that an example that was changed stays so.
        order = generator(self.seed, _MIXED, whole).permutation(len(old.train))
        rows = torch.from_numpy(order[: round(len(order) * part / (self.between + 1))])
        inputs, labels = old.train.inputs.clone(), old.train.labels.clone()
        inputs[rows], labels[rows] = new.train.inputs[rows], new.train.labels[rows]
        return replace(new, index=index, train=Examples(inputs, labels))


class NoisyLabels(Generic[Kind]):
    """A stream in which a share of the labels to be learned is wrong.

    In each task, `share` of the examples, rounded to a whole number of them and drawn at random, have instead of their
    class another one, each as likely. Test and validation parts stay right.

    Args:
        stream: tasks with classes as labels.
        share: from 0 to 1.
        classes: how many there are; None if tasks say it (`SplitTask.classes`).
        seed: 0 or more.

    Raises:
        ConfigError: an argument is out of its range.
    """

    def __init__(self, stream: Stream[Kind], share: float, classes: int | None = None, seed: int = 0) -> None:
        if not 0 <= share <= 1:
            raise ConfigError(f"NoisyLabels.share={share!r} is not a share: it must lie between 0 and 1.")
        self.stream: Stream[Kind] = stream
        self.share = share
        self.classes = None if classes is None else whole_number("classes", classes, least=2)
        self.seed = whole_number("seed", seed, least=0)

    def task(self, index: int) -> Kind:
        """Return task `index`, of the kind that the stream has.

        Raises:
            ConfigError: `index` is negative or not whole, labels are no classes, or nothing says how many there are.
        """
        task = self.stream.task(index)
        if isinstance(task, SplitTask):
            labels = self._wrong(task.train.labels, self.classes or task.classes, index)
            return replace(task, train=replace(task.train, labels=labels))
        if self.classes is None:
            raise ConfigError("NoisyLabels.classes is None, but online tasks do not say how many classes there are.")
        return replace(task, labels=self._wrong(task.labels, self.classes, index))

    def _wrong(self, labels: Tensor, classes: int, index: int) -> Tensor:
        if labels.dtype != torch.int64 or int(labels.max()) >= classes:
            raise ConfigError(
                f"The labels of task {index} are {labels.dtype} up to {labels.max().item()}: they must be classes "
                f"below {classes}."
            )
        random = generator(self.seed, _NOISE, index)
        rows = torch.from_numpy(random.permutation(len(labels))[: round(self.share * len(labels))])
        steps = torch.from_numpy(random.integers(1, classes, size=len(rows))) if classes > 1 else 0
        changed = labels.clone()
        changed[rows] = (changed[rows] + steps) % classes
        return changed
