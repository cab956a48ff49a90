"""L2 regularization towards zero."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from regrow.methods.method import check_amount
from regrow.methods.weight_method import Moment, WeightMethod


@dataclass(frozen=True)
class L2(WeightMethod, name="l2"):
    r"""Weight decay on every weight and bias that the optimizer trains.

    Decoupled (Loshchilov & Hutter 2019): $w \leftarrow (1 - \alpha\lambda)\,w$ before the step of size $\alpha$, so
    that Adam with it is AdamW. Coupled, as `weight_decay` of torch's SGD and Adam: $g \leftarrow g + \lambda w$.
    With plain SGD the two are the same step; with momentum or Adam they are not. The article decays through
    the optimizer's own `weight_decay`, which is the coupled form.

    Gains of norms decay too, which can drive them to 0 over a long run: leave norms out by `exclude=` then.

    Args:
        strength: λ ≥ 0. Published: 1e-4 (Online Permuted MNIST), 3e-6 (Continual ImageNet), 1e-3 (Ant).
        coupled: add the decay to the gradient instead of applying it to the weight.
    """

    reference: ClassVar[str] = "Loshchilov & Hutter, ICLR 2019"
    cost: ClassVar[str] = "each weight, once"
    off: ClassVar[Mapping[str, Any]] = {"strength": 0.0}

    strength: float = 1e-4
    coupled: bool = False

    def __post_init__(self) -> None:
        """Check the settings once, at the boundary."""
        check_amount(self, "strength")

    @property
    def edits_gradients(self) -> bool:
        """In the coupled form."""
        return self.coupled

    def before_step(self, moment: Moment) -> None:
        """Decay the weights, or add the decay to the gradients; parameters without a gradient are left alone."""
        if not self.strength:
            return
        for weight in moment.weights:
            value = weight.parameter
            if value.grad is None:
                continue
            if self.coupled:
                value.grad.add_(value, alpha=self.strength)
            else:
                value.mul_(1 - weight.learning_rate * self.strength)
