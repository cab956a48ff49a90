"""L2 regularization towards the initial weights."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from regrow.methods.method import check_amount, check_count
from regrow.methods.weight_method import Moment, Weight, WeightMethod
from regrow.units.blocks import in_blocks


@dataclass(frozen=True)
class L2Init(WeightMethod, name="l2-init"):
    r"""Decays all parameters towards their initial values.

    Adds $\lambda\lVert\theta-\theta_0\rVert^2$ to the loss: $g \leftarrow g + 2\lambda(\theta-\theta_0)$. θ0 are the
    weights at attach, which the paper finds better than a fresh draw or the L1 norm. All parameters count, biases and
    gains too.

    Decoupled, after Loshchilov & Hutter 2019: $\theta \leftarrow \theta - 2\alpha\lambda(\theta-\theta_0)$ before the
    step of size $\alpha$. With plain SGD the two are the same step; with momentum or Adam they are not. It costs
    half as much (docs/cost.md).

    Args:
        strength: λ ≥ 0. Published 1e-2 to 1e-5, in the loss; .01 with PPO.
        period: act at every n-th step only, n times as strong, since reading weights, initial weights and gradients
            costs a good part of a step on small batches (docs/cost.md). Nearly the same with SGD, while λ times the
            step size times n is far below 1; less so with optimizers that divide by how large gradients are.
        decoupled: pull the weights instead of their gradients.
    """

    reference: ClassVar[str] = "Kumar et al., CoLLAs 2025"
    cost: ClassVar[str] = "each weight, its gradient and what it was"
    off: ClassVar[Mapping[str, Any]] = {"strength": 0.0}

    strength: float = 1e-3
    period: int = 1
    decoupled: bool = False

    def __post_init__(self) -> None:
        """Check the settings once, at the boundary."""
        check_amount(self, "strength")
        check_count(self, "period", least=1)

    def initial_state(self, weight: Weight) -> dict[str, Tensor]:
        """The initial weights."""
        return {"initial": weight.parameter.detach().clone()}

    @property
    def edits_gradients(self) -> bool:
        """Unless it is decoupled."""
        return not self.decoupled

    def before_step(self, moment: Moment) -> None:
        """Pull the weights, or add the penalty's gradient, if this is a step to do so; parameters without a gradient
        are left alone.
        """
        if moment.step % self.period:
            return
        pull = 2 * self.strength * self.period
        for weight in moment.weights if self.strength else ():
            value, start = weight.parameter, weight.state["initial"]
            if value.grad is None:
                continue
            if self.decoupled:
                value.lerp_(start, weight.learning_rate * pull)
                continue
            for gradient, present, initial in in_blocks(value.grad, value, start):
                gradient.add_(present - initial, alpha=pull)
