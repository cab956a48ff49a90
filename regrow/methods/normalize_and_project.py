"""NaP: weights keep the norms that they started with."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from regrow.methods.method import check_count
from regrow.methods.weight_method import Moment, Weight, WeightMethod


@dataclass(frozen=True)
class NormalizeAndProject(WeightMethod, name="nap"):
    r"""Keeps the norm of each hidden layer's weights as it was at attach.

    After every `period` steps $W \leftarrow W\,\lVert W_0\rVert/\lVert W\rVert$ in each hidden layer. The other half of
    the method is in the network: layer norm before every nonlinearity, and no biases. With it, the length of W changes
    nothing but the step size. The output layer is left alone, and so are layers that start at 0. Gains and biases of
    norms are projected together by the paper or decayed; here they are left to L2. Second-hand, and from a port: the
    authors have no public code.

    Args:
        period: in optimizer steps; 0 for never. Published: 1 and 1000 give the same result.
    """

    reference: ClassVar[str] = "Lyle et al., NeurIPS 2024"
    cost: ClassVar[str] = "each weight, twice"
    off: ClassVar[Mapping[str, Any]] = {"period": 0}
    needs_units: ClassVar[bool] = True
    takes_whole: ClassVar[bool] = True

    period: int = 1

    def __post_init__(self) -> None:
        """Check the settings once, at the boundary."""
        check_count(self, "period")

    def initial_state(self, weight: Weight) -> dict[str, Tensor]:
        """The norm at attach."""
        return {"norm": _norm(weight.parameter)} if self._projects(weight) else {}

    def after_step(self, moment: Moment) -> None:
        """Project, if this is a step to do so."""
        if not self.period or moment.step % self.period:
            return
        for weight in moment.weights:
            if self._projects(weight):
                norm = _norm(weight.parameter).clamp(min=1e-12)
                # A layer that starts at 0 has no norm to keep.
                factor = torch.where(weight.state["norm"] > 0, weight.state["norm"] / norm, 1.0)
                weight.parameter.mul_(factor.to(weight.parameter))

    def _projects(self, weight: Weight) -> bool:
        return weight.role == "matrix" and weight.layer != 0


def _norm(parameter: Tensor) -> Tensor:
    norm: Tensor = parameter.norm(dtype=torch.promote_types(parameter.dtype, torch.float32))
    return norm
