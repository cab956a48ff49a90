"""Shrink and perturb: weight decay and noise."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Generator, Tensor

from regrow.methods.method import check_amount, check_choice, check_count, check_share
from regrow.methods.weight_method import Moment, WeightMethod
from regrow.units import host
from regrow.units.blocks import in_blocks

_DRAWS = 1 << 15  # normal numbers that weights share
_TILES = 8  # as often they are laid out, with other signs: over blocks that long, calls cost little


@dataclass(frozen=True)
class ShrinkAndPerturb(WeightMethod, name="shrink-and-perturb"):
    r"""Shrinks every weight and bias and adds Gaussian noise, step after step.

    $\theta \leftarrow (1 - \alpha\lambda)\,\theta + \sigma\varepsilon$ after each step of size $\alpha$: the form of
    the article (Dohare et al. 2024), after Ash & Adams 2020, who did it once per task. The article calls its
    hyperparameter the variance of the noise; its code uses it as the standard deviation, and so does this, since the
    published figures were made with that (docs/differences.md, D14).

    Args:
        weight_decay: λ ≥ 0, scaled by the optimizer's step size.
        noise_std: σ ≥ 0, standard deviation of the noise added per step.
        period: act at every n-th step only, with shrinkage and noise variance of n steps at once. Noise costs
            a draw for every weight, which for small networks exceeds the cost of the step itself.
        noise: "independent": a draw for every weight. "shared": 32,768 draws a step serve all weights, each stretch of
            so many from another place on and with another sign (after Salimans et al. 2017, whose workers share a
            table of noise). The noise of a weight is still normal and independent from step to step, and that of any
            two weights uncorrelated; what differs is of higher order, such as the spread of the squared length of
            all noise. It costs less than a tenth (docs/cost.md).
    """

    reference: ClassVar[str] = "Ash & Adams, NeurIPS 2020; Dohare et al., Nature 2024"
    cost: ClassVar[str] = "a random number for each weight"
    off: ClassVar[Mapping[str, Any]] = {"weight_decay": 0.0, "noise_std": 0.0}

    weight_decay: float = 1e-4
    noise_std: float = 1e-5
    period: int = 1
    noise: Literal["independent", "shared"] = "independent"

    def __post_init__(self) -> None:
        """Check the settings once, at the boundary."""
        check_amount(self, "weight_decay")
        check_amount(self, "noise_std")
        check_count(self, "period", least=1)
        check_choice(self, "noise", ("independent", "shared"))

    def after_step(self, moment: Moment) -> None:
        """Shrink and perturb, if this is a step to do so."""
        if moment.step % self.period or not (self.weight_decay or self.noise_std):
            return
        noise_std = self.noise_std * math.sqrt(self.period)
        values = [weight.parameter for weight in moment.weights]
        shrinks = [(1 - weight.learning_rate * self.weight_decay) ** self.period for weight in moment.weights]
        if self.noise == "shared" and noise_std:
            _perturb_by_shared_noise(values, shrinks, noise_std, moment.generator)
            return
        for value, shrink in zip(values, shrinks, strict=True):
            shrink_and_perturb(value, shrink, noise_std, moment.generator)


@dataclass(frozen=True)
class ShrinkAndPerturbAtTaskChange(WeightMethod, name="shrink-and-perturb-at-task-change"):
    r"""Shrinks and perturbs every weight once, at a task change, as Ash & Adams 2020 did.

    $\theta \leftarrow \lambda\theta + \sigma\varepsilon$, or, towards a fresh network, $\theta \leftarrow
    \lambda\theta + (1-\lambda)\varphi$, where φ is drawn from the law that each layer starts with.

    Args:
        shrink: λ in [0, 1]; 1 with no noise for none of it. Published .8 with noise; .2 towards another network, in
            the code of FIRE and of Hare & Tortoise, which both go back to the initial weights themselves.
        noise_std: σ ≥ 0, unused with `toward_fresh`. Published .01.
        toward_fresh: add a share of a fresh network in the place of noise.
    """

    reference: ClassVar[str] = "Ash & Adams, NeurIPS 2020"
    cost: ClassVar[str] = "a random number for each weight, once"
    off: ClassVar[Mapping[str, Any]] = {"shrink": 1.0, "noise_std": 0.0}
    draws: ClassVar[bool] = True

    shrink: float = 0.8
    noise_std: float = 0.01
    toward_fresh: bool = False

    def __post_init__(self) -> None:
        """Check the settings once, at the boundary."""
        check_share(self, "shrink")
        check_amount(self, "noise_std")

    def task_changed(self, moment: Moment) -> None:
        """Shrink and perturb."""
        for weight in moment.weights:
            value = weight.parameter
            if self.toward_fresh:
                value.lerp_(weight.draw(moment.generator).to(value), 1 - self.shrink)
                continue
            shrink_and_perturb(value, self.shrink, self.noise_std, moment.generator)


def shrink_and_perturb(values: Tensor, shrink: float, noise_std: float, generator: Generator) -> None:
    """Multiply values and add Gaussian noise, in place. It is drawn on the host, so that the numbers do not depend on
    the device.
    """
    for (block,) in in_blocks(values):
        block.mul_(shrink)
        if noise_std:
            noise = host.randn(block.shape, generator=generator)
            block.add_(noise.to(block, non_blocking=True), alpha=noise_std)


def _perturb_by_shared_noise(
    values: Sequence[Tensor], shrinks: Sequence[float], noise_std: float, generator: Generator
) -> None:
    """Multiply values and add noise of which blocks share the draws, in place."""
    tiles = min(_TILES, max((-(-value.numel() // _DRAWS) for value in values), default=1))
    circle = _circle(tiles, generator).mul_(noise_std)
    length = tiles * _DRAWS
    tables = {device: circle.to(device, non_blocking=True) for device in {value.device for value in values}}
    for value, shrink in zip(values, shrinks, strict=True):
        table = tables[value.device]
        count = max(1, -(-value.numel() // length))
        starts = host.randint(2 * length, (count,), generator=generator).tolist()
        if value.is_contiguous():
            for start, block in zip(starts, value.view(-1).split(length), strict=True):
                _shrink_and_add(block, shrink, table[start : start + len(block)])
        else:
            noise = torch.cat([table[start : start + length] for start in starts])
            _shrink_and_add(value, shrink, noise[: value.numel()].view(value.shape))


def _circle(tiles: int, generator: Generator) -> Tensor:
    """Lay the same draws out as tiles with random signs, then all of it with the opposite sign, and the first half once
    more, for blocks that go on beyond the end.

    Within a block, which is no longer than all tiles, two places with the same draw lie on two tiles, whose signs agree
    as often as not. Two blocks that begin anywhere see the same place as often as its opposite. So no two weights
    correlate.
    """
    circle = host.empty(3, tiles, _DRAWS)
    first, opposite, again = circle
    signs = host.randint(2, (tiles, 1), generator=generator).mul_(2).sub_(1)
    torch.mul(signs, host.randn(_DRAWS, generator=generator), out=first)
    torch.neg(first, out=opposite)
    again.copy_(first)
    return circle.view(-1)


def _shrink_and_add(values: Tensor, shrink: float, noise: Tensor) -> None:
    torch.add(noise, values, alpha=shrink, out=values)  # in one pass over the weights, which is what it costs
