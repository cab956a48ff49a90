"""Linear layers on single examples, skipping what is zero.

Weights are stored [in, out], so that all that one input value meets is one contiguous row. An input that is
exactly zero (a black pixel, a silent ReLU) adds nothing forward, gets no gradient and passes none down: its row
need not be touched, and the result is the same as if it were (for finite weights).
"""

import numpy as np

from regrow.kernels.compiled import Floats, Integers, compiled


@compiled
def find_active(x: Floats, active: Integers) -> int:
    """Write the positions of the values that are not zero into `active`, in order, and return how many."""
    count = 0
    for i in range(x.shape[0]):
        active[count] = i
        count += x[i] != 0
    return count


@compiled
def ascend(weights: Floats, bias: Floats, x: Floats, active: Integers, z: Floats) -> None:
    """z = bias + x·W over the active inputs, four rows at a time so that z is read and written less often."""
    width = z.shape[0]
    for j in range(z.shape[0]):
        z[j] = bias[j]
    whole = active.shape[0] - active.shape[0] % 4
    for k in range(0, whole, 4):
        a, b, c, d = active[k], active[k + 1], active[k + 2], active[k + 3]
        xa, xb, xc, xd = x[a], x[b], x[c], x[d]
        wa = weights[a * width : (a + 1) * width]
        wb = weights[b * width : (b + 1) * width]
        wc = weights[c * width : (c + 1) * width]
        wd = weights[d * width : (d + 1) * width]
        for j in range(z.shape[0]):
            z[j] += (xa * wa[j] + xb * wb[j]) + (xc * wc[j] + xd * wd[j])
    for k in range(whole, active.shape[0]):
        i = active[k]
        xi = x[i]
        w = weights[i * width : (i + 1) * width]
        for j in range(z.shape[0]):
            z[j] += xi * w[j]


@compiled
def descend_first(
    weights: Floats, x: Floats, active: Integers, slope: Floats, rate: np.float32, keep: np.float32
) -> None:
    """One step of the layer that has nothing below: W ← keep·W − rate·xᵀ·slope, for the active rows."""
    width = slope.shape[0]
    for k in range(active.shape[0]):
        i = active[k]
        change = rate * x[i]
        w = weights[i * width : (i + 1) * width]
        if keep != 1:
            _scale(w, keep)
        for j in range(slope.shape[0]):
            w[j] -= change * slope[j]


@compiled
def descend(
    weights: Floats, x: Floats, active: Integers, slope: Floats, rate: np.float32, keep: np.float32, below: Floats,
    sums: Floats,
) -> None:  # fmt: skip
    """The same step of any other layer. The same sweep over the weights gives the gradient of x, from the weights
    before the step, and Σ|w| of each active row, from those after it.
    """
    width = slope.shape[0]
    below[:] = 0
    for k in range(active.shape[0]):
        i = active[k]
        change = rate * x[i]
        w = weights[i * width : (i + 1) * width]
        if keep != 1:
            below[i] = _dot(w, slope)
            _scale(w, keep)
        passed = np.float32(0)
        total = np.float32(0)
        for j in range(slope.shape[0]):
            passed += w[j] * slope[j]
            moved = w[j] - change * slope[j]
            w[j] = moved
            total += abs(moved)
        if keep == 1:
            below[i] = passed
        sums[i] = total


@compiled
def _dot(w: Floats, slope: Floats) -> np.float32:
    total = np.float32(0)
    for j in range(w.shape[0]):
        total += w[j] * slope[j]
    return total


@compiled
def _scale(w: Floats, keep: np.float32) -> None:
    # On its own, so that a decayed weight is rounded before the gradient is subtracted: merged, the roundings of
    # thousands of steps would add up to another drift than that of the plain path.
    for j in range(w.shape[0]):
        w[j] *= keep


@compiled
def shrink_silent(weights: Floats, active: Integers, width: int, keep: np.float32, sums: Floats) -> None:
    """Multiply the rows that are not active by `keep`, and bring their sums up to date: decay asks for no input."""
    k = 0
    for i in range(sums.shape[0]):
        if k < active.shape[0] and active[k] == i:
            k += 1
            continue
        w = weights[i * width : (i + 1) * width]
        total = np.float32(0)
        for j in range(w.shape[0]):
            w[j] *= keep
            total += abs(w[j])
        sums[i] = total


@compiled
def row_sum(weights: Floats, i: int, width: int) -> np.float32:
    """Σ|w| of one row."""
    w = weights[i * width : (i + 1) * width]
    total = np.float32(0)
    for j in range(w.shape[0]):
        total += abs(w[j])
    return total


@compiled
def row_sums(weights: Floats, width: int, sums: Floats) -> None:
    """Σ|w| of every row."""
    for i in range(sums.shape[0]):
        sums[i] = row_sum(weights, i, width)
