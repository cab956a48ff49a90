"""Continual backpropagation: the remedy of the article."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import torch
from torch import Generator, Tensor

from regrow.errors import ConfigError
from regrow.methods.method import Variant, check_choice, check_share
from regrow.methods.unit_method import QuotaMethod, Readings, Statistic
from regrow.units import host


@dataclass(frozen=True)
class ContinualBackprop(QuotaMethod, name="cbp"):
    r"""Re-draws a tiny share of the least useful hidden units after each step (Dohare et al., Nature 632, 2024).

    The utility of Eq. 1, averaged over the batch and corrected for the age $a$ of the running mean as in the
    published code:
    $u \leftarrow \eta u + (1-\eta)\,\overline{|h|}\,\sum_k|w_{out,k}|$, ranked by $u/(1-\eta^{a})$.

    `utility_rule="adaptable_contribution"` is the one that the published code uses for Online Permuted MNIST,
    Continual ImageNet and Slowly-Changing Regression (arXiv 2108.06325): the new term is
    $\overline{|h-\hat f|}\,\sum|w_{out}|/\sum|w_{in}|$ with $\hat f$ the corrected running mean of $h$, this batch
    included. Sums stand where the code has means, which changes no ranking within a layer.

    `utility_rule="first_order"` averages $|\sum_k w_{out,k}\,\partial L/\partial w_{out,k}|$, with the gradient of the
    step: what removing the unit would do to the loss, to first order. It needs no activation, so under every rule it
    ranks the groups whose activation no module sees. It reads all outgoing weights at every step. Second-hand, from a
    thesis on permuted MNIST: as good as the contribution on ReLU, and better on tanh, where saturated units look useful
    by their activation.

    Args:
        decay_rate: η in [0, 1); 0 uses the utility of the moment.
        utility_rule: "contribution" (Eq. 1), "adaptable_contribution" or "first_order".
        weight_sums: "when_due" (default) averages the activations and multiplies them by the weight sums of the
            moment when a replacement is due, which costs almost nothing; "each_step" averages the product, as
            Eq. 1 has it and the studies do. On permuted digits the two keep the same accuracy (docs/studies).
    """

    reference: ClassVar[str] = "Dohare et al., Nature 2024"
    cost: ClassVar[str] = "each activation, once; sums of weights when a unit is due"
    off: ClassVar[Mapping[str, Any]] = {"replacement_rate": 0.0}
    brisk: ClassVar[Mapping[str, Any]] = {"replacement_rate": 0.02, "maturity_threshold": 4}
    variants: ClassVar[Mapping[str, Variant]] = {
        "cbp-first-order": Variant(
            {"utility_rule": "first_order"},
            "The same, by what removing a unit would do to the loss, to first order.",
            "outgoing weights and their gradients, once",
        )
    }

    decay_rate: float = 0.99
    utility_rule: Literal["contribution", "adaptable_contribution", "first_order"] = "contribution"
    weight_sums: Literal["when_due", "each_step"] = "when_due"

    @property
    def needs(self) -> Statistic:
        """Deviations from a mean that includes this batch cannot be summed on the way."""
        if self.utility_rule == "first_order":
            return "first_order"
        return "activations" if self._adaptable else "mean_abs"

    def without_taps(self) -> "ContinualBackprop":
        """The same, by gradients."""
        return replace(self, utility_rule="first_order")

    def __post_init__(self) -> None:
        """Check the settings once, at the boundary."""
        super().__post_init__()
        check_share(self, "decay_rate")
        if self.decay_rate == 1:
            raise ConfigError("ContinualBackprop.decay_rate must be less than 1: with 1 no utility would ever move.")
        check_choice(self, "utility_rule", ("contribution", "adaptable_contribution", "first_order"))
        check_choice(self, "weight_sums", ("when_due", "each_step"))

    @property
    def _adaptable(self) -> bool:
        return self.utility_rule == "adaptable_contribution"

    def initial_state(self, taps: int, size: int) -> dict[str, Tensor]:
        """Running means: of the contribution, or of the activation at each tap."""
        if self.needs == "first_order":
            return {"first_order": host.zeros(size)}
        each_step = self.weight_sums == "each_step"
        state = {"contribution": host.zeros(size)} if each_step else {"activation": host.zeros(taps, size)}
        if self._adaptable:
            state["mean_activation"] = host.zeros(taps, size)
        return state

    def observe(self, readings: Readings, state: dict[str, Tensor], age: Tensor) -> None:
        """One step of the running means; a reading that is not finite is left out of them."""
        if self.needs == "first_order":
            running, new = state["first_order"], readings.first_order().abs()
        else:
            activity = torch.stack(self._deviation(readings, state, age) if self._adaptable else readings.mean_abs())
            if self.weight_sums == "each_step":
                running, new = state["contribution"], self._weigh(readings, activity)
            else:
                running, new = state["activation"], activity
        finite = new.isfinite()
        running.lerp_(torch.where(finite, new, running), 1 - self.decay_rate)
        readings.distrust(~finite if new.dim() == 1 else ~finite.all(dim=0))

    def utility(self, readings: Readings, state: dict[str, Tensor], age: Tensor, generator: Generator) -> Tensor:
        """The corrected running mean, weighed now unless that was done at each step."""
        correction = 1 - self.decay_rate ** age.float()
        if self.needs == "first_order":
            return state["first_order"] / correction
        if self.weight_sums == "each_step":
            return state["contribution"] / correction
        return self._weigh(readings, state["activation"] / correction)

    def _deviation(self, readings: Readings, state: dict[str, Tensor], age: Tensor) -> list[Tensor]:
        batches = readings.activations()
        running = state["mean_activation"]
        means = torch.stack([batch.mean(dim=0) for batch in batches])
        running.lerp_(torch.where(means.isfinite(), means, running), 1 - self.decay_rate)
        expected = running / (1 - self.decay_rate ** age.float())
        return [(batch - mean).abs().mean(dim=0) for batch, mean in zip(batches, expected, strict=True)]

    def _weigh(self, readings: Readings, activity: Tensor) -> Tensor:
        utility = (activity * torch.stack(readings.outgoing())).sum(dim=0)
        return utility / readings.incoming() if self._adaptable else utility
