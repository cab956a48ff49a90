"""The parameters of a network in one array, as the fused loops hold them."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from regrow.kernels.activations import RELU
from regrow.kernels.compiled import Doubles, Floats, Integers, at, compiled


class Network(NamedTuple):
    """A fully connected network.

    Attributes:
        widths: of the input, every hidden group and the output.
        offsets: where each layer starts in `theta`, and the length of `theta`.
        starts: where each layer's values start in an array of the values of all layers, and its length.
        activations: of each hidden group, one of those in `activations`.
        shapes: of each hidden group, the number that its activation takes, such as the slope of a leaky ReLU.
        theta: parameters, layer by layer: weights [in, out], then bias.
        outgoing: Σ|w_out| of every input and hidden unit, front to back.
        incoming: Σ|w_in| of every value, front to back; nothing comes into inputs.
    """

    widths: Integers
    offsets: Integers
    starts: Integers
    activations: Integers
    shapes: Floats
    theta: Floats
    outgoing: Floats
    incoming: Doubles


def empty_network(
    widths: Sequence[int], activations: Sequence[int] | None = None, shapes: Sequence[float] | None = None
) -> Network:
    """A network of these widths whose parameters are all 0; of ReLUs if no activations are given."""
    sizes = np.array(widths, dtype=np.int64)
    offsets = np.concatenate(([0], np.cumsum((sizes[:-1] + 1) * sizes[1:])))
    starts = np.concatenate(([0], np.cumsum(sizes)))
    hidden = len(widths) - 2
    return Network(
        sizes,
        offsets,
        starts,
        np.array([RELU] * hidden if activations is None else activations, dtype=np.int64),
        np.array([0.0] * hidden if shapes is None else shapes, dtype=np.float32),
        np.zeros(offsets[-1], dtype=np.float32),
        np.zeros(starts[-2], dtype=np.float32),
        np.zeros(starts[-1], dtype=np.float64),
    )


@compiled
def refresh_outgoing(network: Network, layer: int) -> None:
    """Bring Σ|w| of the rows of a layer up to date with its weights."""
    width = network.widths[layer + 1]
    for i in range(network.widths[layer]):
        row = network.offsets[layer] + i * width
        total = np.float32(0)
        for j in range(width):
            total += abs(network.theta[at(row + j)])
        network.outgoing[at(network.starts[layer] + i)] = total


@compiled
def refresh_incoming(network: Network, layer: int) -> None:
    """Bring Σ|w| of the columns of a layer up to date with its weights."""
    width, start = network.widths[layer + 1], network.starts[layer + 1]
    for j in range(width):
        network.incoming[at(start + j)] = 0
    for i in range(network.widths[layer]):
        row = network.offsets[layer] + i * width
        for j in range(width):
            network.incoming[at(start + j)] += abs(network.theta[at(row + j)])


@compiled
def refresh_hidden(network: Network) -> None:
    """Bring the sums of all hidden units up to date."""
    for layer in range(network.widths.shape[0] - 2):
        refresh_incoming(network, layer)
        refresh_outgoing(network, layer + 1)
