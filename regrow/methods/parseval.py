"""Parseval regularization: keeps the rows of hidden weights orthogonal."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from regrow.methods.method import check_amount
from regrow.methods.weight_method import Moment, WeightMethod


@dataclass(frozen=True)
class ParsevalPenalty(WeightMethod, name="parseval"):
    r"""Pulls the rows of hidden weights towards orthogonal ones.

    Adds $\lambda\sum_l\lVert W_lW_l^\top - sI\rVert_F^2$ of the hidden layers to the loss; its gradient is
    $4\lambda(WW^\top - sI)W$.

    A convolution counts as the matrix [out, in · places]. A matrix with more rows than columns cannot have orthogonal
    rows: here its columns are taken, where published code takes the rows of every matrix, so that they only shrink. The
    optional diagonal layers of the paper are for the user to put in.

    Args:
        strength: λ ≥ 0. Published 1e-3 (MetaWorld) and 1e-4, times (64/width)²; 1e-3 to 1e-5 in vision.
        scale: s: the published code has the square of the initial gain (2 for ReLU), many retellings 1. The code's is
            the default, since with it a hidden layer of ReLU passes on as much as it gets.
    """

    reference: ClassVar[str] = "Chung et al., NeurIPS 2024"
    cost: ClassVar[str] = "a product of each matrix with itself"
    off: ClassVar[Mapping[str, Any]] = {"strength": 0.0}
    needs_units: ClassVar[bool] = True
    takes_whole: ClassVar[bool] = True

    strength: float = 1e-4
    scale: float = 2.0

    def __post_init__(self) -> None:
        """Check the settings once, at the boundary."""
        check_amount(self, "strength")
        check_amount(self, "scale")

    @property
    def edits_gradients(self) -> bool:
        """Yes."""
        return True

    def before_step(self, moment: Moment) -> None:
        """Add the penalty's gradient; parameters without a gradient, and the output layer, are left alone."""
        for weight in moment.weights if self.strength else ():
            if weight.role == "matrix" and weight.layer != 0 and weight.parameter.grad is not None:
                gradient = self._gradient(weight.parameter.flatten(1).float())
                weight.parameter.grad.add_(gradient.view_as(weight.parameter), alpha=self.strength)

    def _gradient(self, matrix: Tensor) -> Tensor:
        if matrix.size(0) > matrix.size(1):
            return self._gradient(matrix.T).T
        identity = torch.eye(len(matrix), dtype=matrix.dtype, device=matrix.device)
        return 4 * (matrix @ matrix.T - self.scale * identity) @ matrix
