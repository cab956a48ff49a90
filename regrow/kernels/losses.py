"""Losses of one example, and their gradients with respect to the outputs."""

import numpy as np

from regrow.kernels.compiled import Floats, at, compiled

CROSS_ENTROPY, SQUARED_ERROR = range(2)


@compiled
def is_right(values: Floats, start: int, width: int, label: int) -> bool:
    """Whether the most likely class is the label: the first of several, and NaN above all, as in torch.

    Args:
        values: values of all layers.
        start: where the logits start.
        width: how many.
        label: the class.
    """
    best = 0
    for j in range(1, width):
        here, top = values[at(start + j)], values[at(start + best)]
        if here > top or (np.isnan(here) and not np.isnan(top)):
            best = j
    return best == label


@compiled
def softmax_slope(values: Floats, slopes: Floats, start: int, width: int, label: int) -> None:
    """Gradient of the cross-entropy with respect to the logits, into `slopes`."""
    top = values[at(start)]
    for j in range(1, width):
        top = max(top, values[at(start + j)])
    total = np.float32(0)
    for j in range(width):
        slopes[at(start + j)] = np.exp(values[at(start + j)] - top)
        total += slopes[at(start + j)]
    for j in range(width):
        slopes[at(start + j)] /= total
    slopes[at(start + label)] -= np.float32(1)


@compiled
def squared_error_slope(
    values: Floats, slopes: Floats, start: int, width: int, targets: Floats, example: int
) -> np.float32:
    """Gradient of the squared error, the mean over the outputs, into `slopes`; returns the error.

    Args:
        values: values of all layers.
        slopes: gradients of the loss with respect to them.
        start: where the outputs start in both.
        width: how many.
        targets: what they should be, [examples, outputs].
        example: which of them.
    """
    total = np.float32(0)
    factor = np.float32(2) / np.float32(width)
    for j in range(width):
        off = values[at(start + j)] - targets[at(example), at(j)]
        slopes[at(start + j)] = factor * off
        total += off * off
    return total / np.float32(width)
