"""FIRE: at a task change, every matrix becomes the orthogonal one that is nearest to it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from regrow.errors import ConfigError
from regrow.methods.method import check_count
from regrow.methods.weight_method import Moment, Weight, WeightMethod


@dataclass(frozen=True)
class FIRE(WeightMethod, name="fire"):
    r"""Makes every matrix the nearest orthogonal one at a task change.

    $W \leftarrow \mathrm{polar}(W)\,\sqrt{d_{out}/d_{in}}\,/\,k^2$, where the polar factor comes from the Newton–Schulz
    iteration $X \leftarrow 1.5X - 0.5XX^\top X$, from $W/\lVert W\rVert_F$. In a convolution each of the $k^2$ taps is
    a matrix of its own, with out and in exchanged where it is transposed; one in groups counts as [out, in of a group],
    as there. As in the authors' code for convolutional networks (isaac7778/FIRE), which takes every convolution and
    linear layer, the output too; for ViT it takes only q and k, which `include=` can say where they are modules. Packed
    matrices (`in_proj_weight`, the gates of recurrent layers) count as one.

    Args:
        iterations: of Newton and Schulz; 0 for none of it. Published 10, 5 for GPT.
        skip_output: leave the output layer as it is.
    """

    reference: ClassVar[str] = "Han et al., ICLR 2026"
    cost: ClassVar[str] = "products of each matrix with itself, once"
    off: ClassVar[Mapping[str, Any]] = {"iterations": 0}
    needs_units: ClassVar[bool] = True
    takes_whole: ClassVar[bool] = True

    iterations: int = 10
    skip_output: bool = False

    def __post_init__(self) -> None:
        """Check the settings once, at the boundary."""
        check_count(self, "iterations")

    def check(self, weights: Sequence[Weight]) -> None:
        """Refuse tied weights: a matrix that is also a table would have its rows changed with it."""
        for weight in weights:
            if weight.is_tied and (weight.role == "table" or weight.layer == 0):
                raise ConfigError(
                    f"FIRE cannot take {weight.name}, which the model has in several places (tied weights): the table "
                    "would be made orthogonal with the output layer. Leave its module out (exclude=), or untie it."
                )

    def task_changed(self, moment: Moment) -> None:
        """Make matrices orthogonal."""
        for weight in moment.weights if self.iterations else ():
            if weight.role == "matrix" and not (self.skip_output and weight.layer == 0):
                taps = weight.parameter.flatten(2) if weight.parameter.dim() > 2 else weight.parameter[..., None]
                whole = torch.stack([self._polar(tap) for tap in taps.unbind(2)], dim=2) / taps.size(2)
                scale = math.sqrt(taps.size(0) / taps.size(1)) ** (-1 if weight.inputs_first else 1)
                weight.parameter.copy_((scale * whole).view_as(weight.parameter))

    def _polar(self, matrix: Tensor) -> Tensor:
        found = matrix.float() / matrix.float().norm().clamp(min=1e-12)
        if len(found) > found.size(1):
            return self._iterate(found.T).T
        return self._iterate(found)

    def _iterate(self, found: Tensor) -> Tensor:
        for _ in range(self.iterations):
            found = 1.5 * found - 0.5 * found @ found.T @ found
        return found
