"""Fully connected networks."""

import math
from collections.abc import Sequence

import numpy as np
from torch import nn

from regrow.errors import ConfigError, nearest
from regrow.networks.layers.doubling import CReLU, DeepFourierFeatures, halved
from regrow.networks.layers.dropout import Dropout
from regrow.networks.layers.smooth_leaky_relu import SmoothLeakyReLU

_ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "elu": nn.ELU,
    "selu": nn.SELU,
    "swish": nn.SiLU,
    "smooth_leaky_relu": SmoothLeakyReLU,
    "crelu": CReLU,
    "deep_fourier": DeepFourierFeatures,
}
_DOUBLING = ("crelu", "deep_fourier")


class MLP(nn.Sequential):
    """Linear layers with an activation between them.

    Initial law of Online Permuted MNIST (Dohare et al., Nature 632, 2024, Extended Data Fig. 3): weights uniform
    within ±gain·√(3/fan_in), where the gain is the activation's (√2 for ReLU) in hidden layers and 1 in the output
    layer; biases 0.

    Args:
        inputs: number of inputs.
        widths: number of units of each hidden layer; with crelu and deep_fourier, of features, two for each unit.
        outputs: number of outputs.
        activation: relu, leaky_relu, tanh, sigmoid, elu, selu, swish, smooth_leaky_relu, crelu or deep_fourier.
        dropout: probability of dropping each value of a hidden layer, after its activation; 0 for no such layers.
        seed: of what is dropped; the weights are drawn by torch's own generator.

    Shape:
        [batch, inputs] to [batch, outputs].

    Raises:
        ConfigError: an unknown activation, a probability outside [0, 1), or an odd width with an activation that makes
            two features of each unit.
    """

    def __init__(
        self,
        inputs: int,
        widths: Sequence[int],
        outputs: int,
        activation: str = "relu",
        dropout: float = 0.0,
        seed: int = 0,
    ) -> None:
        if activation not in _ACTIVATIONS:
            raise ConfigError(f"MLP knows no activation {activation!r}: {nearest(activation, _ACTIVATIONS)}")
        layers: list[nn.Module] = []
        for place, (fan_in, width) in enumerate(zip((inputs, *widths), widths, strict=False)):
            units = halved(width) if activation in _DOUBLING else width
            layers += [_linear(fan_in, units, _gain(activation)), _ACTIVATIONS[activation]()]
            if dropout:
                layers.append(Dropout(dropout, _seed(seed, place)))
        super().__init__(*layers, _linear((inputs, *widths)[-1], outputs, 1.0))


def _linear(inputs: int, outputs: int, gain: float) -> nn.Linear:
    layer = nn.Linear(inputs, outputs)
    bound = gain * math.sqrt(3 / inputs)
    nn.init.uniform_(layer.weight, -bound, bound)
    nn.init.zeros_(layer.bias)
    return layer


def _seed(seed: int, place: int) -> int:
    """A seed for each layer, so that no two draw alike, nor those of networks with neighbouring seeds."""
    return int(np.random.SeedSequence([seed, place]).generate_state(1, np.uint64)[0])


def _gain(activation: str) -> float:
    if activation == "selu":
        return 1.0
    # Two features of a unit together have the mean square of its pre-activation, or 1: each half, as behind ReLU.
    as_relu = ("elu", "swish", "smooth_leaky_relu", *_DOUBLING)
    return nn.init.calculate_gain("relu" if activation in as_relu else activation)  # type: ignore[arg-type]
