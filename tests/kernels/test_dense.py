"""The sparse layers against NumPy's dense ones."""

from typing import NamedTuple

import numpy as np
import pytest

from regrow.kernels.activations import find_active
from regrow.kernels.dense import ascend, decay_silent, descend, descend_first, descend_tracked

SHAPES = [(1, 1, 0.0), (3, 5, 0.5), (6, 4, 1.0), (7, 8, 0.3), (50, 33, 0.8), (64, 64, 0.0)]
RATE = np.float32(0.25)


class Layer(NamedTuple):
    """A layer whose inputs start at 2 and its outputs right behind them; weights start at 3."""

    rows: int
    width: int
    theta: np.ndarray
    values: np.ndarray
    bends: np.ndarray
    slopes: np.ndarray
    active: np.ndarray
    count: int

    @property
    def weights(self) -> np.ndarray:
        return self.theta[3 : 3 + self.rows * self.width].reshape(self.rows, self.width)

    @property
    def x(self) -> np.ndarray:
        return self.values[2 : 2 + self.rows]


def layer(rows: int, width: int, silent: float) -> Layer:
    random = np.random.default_rng([rows, width])
    theta = random.normal(size=3 + (rows + 1) * width).astype(np.float32)
    values, bends, slopes = random.normal(size=(3, 2 + rows + width)).astype(np.float32)
    quiet = random.random(rows) < silent
    values[2 : 2 + rows][quiet] = 0
    bends[2 : 2 + rows][quiet] = 0
    active = np.zeros(2 + rows + width, dtype=np.int64)
    return Layer(rows, width, theta, values, bends, slopes, active, find_active(values, bends, 2, rows, active))


def test_what_has_a_value_or_a_derivative_is_active() -> None:
    values = np.array([7.0, 0.0, 1.0, -0.0, np.nan, -2.0, 0.0, 3.0], dtype=np.float32)
    bends = np.array([7.0, 0.0, 0.0, 0.5, 0.0, 1.0, 0.0, 3.0], dtype=np.float32)
    active = np.full(8, -1, dtype=np.int64)
    assert find_active(values, bends, 1, 6, active) == 4
    assert active[1:5].tolist() == [1, 2, 3, 4]


@pytest.mark.parametrize(("rows", "width", "silent"), SHAPES)
def test_ascend(rows: int, width: int, silent: float) -> None:
    made = layer(rows, width, silent)
    bias = 3 + rows * width
    expected = made.theta[bias:] + (made.x[:, None] * made.weights).sum(axis=0)
    ascend(made.theta, 3, bias, width, made.values, 2, 2 + rows, made.active, made.count)
    np.testing.assert_allclose(made.values[2 + rows :], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("keep", [1.0, 0.875])
@pytest.mark.parametrize("step", ["descend", "tracked", "first"])
@pytest.mark.parametrize(("rows", "width", "silent"), SHAPES)
def test_descend(rows: int, width: int, silent: float, step: str, keep: float) -> None:
    made = layer(rows, width, silent)
    before, slope, kept = made.weights.copy(), made.slopes[2 + rows :].copy(), np.float32(keep)
    below = np.where(made.bends[2 : 2 + rows] == 0, 0, (before * slope).sum(axis=1) * made.bends[2 : 2 + rows])
    made.slopes[2 : 2 + rows] = 0
    expected = kept * before - RATE * np.outer(made.x, slope)
    outgoing = np.zeros(2 + rows, np.float32)
    outgoing[2:] = np.abs(before).sum(axis=1)
    moved = np.zeros(width, np.float32)
    tracked = step == "tracked"
    if keep != 1:
        decay_silent(made.theta, 3, width, rows, 2, made.active, made.count, kept, outgoing, moved, tracked)
    start = (made.theta, 3, width, made.values)
    rest = (made.slopes, 2, 2 + rows, made.active, made.count, RATE, kept)
    if step == "first":
        descend_first(*start, *rest)
    elif tracked:
        descend_tracked(*start, made.bends, *rest, outgoing, moved)
    else:
        descend(*start, made.bends, *rest, outgoing)
    np.testing.assert_allclose(made.weights, expected, rtol=1e-5, atol=1e-5)
    if step == "first":
        return
    np.testing.assert_allclose(outgoing[2:], np.abs(expected).sum(axis=1), rtol=1e-5)
    # The gradient below comes from the weights before the step; a silent input gets none.
    np.testing.assert_allclose(made.slopes[2 : 2 + rows], below, rtol=1e-5, atol=1e-5)
    if tracked:
        grown = np.abs(expected).sum(axis=0) - np.abs(before).sum(axis=0)
        np.testing.assert_allclose(moved, grown, rtol=1e-4, atol=1e-4)
