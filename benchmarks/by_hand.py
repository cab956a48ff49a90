"""Online learning as one writes it by hand in plain PyTorch, without regrow: what the engines are compared with.

Autograd, an optimizer of torch, one example a step; continual backpropagation with the utility of each step, its
replacements and the clearing of the optimizer's state written out. Nothing in it is slow on purpose, and it does the
work of the fused loop: the same utilities, as often.
"""

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Optimizer


@dataclass
class Layer:
    """The units of a hidden layer: what is remembered of each."""

    incoming: nn.Linear
    outgoing: nn.Linear
    due: float = 0.0
    utility: Tensor = field(init=False)
    mean: Tensor = field(init=False)
    age: Tensor = field(init=False)

    def __post_init__(self) -> None:
        self.utility, self.mean, self.age = torch.zeros(3, self.incoming.out_features)


class PlainCBP:
    """Continual backpropagation (Dohare et al. 2024) on a Sequential of linear layers and ReLUs.

    Args:
        network: Linear, ReLU, Linear, ...
        optimizer: its optimizer.
        rate: share of the eligible units replaced per step.
        maturity: units are eligible once older than this.
        decay: of the running means.
        adaptable: the utility of the published code for permuted MNIST and bit flipping instead of Eq. 1.
    """

    def __init__(
        self,
        network: nn.Sequential,
        optimizer: Optimizer,
        rate: float = 1e-4,
        maturity: int = 100,
        decay: float = 0.99,
        adaptable: bool = False,
    ) -> None:
        linear = [layer for layer in network if isinstance(layer, nn.Linear)]
        self.layers = [Layer(*pair) for pair in zip(linear, linear[1:], strict=False)]
        self.optimizer = optimizer
        self.rate, self.maturity, self.decay, self.adaptable = rate, maturity, decay, adaptable
        self.replaced = 0

    @torch.no_grad()
    def step(self, activations: list[Tensor]) -> None:
        """After each step of the optimizer: activations of each hidden layer, [1, units]."""
        for layer, activation in zip(self.layers, activations, strict=True):
            layer.age += 1
            h = activation[0]
            correction = 1 - self.decay**layer.age
            if self.adaptable:
                layer.mean.lerp_(h, 1 - self.decay)
                contribution = (h - layer.mean / correction).abs() * layer.outgoing.weight.abs().sum(dim=0)
                contribution /= layer.incoming.weight.abs().sum(dim=1)
            else:
                contribution = h.abs() * layer.outgoing.weight.abs().sum(dim=0)
            layer.utility.lerp_(contribution, 1 - self.decay)
            eligible = (layer.age > self.maturity).nonzero().flatten()
            layer.due += self.rate * len(eligible)
            if layer.due >= 1:
                count = int(layer.due)
                layer.due -= count
                lowest = (layer.utility / correction)[eligible].topk(count, largest=False).indices
                self.replace(layer, eligible[lowest])

    def replace(self, layer: Layer, units: Tensor) -> None:
        """Draw units anew."""
        bound = math.sqrt(6 / layer.incoming.in_features)
        layer.outgoing.weight[:, units] = 0
        layer.incoming.weight[units] = torch.empty(len(units), layer.incoming.in_features).uniform_(-bound, bound)
        layer.incoming.bias[units] = 0
        layer.utility[units] = 0
        layer.mean[units] = 0
        layer.age[units] = 0
        self.replaced += len(units)
        for key in ("exp_avg", "exp_avg_sq"):
            state = self.optimizer.state
            if key in state[layer.incoming.weight]:
                state[layer.outgoing.weight][key][:, units] = 0
                state[layer.incoming.weight][key][units] = 0
                state[layer.incoming.bias][key][units] = 0


def learn(network: nn.Sequential, optimizer: Optimizer, cbp: PlainCBP | None, inputs: Tensor, labels: Tensor) -> Tensor:
    """Learn examples in order: labels are classes int64 [n], for the cross-entropy, or values float32 [n, outputs], for
    the squared error.

    Returns:
        The loss of each just before its step, [n].
    """
    is_class = labels.dtype == torch.int64
    losses = torch.empty(len(inputs))
    for step in range(len(inputs)):
        value, label = inputs[step : step + 1], labels[step : step + 1]
        activations = []
        for layer in network:
            value = layer(value)
            if isinstance(layer, nn.ReLU):
                activations.append(value)
        loss = functional.cross_entropy(value, label) if is_class else functional.mse_loss(value, label)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if cbp is not None:
            cbp.step(activations)
        losses[step] = loss.detach()
    return losses
