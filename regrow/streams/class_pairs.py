"""Continual ImageNet: one binary task after another, each on two classes."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from regrow.streams.images import Labelled, scaled
from regrow.streams.seeds import generator, whole_number
from regrow.streams.task import Examples, SplitTask


class ClassPairs:
    """An endless stream of tasks that tell two classes apart.

    All classes are shuffled and taken in pairs, then shuffled anew, and so on, so that every class comes once in each
    round; of an odd number of classes, one is left out of each round. The first class of a pair has the label 0, the
    other 1. Of each class the first images are learned and the last are tested on. Task t depends on `seed` and t
    alone: `stream.task(t)` gives it, bit for bit, without the tasks before it.

    Source: Dohare et al., Nature 632, 2024, Fig. 1: 1,000 classes of ImageNet at 32×32, 600 training and 100 test
    images of each, 5,000 tasks.

    Args:
        images: uint8 [n, height, width, colours] or [n, height, width].
        labels: integers [n], the classes from 0.
        train: training images of each class.
        test: test images of each class.
        seed: 0 or more.
        test_images: what to test on, if not the last of the same images; with `test_labels`.
        test_labels: their classes.
        white: the value that becomes 1.0.
        mean: of each colour, to be subtracted once pixels lie in [0, 1] (`images.colour_statistics`).
        std: of each colour, to be divided by then.

    Raises:
        ConfigError: an argument is out of its range.
        DataError: images and labels do not fit each other, or a class has too few images.
    """

    def __init__(
        self,
        images: npt.NDArray[Any],
        labels: npt.NDArray[Any],
        train: int = 600,
        test: int = 100,
        seed: int = 0,
        test_images: npt.NDArray[Any] | None = None,
        test_labels: npt.NDArray[Any] | None = None,
        white: int = 255,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
    ) -> None:
        self.seed = whole_number("seed", seed, least=0)
        train, test = whole_number("train", train, least=1), whole_number("test", test, least=1)
        self._scale = (whole_number("white", white, least=1), mean, std)
        learned = Labelled(images, labels)
        if test_images is None or test_labels is None:
            learned.require(train + test)
            self._train = [rows[:train] for rows in learned.by_class]
            self._test = [rows[-test:] for rows in learned.by_class]
            self._images = self._test_images = learned.images
        else:
            tested = Labelled(test_images, test_labels)
            learned.require(train)
            tested.require(test, classes=len(learned.by_class))
            self._train = [rows[:train] for rows in learned.by_class]
            self._test = [rows[:test] for rows in tested.by_class]
            self._images, self._test_images = learned.images, tested.images

    @property
    def classes(self) -> int:
        """How many classes there are to make pairs of."""
        return len(self._train)

    def pair(self, index: int) -> tuple[int, int]:
        """The classes of task `index`: the one of label 0, the one of label 1."""
        in_round = self.classes // 2
        order = generator(self.seed, index // in_round).permutation(self.classes)
        first, second = order[2 * (index % in_round) :][:2]
        return int(first), int(second)

    def task(self, index: int) -> SplitTask:
        """Return task `index`: images float32 [n, colours, height, width], labels 0 and 1.

        It is measured on the test images.

        Raises:
            ConfigError: `index` is negative or not whole.
        """
        pair = self.pair(whole_number("index", index, least=0))
        train = self._examples(self._images, [self._train[one] for one in pair])
        test = self._examples(self._test_images, [self._test[one] for one in pair])
        mixed = torch.from_numpy(generator(self.seed, 0, index + 1).permutation(len(test)))
        return SplitTask(index, train, test, None, 2, probe=test.inputs[mixed])

    def _examples(self, images: npt.NDArray[Any], rows: list[npt.NDArray[np.int64]]) -> Examples:
        labels = np.repeat(np.arange(2), [len(each) for each in rows])
        return Examples(scaled(images[np.concatenate(rows)], *self._scale), torch.from_numpy(labels))

    def __iter__(self) -> Iterator[SplitTask]:
        """Yield task 0, 1, 2 and so on without end."""
        index = 0
        while True:
            yield self.task(index)
            index += 1
