"""Continual backpropagation as the published code does it in a residual network."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Generator, Tensor, nn
from torch.optim import Optimizer

from regrow.errors import ConfigError
from regrow.networks.resnet import ResNet


@dataclass(eq=False)
class _Layer:
    """A convolution of the main path, what reads it, and what is known of its units."""

    convolution: nn.Conv2d
    norm: nn.BatchNorm2d
    following: nn.Conv2d | nn.Linear
    activity: Tensor = field(init=False)  # Σ over steps of the mean |h|
    age: Tensor = field(init=False)
    due: float = 0.0

    def __post_init__(self) -> None:
        device = self.convolution.weight.device
        self.activity = torch.zeros(self.convolution.out_channels, device=device)
        self.age = torch.zeros(self.convolution.out_channels, device=device, dtype=torch.int64)


class PublishedResNetCBP:
    """Re-draws units of a residual network after each step of its optimizer, with all that the published code for
    class-incremental CIFAR-100 (its `ResGnT`) does otherwise than the article (Dohare et al., Nature 632, 2024):

    - the statistic of a unit is the sum of its mean |h| over all steps. It never decays, is not corrected for age, and
      is not cleared when the unit is replaced, so that a new unit inherits the total of its predecessor;
    - units are the channels of each convolution of the main path after the activation that follows, also where the
      residual stream shares them. Only their slices in the next convolution of the main path are zeroed, and weighed:
      the skip path and the 1×1 convolutions still carry the unit, so a replacement changes the output;
    - what the optimizer remembers is left as it is, so that momentum goes on to move what was zeroed;
    - as soon as one unit of a layer is eligible, the budget grows by the rate times all its units a step, and where
      it reaches one or more, as many are replaced.

    New incoming weights are kaiming-normal, the bias is 0, and the batch norm of the unit begins anew.

    `regrow.ContinualBackprop` is the article's way. This one is here to reproduce published numbers.

    Args:
        network: the network; its training forwards are read from now on.
        optimizer: the optimizer that trains it; each of its steps is followed by this.
        replacement_rate: share of the units of a layer to replace a step, in [0, 1].
        maturity_threshold: a unit is eligible once its age in steps is greater than this.
        seed: of what is drawn.

    Attributes:
        replacements: so far.

    Raises:
        ConfigError: a rate outside [0, 1], or a negative maturity.
    """

    def __init__(
        self, network: ResNet, optimizer: Optimizer, *, replacement_rate: float, maturity_threshold: int, seed: int
    ) -> None:
        if not 0 <= replacement_rate <= 1:
            raise ConfigError(f"replacement_rate is a share and must lie in [0, 1], but is {replacement_rate!r}.")
        if maturity_threshold < 0:
            raise ConfigError(f"maturity_threshold must be at least 0, but is {maturity_threshold!r}.")
        self._rate, self._maturity = replacement_rate, maturity_threshold
        self._generator = Generator().manual_seed(seed)
        self._network = network
        path = network.main_path()
        readers: list[nn.Conv2d | nn.Linear] = [*(convolution for convolution, _ in path[1:]), network.output]
        self._layers = [_Layer(*pair, following) for pair, following in zip(path, readers, strict=True)]
        self.replacements = 0
        for layer in self._layers:
            layer.following.register_forward_pre_hook(lambda module, inputs, layer=layer: self._read(layer, *inputs))
        optimizer.register_step_post_hook(lambda *_: self._step())

    def _read(self, layer: _Layer, value: Tensor) -> None:
        if self._network.training and torch.is_grad_enabled():
            size = value.detach().abs()
            layer.activity += size.mean(dim=(0, 2, 3)) if size.dim() == 4 else size.mean(dim=0)

    @torch.no_grad()
    def _step(self) -> None:
        for layer in self._layers:
            units = self._choose(layer)
            self._redraw(layer, units)
            layer.following.weight[:, units] = 0
            self.replacements += len(units)

    def _choose(self, layer: _Layer) -> Tensor:
        """Units to replace now, lowest utility first."""
        layer.age += 1
        eligible = (layer.age > self._maturity).nonzero().flatten()
        if not len(eligible):
            return eligible
        layer.due += self._rate * len(layer.age)
        count = min(int(layer.due), len(eligible))
        layer.due -= count
        if not count:
            return eligible[:0]
        outgoing = layer.following.weight.abs().transpose(0, 1).flatten(1).mean(dim=1)
        utility = (outgoing * layer.activity)[eligible]
        return eligible[utility.argsort(stable=True)[:count]]

    def _redraw(self, layer: _Layer, units: Tensor) -> None:
        weight, norm = layer.convolution.weight, layer.norm
        spread = (2 / weight[0].numel()) ** 0.5
        drawn = torch.randn((len(units), *weight.shape[1:]), generator=self._generator) * spread
        weight[units] = drawn.to(weight)
        for value, beginning in _affine(layer.convolution, norm):
            value[units] = beginning
        layer.age[units] = 0

    def state_dict(self) -> dict[str, Any]:
        """Everything that `load_state_dict` needs: tensors and numbers."""
        layers = [
            {"activity": each.activity.clone(), "age": each.age.clone(), "due": each.due} for each in self._layers
        ]
        generator = self._generator.get_state()
        return {"layers": layers, "generator": generator, "replacements": self.replacements}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` returned."""
        for layer, saved in zip(self._layers, state["layers"], strict=True):
            layer.activity.copy_(saved["activity"])
            layer.age.copy_(saved["age"])
            layer.due = saved["due"]
        self._generator.set_state(state["generator"].cpu())
        self.replacements = state["replacements"]


def _affine(convolution: nn.Conv2d, norm: nn.BatchNorm2d) -> Iterator[tuple[Tensor, float]]:
    """What has one entry a unit, with the value that it begins with."""
    assert convolution.bias is not None and norm.running_mean is not None and norm.running_var is not None
    yield convolution.bias, 0.0
    yield norm.weight, 1.0
    yield norm.bias, 0.0
    yield norm.running_mean, 0.0
    yield norm.running_var, 1.0
