"""Classification under ever new permutations of the pixels (permuted MNIST and its small sister, permuted digits)."""

from collections.abc import Iterator
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
import torch

from regrow.errors import ConfigError, nearest
from regrow.streams.seeds import generator, whole_number
from regrow.streams.task import Task

Drawn = Literal["with_replacement", "shuffled"]

_ROWS = 128


class PermutedImages:
    """An endless stream: every task shows all images under one new random permutation of their pixels.

    Tasks are independent of each other and equally hard, so a learner that does worse on later ones has lost
    plasticity. No task tells its permutation, and nothing marks the change. Task t depends on `seed` and t alone:
    `stream.task(t)` gives it, bit for bit, without the tasks before it.
    Online permuted MNIST (Dohare et al. 2024, Extended Data Fig. 3) is 60,000 images, one pass, batch 1, 800 tasks; in
    the comparison of rates of change, `every` is 10,000, 100,000 and 1,000,000.
    """

    def __init__(
        self,
        images: npt.NDArray[Any],
        labels: npt.NDArray[Any],
        passes: int = 1,
        seed: int = 0,
        white: int = 255,
        every: int | None = None,
        drawn: Drawn = "with_replacement",
        stretches: int = 1,
        black: float = 0.0,
    ) -> None:
        """Check the images and keep them.

        Args:
            images: integers [n, ...] from 0 to `white`.
            labels: integers [n], the classes from 0.
            passes: how often a task shows all images; each pass has its own random order.
            seed: 0 or more.
            white: the pixel value that becomes 1.0 (255, or `ImageSet.white`).
            every: examples between two permutations, however many images there are; None to show all images.
            drawn: which examples these are. `"with_replacement"`: each is any image (the article). `"shuffled"`: the
                first ones of all images in a new random order, begun again at its end (the published code).
            stretches: so many tasks in a row have the same permutation, so that long ones come in pieces.
            black: what the pixel value 0 becomes, less than 1; the others lie between.

        Raises:
            ConfigError: an argument is out of its range, or images and labels do not fit each other.
        """
        self.stretches = whole_number("stretches", stretches, least=1)
        if not black < 1:
            raise ConfigError(f"black={black!r} must be less than 1, which is white.")
        self.black = black
        if drawn not in get_args(Drawn):
            raise ConfigError(f"drawn={drawn!r} is not a way to draw: {nearest(str(drawn), get_args(Drawn))}")
        if every is not None and passes != 1:
            raise ConfigError(f"passes={passes} and every={every} are two lengths of a task: pass one of them.")
        self.every = None if every is None else whole_number("every", every, least=1)
        self.drawn = drawn
        self.passes = whole_number("passes", passes, least=1)
        self.seed = whole_number("seed", seed, least=0)
        self.white = whole_number("white", white, least=1)
        images, labels = np.asarray(images), np.asarray(labels)
        _check(images, labels, self.white)
        self._pixels = np.ascontiguousarray(images.reshape(len(images), -1))
        self._labels = labels.astype(np.int64)

    @property
    def features(self) -> int:
        """Length of an input: the number of pixels."""
        return int(self._pixels.shape[1])

    @property
    def classes(self) -> int:
        """Number of classes: the highest label + 1."""
        return int(self._labels.max()) + 1

    def task(self, index: int) -> Task:
        """Return task `index`: inputs float32 [length, pixels] from `black` to 1, labels int64 [length].

        The length is n·passes, or `every`.

        Raises:
            ConfigError: `index` is negative or not whole.
        """
        index = whole_number("index", index, least=0)
        turn = index % self.stretches
        random = generator(self.seed, index - turn)
        permutation = random.permutation(self.features)
        order = self._order(random, index, turn)
        inputs = np.empty((len(order), self.features), dtype=np.float32)
        white = np.float32(self.white)
        # Some rows at a time, which then stay in the cache: five times as fast as all at once.
        for start in range(0, len(order), _ROWS):
            rows = slice(start, start + _ROWS)
            np.divide(self._pixels[order[rows]].take(permutation, axis=1), white, out=inputs[rows])
        if self.black:
            inputs *= np.float32(1 - self.black)
            inputs += np.float32(self.black)
        return Task(index, torch.from_numpy(inputs), torch.from_numpy(self._labels[order]))

    def _order(self, random: np.random.Generator, index: int, turn: int) -> npt.NDArray[np.int64]:
        """Which images a task shows: `random` has drawn its permutation, `turn` stretches before it."""
        count = len(self._pixels)
        if self.every is not None and self.drawn == "shuffled":
            places = np.arange(turn * self.every, (turn + 1) * self.every)
            return random.permutation(count).take(places, mode="wrap")
        if turn:
            random = generator(self.seed, index)
        if self.every is not None:
            return random.integers(count, size=self.every)
        return np.concatenate([random.permutation(count) for _ in range(self.passes)])

    def __iter__(self) -> Iterator[Task]:
        """Yield task 0, 1, 2 and so on without end."""
        index = 0
        while True:
            yield self.task(index)
            index += 1


def _check(images: npt.NDArray[Any], labels: npt.NDArray[Any], white: int) -> None:
    if images.ndim < 2 or images.size == 0 or not np.issubdtype(images.dtype, np.integer):
        raise ConfigError(
            f"images is {images.dtype} {list(images.shape)}: pass integers [n, ...] from 0 to white, one image or more."
        )
    if labels.shape != images.shape[:1] or not np.issubdtype(labels.dtype, np.integer):
        raise ConfigError(
            f"labels is {labels.dtype} {list(labels.shape)}: pass integers [{len(images)}], one for each image."
        )
    if labels.min() < 0:
        raise ConfigError(f"labels has {labels.min()}: classes count from 0.")
    low, high = int(images.min()), int(images.max())
    if low < 0 or high > white:
        raise ConfigError(f"images has pixels from {low} to {high}, but white={white}: pass white={high}.")
    # A forgotten white= would not fail, it would only make every picture nearly black and the results meaningless.
    if 2 * high < white:
        raise ConfigError(
            f"The brightest pixel is {high} of white={white}, so every input would be nearly black: "
            f"pass white={max(high, 1)} (ImageSet.white knows it)."
        )
