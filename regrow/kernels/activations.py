"""Activations of hidden units and their derivatives, and which units a step need not touch."""

import numpy as np

from regrow.kernels.compiled import Floats, Integers, at, compiled

RELU, LEAKY_RELU, TANH, SIGMOID, ELU, SWISH = range(6)


@compiled
def activate(kind: int, shape: np.float32, values: Floats, bends: Floats, start: int, width: int) -> None:
    """Turn pre-activations into activations, in place.

    Args:
        kind: which activation.
        shape: negative slope (LEAKY_RELU) or α (ELU).
        values: values of all layers.
        bends: output: derivatives there.
        start: where the group starts in both.
        width: number of its units.
    """
    if kind == RELU:
        _relu(values, bends, start, width)
    elif kind == LEAKY_RELU:
        _leaky_relu(shape, values, bends, start, width)
    elif kind == TANH:
        _tanh(values, bends, start, width)
    elif kind == SIGMOID:
        _sigmoid(values, bends, start, width)
    elif kind == ELU:
        _elu(shape, values, bends, start, width)
    else:
        _swish(values, bends, start, width)


# In each, NaN stays NaN, and at a kink the derivative is torch's.
@compiled
def _relu(values: Floats, bends: Floats, start: int, width: int) -> None:
    for j in range(width):
        z = values[at(start + j)]
        values[at(start + j)] = np.float32(0) if z <= 0 else z
        bends[at(start + j)] = np.float32(0) if z <= 0 else np.float32(1)


@compiled
def _leaky_relu(slope: np.float32, values: Floats, bends: Floats, start: int, width: int) -> None:
    for j in range(width):
        z = values[at(start + j)]
        bend = np.float32(1) if z > 0 else slope
        values[at(start + j)] = z * bend
        bends[at(start + j)] = bend


@compiled
def _tanh(values: Floats, bends: Floats, start: int, width: int) -> None:
    for j in range(width):
        h = np.tanh(values[at(start + j)])
        values[at(start + j)] = h
        bends[at(start + j)] = np.float32(1) - h * h


@compiled
def _sigmoid(values: Floats, bends: Floats, start: int, width: int) -> None:
    for j in range(width):
        h = np.float32(1) / (np.float32(1) + np.exp(-values[at(start + j)]))
        values[at(start + j)] = h
        bends[at(start + j)] = h * (np.float32(1) - h)


@compiled
def _elu(alpha: np.float32, values: Floats, bends: Floats, start: int, width: int) -> None:
    for j in range(width):
        z = values[at(start + j)]
        bends[at(start + j)] = 1
        if z <= 0:
            # Not from the activation, which has lost the digits of a small derivative.
            bends[at(start + j)] = alpha * np.exp(z)
            values[at(start + j)] = alpha * np.expm1(z)


@compiled
def _swish(values: Floats, bends: Floats, start: int, width: int) -> None:
    for j in range(width):
        z = values[at(start + j)]
        gate = np.float32(1) / (np.float32(1) + np.exp(-z))
        values[at(start + j)] = z * gate
        bends[at(start + j)] = gate * (np.float32(1) + z * (np.float32(1) - gate))


@compiled
def find_active(values: Floats, bends: Floats, start: int, width: int, active: Integers) -> int:
    """Write the positions within a layer at which the value or its derivative is not zero into `active`, from `start`
    on and in order, and return how many.
    """
    count = 0
    for i in range(width):
        active[at(start + count)] = i
        count += values[at(start + i)] != 0 or bends[at(start + i)] != 0
    return count
