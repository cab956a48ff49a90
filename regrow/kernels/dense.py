"""Linear layers on single examples with plain SGD, skipping what is zero.

Weights are stored [in, out], so that all that one input value meets is one contiguous row. An input that is exactly
zero and has no derivative (a black pixel, a silent ReLU) adds nothing forward, gets no gradient and passes none down:
its row need not be touched, and the result is the same as if it were (for finite weights).

A layer is told of by where things start: its weights in `theta`, its inputs (`below`) and its outputs (`above`) in the
arrays of the values of all layers. Positions of its active inputs stand in `active` from `below` on.
"""

import numpy as np

from regrow.kernels.compiled import Floats, Integers, at, compiled


@compiled
def ascend(
    theta: Floats, weights: int, bias: int, width: int, values: Floats, below: int, above: int, active: Integers,
    count: int,
) -> None:  # fmt: skip
    """values above = bias + x·W over the active inputs, eight rows at a time so that they are read and written less
    often.
    """
    for j in range(width):
        values[at(above + j)] = theta[at(bias + j)]
    whole = count - count % 8
    for k in range(below, below + whole, 8):
        a, b, c, d = active[at(k)], active[at(k + 1)], active[at(k + 2)], active[at(k + 3)]
        e, f, g, h = active[at(k + 4)], active[at(k + 5)], active[at(k + 6)], active[at(k + 7)]
        xa, xb, xc, xd = values[at(below + a)], values[at(below + b)], values[at(below + c)], values[at(below + d)]
        xe, xf, xg, xh = values[at(below + e)], values[at(below + f)], values[at(below + g)], values[at(below + h)]
        ra, rb, rc, rd = weights + a * width, weights + b * width, weights + c * width, weights + d * width
        re, rf, rg, rh = weights + e * width, weights + f * width, weights + g * width, weights + h * width
        for j in range(width):
            ab = xa * theta[at(ra + j)] + xb * theta[at(rb + j)]
            cd = xc * theta[at(rc + j)] + xd * theta[at(rd + j)]
            ef = xe * theta[at(re + j)] + xf * theta[at(rf + j)]
            gh = xg * theta[at(rg + j)] + xh * theta[at(rh + j)]
            values[at(above + j)] += (ab + cd) + (ef + gh)
    for k in range(below + whole, below + count):
        a = active[at(k)]
        xa, ra = values[at(below + a)], weights + a * width
        for j in range(width):
            values[at(above + j)] += xa * theta[at(ra + j)]


@compiled
def descend_first(
    theta: Floats, weights: int, width: int, values: Floats, slopes: Floats, below: int, above: int, active: Integers,
    count: int, rate: np.float32, keep: np.float32,
) -> None:  # fmt: skip
    """One step of the layer that has nothing below: W ← keep·W − rate·xᵀ·slope, for the active rows."""
    for k in range(below, below + count):
        a = active[at(k)]
        change, row = rate * values[at(below + a)], weights + a * width
        if keep != 1:
            decay_row(theta, row, width, slopes, above, keep)
        for j in range(width):
            theta[at(row + j)] -= change * slopes[at(above + j)]


@compiled
def descend(
    theta: Floats, weights: int, width: int, values: Floats, bends: Floats, slopes: Floats, below: int, above: int,
    active: Integers, count: int, rate: np.float32, keep: np.float32, outgoing: Floats,
) -> None:  # fmt: skip
    """The same step of any other layer. The same sweep over the weights, two rows at a time, gives the gradient below,
    from the weights before the step, and Σ|w| of each active row, from those after it.
    """
    whole = count - count % 2
    for k in range(below, below + whole, 2):
        a, b = active[at(k)], active[at(k + 1)]
        ca, cb = rate * values[at(below + a)], rate * values[at(below + b)]
        ra, rb = weights + a * width, weights + b * width
        before_a = before_b = np.float32(0)
        if keep != 1:
            before_a = decay_row(theta, ra, width, slopes, above, keep)
            before_b = decay_row(theta, rb, width, slopes, above, keep)
        pa = pb = ta = tb = np.float32(0)
        for j in range(width):
            slope, wa, wb = slopes[at(above + j)], theta[at(ra + j)], theta[at(rb + j)]
            pa += wa * slope
            pb += wb * slope
            wa -= ca * slope
            wb -= cb * slope
            theta[at(ra + j)] = wa
            theta[at(rb + j)] = wb
            ta += abs(wa)
            tb += abs(wb)
        slopes[at(below + a)] = bends[at(below + a)] * (pa if keep == 1 else before_a)
        slopes[at(below + b)] = bends[at(below + b)] * (pb if keep == 1 else before_b)
        outgoing[at(below + a)] = ta
        outgoing[at(below + b)] = tb
    if whole < count:
        a = active[at(below + whole)]
        ca, ra = rate * values[at(below + a)], weights + a * width
        before_a = np.float32(0)
        if keep != 1:
            before_a = decay_row(theta, ra, width, slopes, above, keep)
        pa = ta = np.float32(0)
        for j in range(width):
            slope, wa = slopes[at(above + j)], theta[at(ra + j)]
            pa += wa * slope
            wa -= ca * slope
            theta[at(ra + j)] = wa
            ta += abs(wa)
        slopes[at(below + a)] = bends[at(below + a)] * (pa if keep == 1 else before_a)
        outgoing[at(below + a)] = ta


@compiled
def descend_tracked(
    theta: Floats, weights: int, width: int, values: Floats, bends: Floats, slopes: Floats, below: int, above: int,
    active: Integers, count: int, rate: np.float32, keep: np.float32, outgoing: Floats, moved: Floats,
) -> None:  # fmt: skip
    """The same step of any layer, which adds to `moved` by how much Σ|w| of each column grows, too."""
    for k in range(below, below + count):
        a = active[at(k)]
        change, row = rate * values[at(below + a)], weights + a * width
        before = np.float32(0)
        if keep != 1:
            add_magnitudes(theta, row, width, np.float32(-1), moved)
            before = decay_row(theta, row, width, slopes, above, keep)
            add_magnitudes(theta, row, width, np.float32(1), moved)
        passed = total = np.float32(0)
        for j in range(width):
            slope, old = slopes[at(above + j)], theta[at(row + j)]
            passed += old * slope
            new = old - change * slope
            theta[at(row + j)] = new
            total += abs(new)
            moved[at(j)] += abs(new) - abs(old)
        slopes[at(below + a)] = bends[at(below + a)] * (passed if keep == 1 else before)
        outgoing[at(below + a)] = total


@compiled
def decay_row(theta: Floats, row: int, width: int, slopes: Floats, above: int, keep: np.float32) -> np.float32:
    """Multiply a row by `keep`. Returns its product with the slopes before."""
    # On its own, so that a decayed weight is rounded before the gradient is subtracted: merged, the roundings of
    # thousands of steps would add up to another drift than that of the plain path.
    passed = np.float32(0)
    for j in range(width):
        old = theta[at(row + j)]
        passed += old * slopes[at(above + j)]
        theta[at(row + j)] = keep * old
    return passed


@compiled
def decay_silent(
    theta: Floats, weights: int, width: int, rows: int, below: int, active: Integers, count: int, keep: np.float32,
    outgoing: Floats, moved: Floats, tracked: bool,
) -> None:  # fmt: skip
    """Multiply the rows that are not active by `keep`, and bring sums up to date: decay asks for no input."""
    k = 0
    for i in range(rows):
        if k < count and active[at(below + k)] == i:
            k += 1
            continue
        row = weights + i * width
        if tracked:
            add_magnitudes(theta, row, width, np.float32(-1), moved)
        total = np.float32(0)
        for j in range(width):
            new = keep * theta[at(row + j)]
            theta[at(row + j)] = new
            total += abs(new)
        if tracked:
            add_magnitudes(theta, row, width, np.float32(1), moved)
        outgoing[at(below + i)] = total


@compiled
def add_magnitudes(theta: Floats, row: int, width: int, factor: np.float32, moved: Floats) -> None:
    """Add a row's |w|, times a factor, to `moved`."""
    for j in range(width):
        moved[at(j)] += factor * abs(theta[at(row + j)])
