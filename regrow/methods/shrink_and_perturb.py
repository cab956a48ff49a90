"""Shrink and perturb: weight decay and noise."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Generator, Tensor

from regrow.methods.method import check_amount, check_count, check_share
from regrow.methods.weight_method import Moment, WeightMethod
from regrow.units.blocks import in_blocks


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
    """

    reference: ClassVar[str] = "Ash & Adams, NeurIPS 2020; Dohare et al., Nature 2024"
    cost: ClassVar[str] = "a random number for each weight"
    off: ClassVar[Mapping[str, Any]] = {"weight_decay": 0.0, "noise_std": 0.0}

    weight_decay: float = 1e-4
    noise_std: float = 1e-5
    period: int = 1

    def __post_init__(self) -> None:
        """Check the settings once, at the boundary."""
        check_amount(self, "weight_decay")
        check_amount(self, "noise_std")
        check_count(self, "period", least=1)

    def after_step(self, moment: Moment) -> None:
        """Shrink and perturb, if this is a step to do so."""
        if moment.step % self.period or not (self.weight_decay or self.noise_std):
            return
        noise_std = self.noise_std * math.sqrt(self.period)
        for weight in moment.weights:
            shrink = (1 - weight.learning_rate * self.weight_decay) ** self.period
            shrink_and_perturb(weight.parameter, shrink, noise_std, moment.generator)


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
            noise = torch.randn(block.shape, generator=generator, dtype=torch.float32)
            block.add_(noise.to(block, non_blocking=True), alpha=noise_std)
