"""UPGD: useful weights move little, useless ones are perturbed."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from regrow.errors import ConfigError
from regrow.methods.method import check_amount, check_choice, check_share
from regrow.methods.weight_method import Moment, Weight, WeightMethod


@dataclass(frozen=True)
class UtilityPerturbation(WeightMethod, name="upgd"):
    r"""Lets useful weights move little, and perturbs the others.

    $U \leftarrow \beta U - (1-\beta)\,g\,w$, and the gradient becomes $2\,(g+\varepsilon)\,(1-\sigma(\hat U/\max\hat
    U))$.

    With SGD that is the authors' step $w \leftarrow (1-\alpha\lambda)w - 2\alpha(g+\varepsilon)(1-\tilde U)$, whose
    decay is `L2(λ)` here. The maximum is over all weights. Under another optimizer it is a way to edit its gradients;
    the authors have an Adam form that is not that. $\hat U = U/(1-\beta^t)$. If no utility is above 0 its quotients say
    nothing, but are taken as they are, as in the authors' code.

    Args:
        noise_std: of ε, ≥ 0. Published .001.
        decay_rate: β in [0, 1). Published .999.
        maximum_of: "corrected" (default) divides Û by its own maximum, as the equation has it; "running" divides it by
            the maximum of U, as the authors' code does, so that for the first 1/(1−β) steps nearly every weight counts
            either as of full use or of none.
        strength: 1 for the method, 0 for none: what the gradient is mixed with.
    """

    reference: ClassVar[str] = "Elsayed & Mahmood, ICLR 2024"
    off: ClassVar[Mapping[str, Any]] = {"strength": 0.0}
    reads_gradients: ClassVar[bool] = True

    noise_std: float = 0.001
    decay_rate: float = 0.999
    maximum_of: Literal["corrected", "running"] = "corrected"
    strength: float = 1.0

    def __post_init__(self) -> None:
        """Check the settings once, at the boundary."""
        check_amount(self, "noise_std")
        check_share(self, "decay_rate")
        if self.decay_rate == 1:
            raise ConfigError("UtilityPerturbation.decay_rate must be less than 1: with 1 no utility would ever move.")
        check_choice(self, "maximum_of", ("corrected", "running"))
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
        of = corrected if self.maximum_of == "corrected" else [weight.state["utility"] for weight in weights]
        largest = torch.stack([utility.max() for utility in of]).max()
        largest = torch.where(largest == 0, torch.finfo(torch.float32).tiny, largest)  # 0 / 0 would be no number
        for weight, utility in zip(weights, corrected, strict=True):
            gradient = weight.parameter.grad
            assert gradient is not None
            noise = torch.randn(gradient.shape, generator=moment.generator, dtype=torch.float32).to(gradient)
            keep = 2 * (1 - torch.sigmoid(utility / largest)).to(gradient)
            gradient.lerp_((gradient + self.noise_std * noise) * keep, self.strength)
