"""Labels that are drawn anew each task, for the same images: what can only be learned by heart."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy.typing as npt
import torch

from regrow.errors import DataError
from regrow.streams.images import Labelled, scaled
from regrow.streams.seeds import generator, whole_number
from regrow.streams.task import Examples, SplitTask


class RandomLabels:
    """An endless stream: the same images in every task, under labels that are drawn uniformly for it.

    All tasks are equally hard and have nothing to do with each other. What is learned is also what is tested, since
    there is nothing else to know. Task t depends on `seed` and t alone.

    Source: Kumar, Marklund and Van Roy 2023 (arXiv 2308.11958), random-label MNIST and CIFAR-10: 1,200 images, 400
    epochs in mini-batches of 16, 50 tasks. There, accuracy is that of predictions before each step.

    Args:
        images: integers [n, height, width] or [n, height, width, colours].
        labels: integers [n]; only the images are used of the set, but they must fit.
        count: how many images; a random choice that is made once.
        classes: how many labels there are.
        seed: 0 or more.
        mean: of each colour, to be subtracted once pixels lie in [0, 1].
        std: of each colour, to be divided by then.
        white: the pixel value that becomes 1.0.

    Raises:
        ConfigError: an argument is out of its range.
        DataError: images and labels do not fit each other, or there are too few images.
    """

    def __init__(
        self,
        images: npt.NDArray[Any],
        labels: npt.NDArray[Any],
        count: int = 1200,
        classes: int = 10,
        seed: int = 0,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        white: int = 255,
    ) -> None:
        self.seed = whole_number("seed", seed, least=0)
        self.classes = whole_number("classes", classes, least=2)
        count = whole_number("count", count, least=1)
        found = Labelled(images, labels)
        if len(found.images) < count:
            raise DataError(f"There are {len(found.images)} images, and count={count} are needed: take fewer.")
        rows = generator(self.seed, 0).choice(len(found.images), size=count, replace=False)
        self._inputs = scaled(found.images[rows], whole_number("white", white, least=1), mean, std)

    def task(self, index: int) -> SplitTask:
        """Return task `index`: images float32 [count, colours, height, width], the same in all tasks.

        Raises:
            ConfigError: `index` is negative or not whole.
        """
        index = whole_number("index", index, least=0)
        labels = generator(self.seed, 1, index + 1).integers(self.classes, size=len(self._inputs))
        examples = Examples(self._inputs, torch.from_numpy(labels))
        return SplitTask(index, examples, examples, None, self.classes, probe=self._inputs)

    def __iter__(self) -> Iterator[SplitTask]:
        """Yield task 0, 1, 2 and so on without end."""
        index = 0
        while True:
            yield self.task(index)
            index += 1
