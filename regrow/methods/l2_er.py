"""L2-ER: weight decay, and steps towards features of higher effective rank."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from regrow.errors import ModelError
from regrow.methods.method import check_amount, check_count
from regrow.methods.weight_method import Moment, WeightMethod


@dataclass(frozen=True)
class L2ER(WeightMethod, name="l2-er"):
    r"""Decays weights, and raises the effective rank of features.

    Every `period` steps, one step of plain gradient ascent on the mean effective rank of the layers: $\mathrm{erank}(H)
    = \exp(-\sum_i p_i\log p_i)$ with $p_i = \sigma_i/\sum\sigma$ over the singular values of the activations H of the
    last examples (Roy & Vetterli 2007). As in the authors' code (KevinGuo27/lop-jax), where the rank alone, without the
    decay, fails everywhere. There: after every 100 examples, all layers, batch 1. Data-parallel ranks climb the mean of
    their effective ranks.

    Args:
        strength: λ ≥ 0 of the decay, decoupled as in `L2`. Published 1e-3 to 1e-5.
        rank_rate: step size of the ascent, ≥ 0. Published 1e-2 to 1e-4; 1e-5 on Continual ImageNet.
        period: in optimizer steps.
        examples: at least so many inputs are looked at: fewer than a layer has units bound its rank.
    """

    reference: ClassVar[str] = "Prakash et al., ICML 2026"
    cost: ClassVar[str] = "each weight, once; a decomposition of features at an act"
    off: ClassVar[Mapping[str, Any]] = {"strength": 0.0, "rank_rate": 0.0}
    brisk: ClassVar[Mapping[str, Any]] = {"period": 5, "examples": 16}
    needs_units: ClassVar[bool] = True

    strength: float = 1e-4
    rank_rate: float = 1e-3
    period: int = 100
    examples: int = 100

    def __post_init__(self) -> None:
        """Check the settings once, at the boundary."""
        check_amount(self, "strength")
        check_amount(self, "rank_rate")
        check_count(self, "period", least=1)
        check_count(self, "examples", least=1)

    @property
    def feature_examples(self) -> int:
        """Inputs to keep."""
        return self.examples if self.rank_rate else 0

    def before_step(self, moment: Moment) -> None:
        """Decay; parameters without a gradient are left alone."""
        for weight in moment.weights if self.strength else ():
            if weight.parameter.grad is not None:
                weight.parameter.mul_(1 - weight.learning_rate * self.strength)

    def after_step(self, moment: Moment) -> None:
        """Climb, if this is a step to do so."""
        if not self.rank_rate or moment.step % self.period:
            return
        parameters = [weight.parameter for weight in moment.weights]
        with torch.enable_grad():
            ranks = [effective_rank(features) for features in moment.features()]
            if not ranks:
                raise ModelError("L2-ER found no hidden units whose activation a module sees: no rank can be raised.")
            rank = torch.stack(ranks).mean()
            found = torch.autograd.grad(rank, parameters, allow_unused=True)
        gradients = moment.over_ranks(found)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            if gradient is not None and bool(gradient.isfinite().all()):
                parameter.add_(gradient, alpha=self.rank_rate)


def effective_rank(features: Tensor) -> Tensor:
    """exp of the entropy of the singular values of a matrix (examples, units), with autograd."""
    values = torch.linalg.svdvals(features.float())
    shares = values / (values.sum() + 1e-8)
    return torch.exp(-(shares * torch.log(shares + 1e-8)).sum())
