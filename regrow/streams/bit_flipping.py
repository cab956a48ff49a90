"""Slowly-changing regression: a fixed random target network whose slow input bits flip now and then."""

from collections.abc import Iterator
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
import torch

from regrow.errors import ConfigError, nearest
from regrow.streams.seeds import generator, whole_number
from regrow.streams.task import Task

Flip = Literal["one", "all"]
Target = Literal["article", "code"]

# What a generator is for; the numbers keep the draws apart.
_NETWORK, _START, _FLIPS, _EXAMPLES = range(4)
_BETA = 0.7
_TABLE = 12  # bits whose every setting is worked out at most


class BitFlipping:
    """An endless stream of periods: within one the slow bits stand still, all other bits are fair coins each step.

    The target is a network of `units` linear threshold units and one linear output; every weight and bias is +1 or
    -1 with equal probability. Unit i fires if w_i·x + b_i > (bits + 1)·0.7 - S_i. It is fixed for the whole stream and
    a learner smaller than it must keep tracking. Source: Dohare et al. 2024, Extended Data Fig. 2. A period depends
    on `seed` and its index alone: `stream.task(t)` gives it, bit for bit, without the periods before it.
    """

    def __init__(
        self,
        seed: int = 0,
        flip: Flip = "one",
        target: Target = "article",
        period: int = 10_000,
        bits: int = 20,
        slow: int = 15,
        units: int = 100,
    ) -> None:
        """Draw the target network.

        Args:
            seed: 0 or more.
            flip: what happens between two periods: `"one"` inverts one slow bit drawn at random (the article);
                `"all"` redraws every slow bit (the published code's default).
            target: `"article"`: S_i counts the negative ones among the weights and the bias of unit i. `"code"`: S_i is
                (bits - sum of w_i + b_i) / 2, where the bias has the opposite sign, as in the published code.
                Units with a negative bias then fire less, and errors are smaller: the best linear fit within a period
                leaves 0.77 instead of 1.08 (300 seeds, standard error below 0.03). The published curves, with about
                0.8 for a linear learner, are thus those of `"code"`.
            period: examples between two flips.
            bits: length of an input.
            slow: how many of the bits, the first ones, are slow.
            units: threshold units of the target.

        Raises:
            ConfigError: an argument is out of its range.
        """
        if flip not in get_args(Flip):
            raise ConfigError(f"flip={flip!r} is not a way to flip: {nearest(str(flip), get_args(Flip))}")
        if target not in get_args(Target):
            raise ConfigError(f"target={target!r} is not a target: {nearest(str(target), get_args(Target))}")
        self.seed = whole_number("seed", seed, least=0)
        self.period = whole_number("period", period, least=1)
        self.bits = whole_number("bits", bits, least=1)
        self.slow = whole_number("slow", slow, least=1)
        if self.slow > self.bits:
            raise ConfigError(f"slow={self.slow} is more than bits={self.bits}: at most all bits can be slow.")
        self.flip, self.target = flip, target
        self._draw_target(whole_number("units", units, least=1))

    def _draw_target(self, units: int) -> None:
        random = generator(self.seed, _NETWORK)
        signs = random.choice(np.array([-1, 1], dtype=np.float32), size=units * (self.bits + 2) + 1)
        weight, bias, output, self._output_bias = np.split(signs, np.cumsum([units * self.bits, units, units]))
        self._weight = weight.reshape(units, self.bits)
        self._output = output
        from_weights = (self.bits - self._weight.sum(axis=1)) / 2
        negatives = from_weights + ((1 - bias) / 2 if self.target == "article" else bias / 2)
        # Sums of ±1 are exact in float32 and never equal to such a threshold, so the target is the same everywhere.
        self._threshold = (self.bits + 1) * _BETA - negatives - bias

    def slow_bits(self, index: int) -> npt.NDArray[np.float32]:
        """Return the slow bits of period `index`: float32 [slow] of 0 and 1."""
        if self.flip == "all":
            return generator(self.seed, _START, index).integers(2, size=self.slow).astype(np.float32)
        start = generator(self.seed, _START).integers(2, size=self.slow)
        flips = generator(self.seed, _FLIPS).integers(self.slow, size=index)
        return ((start + np.bincount(flips, minlength=self.slow)) % 2).astype(np.float32)

    def task(self, index: int) -> Task:
        """Return period `index`: inputs float32 [period, bits] of 0 and 1, labels float32 [period, 1].

        Raises:
            ConfigError: `index` is negative or not whole.
        """
        index = whole_number("index", index, least=0)
        slow = self.slow_bits(index)
        fast = generator(self.seed, _EXAMPLES, index).integers(2, size=(self.period, self.bits - self.slow))
        inputs = np.empty((self.period, self.bits), dtype=np.float32)
        inputs[:, : self.slow] = slow
        inputs[:, self.slow :] = fast
        labels = self._answer(slow, fast, inputs)[:, None]
        return Task(index, torch.from_numpy(inputs), torch.from_numpy(labels))

    def _answer(
        self, slow: npt.NDArray[np.float32], fast: npt.NDArray[np.int64], inputs: npt.NDArray[np.float32]
    ) -> npt.NDArray[np.float32]:
        """What the target says to `inputs`, which are made of `slow` and `fast`."""
        count = self.bits - self.slow
        if count > _TABLE or 1 << count > self.period:
            return self._output_of(inputs)
        # While the slow bits stand still, there are few inputs, so each is worked out once.
        numbers = np.arange(1 << count)
        every = np.empty((len(numbers), self.bits), dtype=np.float32)
        every[:, : self.slow] = slow
        every[:, self.slow :] = numbers[:, None] >> np.arange(count) & 1
        return self._output_of(every)[fast @ (1 << np.arange(count))]

    def _output_of(self, inputs: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        fires = (inputs @ self._weight.T > self._threshold).astype(np.float32)
        values: npt.NDArray[np.float32] = fires @ self._output + self._output_bias
        return values

    def __iter__(self) -> Iterator[Task]:
        """Yield period 0, 1, 2 and so on without end."""
        index = 0
        while True:
            yield self.task(index)
            index += 1
