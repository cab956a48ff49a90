"""UPGD: useful weights move little, useless ones are perturbed."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from regrow.errors import ConfigError
from regrow.methods.method import check_amount, check_choice, check_share
from regrow.methods.weight_method import Moment, Weight, WeightMethod
from regrow.units import host
from regrow.units.blocks import in_blocks


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
    cost: ClassVar[str] = "a random number and a running mean for each weight"
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
        return {"utility": torch.zeros_like(weight.parameter, dtype=torch.float32), "steps": host.zeros(())}

    @property
    def edits_gradients(self) -> bool:
        """Yes."""
        return True

    def before_step(self, moment: Moment) -> None:
        """Edit the gradients; parameters without one are left alone."""
        weights = [weight for weight in moment.weights if weight.parameter.grad is not None] if self.strength else []
        largest = [self._follow(weight) for weight in weights]
        if not weights:
            return
        divisor = torch.stack(largest).max()
        divisor = torch.where(divisor == 0, torch.finfo(torch.float32).tiny, divisor)  # 0 / 0 would be no number
        for weight in weights:
            gradients, correction = weight.parameter.grad, self._correction(weight)
            assert gradients is not None
            for gradient, utility in in_blocks(gradients, weight.state["utility"]):
                noise = host.randn(gradient.shape, generator=moment.generator)
                noise = noise.to(gradient, non_blocking=True)
                keep = 2 * (1 - torch.sigmoid(utility / correction / divisor)).to(gradient)
                gradient.lerp_((gradient + self.noise_std * noise) * keep, self.strength)

    def _follow(self, weight: Weight) -> Tensor:
        """One step of the running utility; the largest one, of those by which utilities are divided."""
        assert weight.parameter.grad is not None
        for utility, value, gradient in in_blocks(weight.state["utility"], weight.parameter, weight.parameter.grad):
            utility.lerp_(-(gradient * value).float(), 1 - self.decay_rate)
        weight.state["steps"].add_(1)
        largest = weight.state["utility"].max()
        return largest / self._correction(weight) if self.maximum_of == "corrected" else largest

    def _correction(self, weight: Weight) -> Tensor:
        correction: Tensor = 1 - self.decay_rate ** weight.state["steps"]
        return correction
