"""Class-incremental learning: ever more classes, and every task has all of them so far."""

from collections.abc import Iterator, Sequence
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
import torch

from regrow.errors import ConfigError, DataError, nearest
from regrow.streams.images import Labelled, scaled
from regrow.streams.seeds import generator, whole_number
from regrow.streams.task import Examples, SplitTask

CIFAR_MEAN = (0.5071, 0.4865, 0.4409)
CIFAR_STD = (0.2673, 0.2564, 0.2762)

Probed = Literal["train", "train_and_validation"]


class ClassIncremental:
    """Increments of some classes each, in an order that is drawn once; a task has the images of all classes so far.

    A class has the label of its place in the order. Of its training images the first are for validation. A task is to
    be measured on the images of the classes that are new in it, in random order.

    Source: Dohare et al., Nature 632, 2024, Fig. 2: CIFAR-100, increments of 5 classes, of 500 training images 50 for
    validation, 100 test images.

    Args:
        images: uint8 [n, height, width, colours], for training and validation.
        labels: integers [n], the classes from 0.
        test_images: likewise, to be tested on.
        test_labels: their classes.
        increment: new classes in each task.
        validation: images of each class; 0 for none.
        seed: 0 or more.
        mean: of each colour, to be subtracted once pixels lie in [0, 1].
        std: of each colour, to be divided by then.
        white: the pixel value that becomes 1.0.
        probed: what a task is to be measured on: `"train"` images, or as in the published code
            `"train_and_validation"`.

    Raises:
        ConfigError: an argument is out of its range.
        DataError: images and labels do not fit each other, or a class has too few images.
    """

    def __init__(
        self,
        images: npt.NDArray[Any],
        labels: npt.NDArray[Any],
        test_images: npt.NDArray[Any],
        test_labels: npt.NDArray[Any],
        increment: int = 5,
        validation: int = 50,
        seed: int = 0,
        mean: Sequence[float] | None = CIFAR_MEAN,
        std: Sequence[float] | None = CIFAR_STD,
        white: int = 255,
        probed: Probed = "train",
    ) -> None:
        if probed not in get_args(Probed):
            raise ConfigError(f"probed={probed!r} is not a choice of images: {nearest(str(probed), get_args(Probed))}")
        self.seed = whole_number("seed", seed, least=0)
        self.increment = whole_number("increment", increment, least=1)
        self._validation = whole_number("validation", validation, least=0)
        self._probed_from = 0 if probed == "train_and_validation" else self._validation
        self._learned, self._tested = Labelled(images, labels), Labelled(test_images, test_labels)
        self._learned.require(self._validation + 1)
        self._tested.require(1, classes=len(self._learned.by_class))
        if self.increment > len(self._learned.by_class):
            raise DataError(
                f"There are {len(self._learned.by_class)} classes, fewer than increment={self.increment} of them."
            )
        self._scale = (white, mean, std)
        self.order: npt.NDArray[np.int64] = generator(self.seed).permutation(len(self._learned.by_class))

    @property
    def tasks(self) -> int:
        """How many whole increments there are."""
        return len(self.order) // self.increment

    def task(self, index: int) -> SplitTask:
        """Return task `index`: images float32 [n, colours, height, width].

        Raises:
            ConfigError: `index` is negative, not whole, or beyond the last increment.
        """
        index = whole_number("index", index, least=0)
        if index >= self.tasks:
            raise ConfigError(f"index={index} is beyond the last of {self.tasks} increments.")
        known = self.order[: (index + 1) * self.increment]
        rows = [self._learned.by_class[name] for name in known]
        train = self._examples(self._learned, [each[self._validation :] for each in rows])
        validation = self._examples(self._learned, [each[: self._validation] for each in rows])
        test = self._examples(self._tested, [self._tested.by_class[name] for name in known])
        new = np.concatenate([each[self._probed_from :] for each in rows[-self.increment :]])
        probe = scaled(self._learned.images[generator(self.seed, 1, index).permutation(new)], *self._scale)
        return SplitTask(index, train, test, validation if self._validation else None, len(known), probe)

    def _examples(self, source: Labelled, rows: list[npt.NDArray[np.int64]]) -> Examples:
        labels = np.repeat(np.arange(len(rows)), [len(each) for each in rows])
        return Examples(scaled(source.images[np.concatenate(rows)], *self._scale), torch.from_numpy(labels))

    def __iter__(self) -> Iterator[SplitTask]:
        """Yield all tasks."""
        for index in range(self.tasks):
            yield self.task(index)
