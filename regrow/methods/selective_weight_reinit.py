"""Selective weight reinitialization: the least useful single weights are drawn anew."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Generator, Tensor

from regrow.methods.method import check_choice, check_count, check_share
from regrow.methods.weight_method import Moment, WeightMethod
from regrow.units import host


@dataclass(frozen=True)
class SelectiveWeightReinit(WeightMethod, name="swr"):
    r"""Draws single weights of low utility anew, every `period` steps.

    The utility is $|w\,\partial L/\partial w|$, and each tensor is looked at apart. Biases and gains are drawn from
    their own first law: a constant where they start as one. The optimizer's state stays. w is the weight after the
    step, its gradient that of the step. Rule and defaults as in the authors' code (JFernando4/collas_2025_swr_paper),
    where the "threshold" is an option beside the share, and a running mean of the utility another, which is left out
    here. The utility contains |w|, so that the newest weights, being small, are picked again and again: overlap of
    successive picks above 90 % went with failure in every case (second-hand, thesis). `Attachment.metrics` gives it as
    `swr/overlap`, and as `swr/last_share` how much the last pick took, which "threshold" does not bound.

    Args:
        share: ρ in [0, 1]. Published 1e-5 with `period` 2048 (MLP, SGD .05); 5e-4 with 128 (ViT).
        period: τ in optimizer steps.
        selection: "share" re-draws the lowest ρ·n, the fraction by lot; "threshold" those with at most ρ times the
            mean.
    """

    reference: ClassVar[str] = "Hernandez-Garcia et al., CoLLAs 2025"
    cost: ClassVar[str] = "nothing between acts; then weights are sorted"
    off: ClassVar[Mapping[str, Any]] = {"share": 0.0}
    brisk: ClassVar[Mapping[str, Any]] = {"share": 0.02, "period": 4}
    draws: ClassVar[bool] = True
    reads_gradients: ClassVar[bool] = True

    share: float = 1e-5
    period: int = 2048
    selection: Literal["share", "threshold"] = "share"

    def __post_init__(self) -> None:
        """Check the settings once, at the boundary."""
        check_share(self, "share")
        check_count(self, "period", least=1)
        check_choice(self, "selection", ("share", "threshold"))

    def after_step(self, moment: Moment) -> None:
        """Re-draw, if this is a step to do so; parameters without a gradient are left alone."""
        if moment.step % self.period or not self.share:
            return
        for weight in moment.weights:
            value = weight.parameter
            if value.grad is not None:
                utility = (value * value.grad).abs().flatten().float()
                picked = self._chosen(utility, moment.generator)
                weight.picks.take(picked)
                chosen = torch.zeros_like(utility, dtype=torch.bool)
                chosen[picked] = True
                fresh = weight.draw(moment.generator).to(value, non_blocking=True)
                value.copy_(torch.where(chosen.view_as(value), fresh, value))

    def _chosen(self, utility: Tensor, generator: Generator) -> Tensor:
        if self.selection == "threshold":
            return (utility <= self.share * utility.mean()).nonzero().flatten()
        whole, part = divmod(self.share * len(utility), 1)
        count = int(whole) + int(host.rand((), generator=generator).item() < part)
        return utility.argsort(stable=True)[:count]
