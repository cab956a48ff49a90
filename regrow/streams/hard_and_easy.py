"""The 5+1 problem: hard tasks of several classes take turns with easy tasks of one."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from regrow.errors import ConfigError, DataError
from regrow.streams.class_incremental import CIFAR_MEAN, CIFAR_STD
from regrow.streams.images import Labelled, scaled
from regrow.streams.seeds import generator, whole_number
from regrow.streams.task import Examples, SplitTask


class HardAndEasy:
    """Tasks 0, 2, 4 and so on have some classes, tasks 1, 3, 5 have fewer; each class comes once, in a random order.

    A class has the label of its place in that order, and all outputs are in use from the start. What counts is how well
    the hard tasks are learned, those with an even index: a network may lose the ability while an easy one lasts.

    Source: Kumar, Marklund and Van Roy 2023 (arXiv 2308.11958), 5+1 CIFAR-100: 5 classes and 1 class, 500 images of
    each, 780 steps a task.

    Args:
        images: uint8 [n, height, width, colours], to be learned.
        labels: integers [n], the classes from 0.
        test_images: likewise, to be tested on.
        test_labels: their classes.
        hard: classes of a hard task.
        easy: classes of an easy task.
        seed: 0 or more.
        mean: of each colour, to be subtracted once pixels lie in [0, 1].
        std: of each colour, to be divided by then.
        white: the pixel value that becomes 1.0.

    Raises:
        ConfigError: an argument is out of its range.
        DataError: images and labels do not fit each other, or there are too few classes for one hard task.
    """

    def __init__(
        self,
        images: npt.NDArray[Any],
        labels: npt.NDArray[Any],
        test_images: npt.NDArray[Any],
        test_labels: npt.NDArray[Any],
        hard: int = 5,
        easy: int = 1,
        seed: int = 0,
        mean: Sequence[float] | None = CIFAR_MEAN,
        std: Sequence[float] | None = CIFAR_STD,
        white: int = 255,
    ) -> None:
        self.seed = whole_number("seed", seed, least=0)
        self.hard, self.easy = whole_number("hard", hard, least=1), whole_number("easy", easy, least=1)
        self._learned, self._tested = Labelled(images, labels), Labelled(test_images, test_labels)
        self._learned.require(1)
        self._tested.require(1, classes=len(self._learned.by_class))
        if self.hard > len(self._learned.by_class):
            raise DataError(f"There are {len(self._learned.by_class)} classes, fewer than hard={self.hard} of them.")
        self._scale = (whole_number("white", white, least=1), mean, std)
        self.order: npt.NDArray[np.int64] = generator(self.seed).permutation(len(self._learned.by_class))

    @property
    def tasks(self) -> int:
        """How many tasks there are."""
        rounds, rest = divmod(len(self.order), self.hard + self.easy)
        return 2 * rounds + (rest >= self.hard)

    def places(self, index: int) -> range:
        """Which places of the order task `index` has: its labels."""
        rounds, easy = divmod(index, 2)
        start = rounds * (self.hard + self.easy) + easy * self.hard
        return range(start, start + (self.easy if easy else self.hard))

    def task(self, index: int) -> SplitTask:
        """Return task `index`: images float32 [n, colours, height, width]. It is measured on its training images.

        Raises:
            ConfigError: `index` is negative, not whole, or beyond the last task.
        """
        index = whole_number("index", index, least=0)
        if index >= self.tasks:
            raise ConfigError(f"index={index} is beyond the last of {self.tasks} tasks.")
        train, test = (self._examples(source, self.places(index)) for source in (self._learned, self._tested))
        mixed = torch.from_numpy(generator(self.seed, 1, index + 1).permutation(len(train)))
        return SplitTask(index, train, test, None, len(self.order), probe=train.inputs[mixed])

    def _examples(self, source: Labelled, places: range) -> Examples:
        rows = [source.by_class[self.order[place]] for place in places]
        labels = np.repeat(np.array(places), [len(each) for each in rows])
        return Examples(scaled(source.images[np.concatenate(rows)], *self._scale), torch.from_numpy(labels))

    def __iter__(self) -> Iterator[SplitTask]:
        """Yield all tasks."""
        for index in range(self.tasks):
            yield self.task(index)
