"""Spectral regularization: keeps the largest singular value of every layer near 1."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from regrow.methods.method import check_amount, check_count
from regrow.methods.weight_method import Moment, Weight, WeightMethod
from regrow.units import host
from regrow.units.blocks import in_blocks


@dataclass(frozen=True)
class SpectralPenalty(WeightMethod, name="spectral-penalty"):
    r"""Pulls the largest singular value of every layer towards 1.

    Adds $\lambda\sum_l[(\sigma_{max}(W_l)^k - t)^2 + \lVert b_l\rVert^k + (\gamma_l - 1)^2]$ to the loss.

    One power iteration per step follows the singular vectors; the gradient of σ is $uv^\top$. A convolution counts as
    the matrix [out, in · places]. Equation second-hand, from a survey, with t = 1; a port of it takes σ² towards 2 (t =
    2), ten iterations and the square of the bias norm. The form of the term for the gains γ of norms is ours: the
    source says only that they go towards 1.

    Args:
        strength: λ ≥ 0. Searched in the port from 1e-2 to 1e-4.
        power: k ≥ 1. Published 2.
        target: t.
        iterations: power iterations per step.
    """

    reference: ClassVar[str] = "Lewandowski et al., ICLR 2025"
    cost: ClassVar[str] = "products of each matrix with vectors; each gradient, once"
    off: ClassVar[Mapping[str, Any]] = {"strength": 0.0}
    takes_whole: ClassVar[bool] = True

    strength: float = 1e-3
    power: int = 2
    target: float = 1.0
    iterations: int = 1

    def __post_init__(self) -> None:
        """Check the settings once, at the boundary."""
        for setting in ("strength", "target"):
            check_amount(self, setting)
        for setting in ("power", "iterations"):
            check_count(self, setting, least=1)

    def initial_state(self, weight: Weight) -> dict[str, Tensor]:
        """A right singular vector to start from: the same for every run, since what matters is where it goes."""
        if weight.role != "matrix":
            return {}
        width = weight.parameter.flatten(1).size(1)
        start = host.randn(width, generator=torch.Generator().manual_seed(0))
        return {"right": (start / start.norm()).to(weight.parameter.device)}

    @property
    def edits_gradients(self) -> bool:
        """Yes."""
        return True

    def before_step(self, moment: Moment) -> None:
        """Add the penalty's gradient; parameters without a gradient are left alone."""
        for weight in moment.weights if self.strength else ():
            value = weight.parameter
            if value.grad is None:
                continue
            if weight.role == "matrix":
                slope, left = self._slope(weight)
                for gradient, rows in in_blocks(value.grad, left):
                    penalty = slope * torch.outer(rows, weight.state["right"])
                    gradient.add_(penalty.view_as(gradient).to(gradient), alpha=self.strength)
            elif weight.role == "gain":
                value.grad.add_(value - 1, alpha=2 * self.strength)
            elif weight.role == "bias":
                norm = value.norm().clamp(min=1e-12)
                value.grad.add_(value * norm ** (self.power - 2), alpha=self.strength * self.power)

    def _slope(self, weight: Weight) -> tuple[Tensor, Tensor]:
        """The derivative of the penalty by σ, and the left singular vector; the right one is in the state."""
        matrix, right = weight.parameter.flatten(1).float(), weight.state["right"]
        for _ in range(self.iterations):
            left = torch.nn.functional.normalize(matrix @ right, dim=0)
            right.copy_(torch.nn.functional.normalize(left @ matrix, dim=0))
        sigma = left @ (matrix @ right)
        return 2 * (sigma**self.power - self.target) * self.power * sigma ** (self.power - 1), left
