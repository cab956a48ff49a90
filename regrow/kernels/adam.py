"""Linear layers on single examples with Adam, which moves every weight at every step."""

from typing import NamedTuple

import numpy as np

from regrow.kernels.compiled import Floats, at, compiled
from regrow.kernels.dense import add_magnitudes, decay_row


class Adam(NamedTuple):
    """Adam of Kingma & Ba (2015) as torch computes it.

    Attributes:
        first_decay: β₁.
        second_decay: β₂.
        eps: ε.
        mean: running mean of the gradient, laid out as the parameters; empty for plain SGD.
        square: that of its square.
    """

    first_decay: float
    second_decay: float
    eps: np.float32
    mean: Floats
    square: Floats


class Stride(NamedTuple):
    """What Adam does in one step, as numbers.

    Attributes:
        size: step size, corrected for the start of the mean.
        root: √ of the correction for the start of the square.
        mean_share: 1 - β₁.
        square_share: 1 - β₂.
    """

    size: np.float32
    root: np.float32
    mean_share: np.float32
    square_share: np.float32


@compiled
def stride_of(adam: Adam, rate: float, step: int) -> Stride:
    """The numbers of a step, counted from 1."""
    return Stride(
        np.float32(rate / (1 - adam.first_decay**step)),
        np.float32(np.sqrt(1 - adam.second_decay**step)),
        np.float32(1 - adam.first_decay),
        np.float32(1 - adam.second_decay),
    )


@compiled
def adam_step(
    theta: Floats, weights: int, width: int, rows: int, values: Floats, bends: Floats, slopes: Floats, below: int,
    above: int, adam: Adam, stride: Stride, keep: np.float32, outgoing: Floats, moved: Floats, tracked: bool,
) -> None:  # fmt: skip
    """One step of a layer. The arguments are those of `dense.descend`; here all rows move, also those of silent inputs,
    as their running means run on.
    """
    mean, square = adam.mean, adam.square
    for i in range(rows):
        x, row = values[at(below + i)], weights + i * width
        before = np.float32(0)
        if tracked:
            add_magnitudes(theta, row, width, np.float32(-1), moved)
        if keep != 1:
            before = decay_row(theta, row, width, slopes, above, keep)
        passed = total = np.float32(0)
        for j in range(width):
            slope, old = slopes[at(above + j)], theta[at(row + j)]
            passed += old * slope
            new = old - _change(x * slope, mean, square, row + j, stride, adam.eps)
            theta[at(row + j)] = new
            total += abs(new)
        if tracked:
            add_magnitudes(theta, row, width, np.float32(1), moved)
        slopes[at(below + i)] = bends[at(below + i)] * (passed if keep == 1 else before)
        outgoing[at(below + i)] = total


@compiled
def adam_bias(
    theta: Floats, bias: int, width: int, slopes: Floats, above: int, adam: Adam, stride: Stride, keep: np.float32
) -> None:
    """One step of a layer's bias, which starts at `bias`."""
    for j in range(width):
        old, slope = theta[at(bias + j)], slopes[at(above + j)]
        theta[at(bias + j)] = keep * old - _change(slope, adam.mean, adam.square, bias + j, stride, adam.eps)


@compiled
def _change(
    gradient: np.float32, mean: Floats, square: Floats, place: int, stride: Stride, eps: np.float32
) -> np.float32:
    m, v = mean[at(place)], square[at(place)]
    m += stride.mean_share * (gradient - m)
    v += stride.square_share * (gradient * gradient - v)
    mean[at(place)] = m
    square[at(place)] = v
    change: np.float32 = stride.size * m / (np.sqrt(v) / stride.root + eps)
    return change
