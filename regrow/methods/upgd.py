"""UPGD: useful weights move little, useless ones are perturbed."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from regrow.methods.method import check_amount, check_share
from regrow.methods.weight_method import Moment, Weight, WeightMethod


@dataclass(frozen=True)
class UtilityPerturbation(WeightMethod, name="upgd"):
    r"""$U \leftarrow \beta U - (1-\beta)\,g\,w$, and the gradient becomes $2\,(g+\varepsilon)\,(1-\sigma(\hat
    U/\max\hat U))$.

    With SGD that is the authors' step $w \leftarrow (1-\alpha\lambda)w - 2\alpha(g+\varepsilon)(1-\tilde U)$, whose
    decay is `L2(λ)` here. The maximum is over all weights. Under another optimizer it is a way to edit its gradients;
    the authors have an Adam form that is not that.

    Args:
        noise_std: of ε, ≥ 0. Published .001.
        decay_rate: β in [0, 1). Published .999.
        strength: 1 for the method, 0 for none: what the gradient is mixed with.
    """

    reference: ClassVar[str] = "Elsayed & Mahmood, ICLR 2024"

    noise_std: float = 0.001
    decay_rate: float = 0.999
    strength: float = 1.0

    def __post_init__(self) -> None:
        """Check the settings once, at the boundary."""
        check_amount(self, "noise_std")
        check_share(self, "decay_rate")
        check_share(self, "strength")

    def initial_state(self, weight: Weight) -> dict[str, Tensor]:
        """The running utility, and how many steps it has seen."""
        return {"utility": torch.zeros_like(weight.parameter, dtype=torch.float32), "steps": torch.zeros(())}

    def before_step(self, moment: Moment) -> None:
        """Edit the gradients; parameters without one are left alone."""
        weights = [weight for weight in moment.weights if weight.parameter.grad is not None] if self.strength else []
        for weight in weights:
            gradient = weight.parameter.grad
            assert gradient is not None
            weight.state["utility"].lerp_(-(gradient * weight.parameter).float(), 1 - self.decay_rate)
            weight.state["steps"].add_(1)
        if not weights:
            return
        corrected = [weight.state["utility"] / (1 - self.decay_rate ** weight.state["steps"]) for weight in weights]
        largest = torch.stack([utility.max() for utility in corrected]).max()
        for weight, utility in zip(weights, corrected, strict=True):
            gradient = weight.parameter.grad
            assert gradient is not None
            noise = torch.randn(gradient.shape, generator=moment.generator, dtype=torch.float32).to(gradient)
            keep = 2 * (1 - torch.sigmoid(utility / largest)).to(gradient)
            gradient.lerp_((gradient + self.noise_std * noise) * keep, self.strength)
