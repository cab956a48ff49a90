"""The sparse layers against NumPy's dense ones."""

import numpy as np
import pytest

from regrow.kernels.dense import ascend, descend, descend_first, find_active, row_sums, shrink_silent


def sparse_layer(rows: int, width: int, silent: float) -> tuple[np.ndarray, ...]:
    random = np.random.default_rng([rows, width])
    weights = random.normal(size=(rows, width)).astype(np.float32)
    x = np.where(random.random(rows) < silent, 0, random.normal(size=rows)).astype(np.float32)
    active = np.empty(rows, dtype=np.int64)
    return weights, x, active[: find_active(x, active)], random.normal(size=width).astype(np.float32)


SHAPES = [(1, 1, 0.0), (3, 5, 0.5), (6, 4, 1.0), (7, 8, 0.3), (50, 33, 0.8), (64, 64, 0.0)]


def test_what_is_not_zero_is_active() -> None:
    x = np.array([0.0, 1.0, -0.0, np.nan, -2.0, 0.0], dtype=np.float32)
    active = np.empty(6, dtype=np.int64)
    assert active[: find_active(x, active)].tolist() == [1, 3, 4]


@pytest.mark.parametrize(("rows", "width", "silent"), SHAPES)
def test_ascend(rows: int, width: int, silent: float) -> None:
    weights, x, active, bias = sparse_layer(rows, width, silent)
    z = np.empty(width, dtype=np.float32)
    ascend(weights.ravel(), bias, x, active, z)
    np.testing.assert_allclose(z, bias + x @ weights, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("keep", [1.0, 0.875])
@pytest.mark.parametrize(("rows", "width", "silent"), SHAPES)
def test_descend(rows: int, width: int, silent: float, keep: float) -> None:
    weights, x, active, slope = sparse_layer(rows, width, silent)
    expected = np.float32(keep) * weights - np.float32(0.25) * np.outer(x, slope)
    first, sums, below = weights.copy(), np.zeros(rows, np.float32), np.empty(rows, np.float32)
    rate, kept = np.float32(0.25), np.float32(keep)
    moved = weights.copy()
    row_sums(moved.ravel(), width, sums)
    if keep != 1:
        shrink_silent(moved.ravel(), active, width, kept, sums)
        shrink_silent(first.ravel(), active, width, kept, np.zeros(rows, np.float32))
    descend(moved.ravel(), x, active, slope, rate, kept, below, sums)
    descend_first(first.ravel(), x, active, slope, rate, kept)
    np.testing.assert_allclose(moved, expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(first, expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(sums, np.abs(expected).sum(axis=1), rtol=1e-5)
    # The gradient of x comes from the weights before the step; a silent input gets none.
    np.testing.assert_allclose(below, np.where(x == 0, 0, weights @ slope), rtol=1e-5, atol=1e-5)
