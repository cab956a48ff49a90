"""Hare and Tortoise: a fast network that learns, and a slow one that it falls back to."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from regrow.methods.method import check_count, check_share
from regrow.methods.weight_method import Moment, Weight, WeightMethod


@dataclass(frozen=True)
class HareAndTortoise(WeightMethod, name="hare-and-tortoise"):
    r"""Goes back to a slow copy of the weights every `period` steps.

    Each step $\theta_{slow} \leftarrow m\,\theta_{slow} + (1-m)\,\theta$; every `period` steps $\theta \leftarrow
    \theta_{slow}$. The optimizer's state stays. The slow weights are what is to be evaluated: `with
    plastic.evaluation_weights(): ...`. As in the authors' code (dojeon-ai/Hare-Tortoise), but for buffers such as
    running statistics, which stay here.

    Args:
        momentum: m in [0, 1]. Published .999.
        period: in optimizer steps; 0 for never. Published: 10 epochs.
    """

    reference: ClassVar[str] = "Lee et al., ICML 2024"
    cost: ClassVar[str] = "each weight and its slow copy"
    off: ClassVar[Mapping[str, Any]] = {"period": 0}
    brisk: ClassVar[Mapping[str, Any]] = {"period": 5, "momentum": 0.9}
    evaluated: ClassVar[str | None] = "slow"

    momentum: float = 0.999
    period: int = 10_000

    def __post_init__(self) -> None:
        """Check the settings once, at the boundary."""
        check_share(self, "momentum")
        check_count(self, "period")

    def initial_state(self, weight: Weight) -> dict[str, Tensor]:
        """The slow copy, in float32 at least: in half precision a step of 1 − m would be rounded away."""
        wide = torch.promote_types(weight.parameter.dtype, torch.float32)
        return {"slow": weight.parameter.detach().to(wide, copy=True)}

    def after_step(self, moment: Moment) -> None:
        """Let the slow copy follow, and fall back to it if this is a step to do so."""
        for weight in moment.weights:
            slow = weight.state["slow"]
            slow.lerp_(weight.parameter.to(slow), 1 - self.momentum)
            if self.period and moment.step % self.period == 0:
                weight.parameter.copy_(slow)
