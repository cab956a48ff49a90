"""The parameters of a network in one array, as the fused loops hold them."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from regrow.kernels.compiled import Floats, Integers, compiled
from regrow.kernels.dense import row_sums


class Network(NamedTuple):
    """A fully connected network.

    Attributes:
        widths: of the input, every hidden group and the output.
        offsets: where each layer starts in `theta`, and the length of `theta`.
        starts: where each layer's values start in an array of the values of all layers, and its length.
        theta: parameters, layer by layer: weights [in, out], then bias.
        sums: Σ|w_out| of every input and hidden unit, front to back; kept for the hidden units only.
    """

    widths: Integers
    offsets: Integers
    starts: Integers
    theta: Floats
    sums: Floats


def empty_network(widths: Sequence[int]) -> Network:
    """A network of these widths whose parameters are all 0."""
    sizes = np.array(widths, dtype=np.int64)
    offsets = np.concatenate(([0], np.cumsum((sizes[:-1] + 1) * sizes[1:])))
    starts = np.concatenate(([0], np.cumsum(sizes)))
    theta = np.zeros(offsets[-1], dtype=np.float32)
    return Network(sizes, offsets, starts, theta, np.zeros(starts[-2], dtype=np.float32))


@compiled
def weights_of(network: Network, layer: int) -> Floats:
    """The weights of a layer, row by row; writable."""
    start = network.offsets[layer]
    return network.theta[start : start + network.widths[layer] * network.widths[layer + 1]]


@compiled
def bias_of(network: Network, layer: int) -> Floats:
    """The bias of a layer; writable."""
    stop = network.offsets[layer + 1]
    return network.theta[stop - network.widths[layer + 1] : stop]


@compiled
def sums_of(network: Network, layer: int) -> Floats:
    """Σ|w| of the rows of a layer; writable."""
    return network.sums[network.starts[layer] : network.starts[layer + 1]]


@compiled
def refresh_sums(network: Network, layer: int) -> None:
    """Bring the sums of a layer's rows up to date with its weights."""
    row_sums(weights_of(network, layer), network.widths[layer + 1], sums_of(network, layer))
