"""Fully connected networks."""

import math
from collections.abc import Sequence

from torch import nn

_ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "elu": nn.ELU,
    "selu": nn.SELU,
    "swish": nn.SiLU,
}


class MLP(nn.Sequential):
    """Linear layers with an activation between them.

    Initial law of Online Permuted MNIST (Dohare et al., Nature 632, 2024, Extended Data Fig. 3): weights uniform
    within ±gain·√(3/fan_in), where the gain is the activation's (√2 for ReLU) in hidden layers and 1 in the output
    layer; biases 0.

    Args:
        inputs: number of inputs.
        widths: number of units of each hidden layer.
        outputs: number of outputs.
        activation: relu, leaky_relu, tanh, sigmoid, elu, selu or swish.

    Shape:
        [batch, inputs] to [batch, outputs].
    """

    def __init__(self, inputs: int, widths: Sequence[int], outputs: int, activation: str = "relu") -> None:
        layers: list[nn.Module] = []
        for fan_in, width in zip((inputs, *widths), widths, strict=False):
            layers += [_linear(fan_in, width, _gain(activation)), _ACTIVATIONS[activation]()]
        super().__init__(*layers, _linear((inputs, *widths)[-1], outputs, 1.0))


def _linear(inputs: int, outputs: int, gain: float) -> nn.Linear:
    layer = nn.Linear(inputs, outputs)
    bound = gain * math.sqrt(3 / inputs)
    nn.init.uniform_(layer.weight, -bound, bound)
    nn.init.zeros_(layer.bias)
    return layer


def _gain(activation: str) -> float:
    if activation == "selu":
        return 1.0
    return nn.init.calculate_gain("relu" if activation in ("elu", "swish") else activation)  # type: ignore[arg-type]
