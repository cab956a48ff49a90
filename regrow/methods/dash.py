"""DASH: at a task change, weights shrink by how little they agree with what the new data want."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from regrow.errors import ConfigError
from regrow.methods.method import check_share
from regrow.methods.weight_method import Moment, Weight, WeightMethod


@dataclass(frozen=True)
class DASH(WeightMethod, name="dash"):
    r"""Shrinks weights at a task change, by how little they agree with what the new data want.

    Each row w of weights is multiplied with $\mathrm{clamp}(\cos(G, w),\,\lambda,\,1)$, where $G \leftarrow
    (1-\alpha)\,G - \alpha\nabla L$ over the batches of the new data, which `task_changed(losses)` gets. A convolution's
    rows are its kernels, one for each pair of output and input; a bias is one row. Parameters that the losses do not
    depend on are left alone, and a layer that a parametrization computes is refused: the factors of weight norm, for
    one, are at right angles to their gradients. The losses' forwards do not count as training. Data-parallel ranks take
    the mean of their G.

    Args:
        momentum: α in [0, 1]. Published .1 or .3.
        least: λ in [0, 1], below which nothing shrinks; 1 for no shrinking. Tuned .05 to .3 in the code of FIRE.
    """

    reference: ClassVar[str] = "Shin et al., NeurIPS 2024"
    cost: ClassVar[str] = "gradients of the new data, once"
    off: ClassVar[Mapping[str, Any]] = {"least": 1.0}
    reads_gradients: ClassVar[bool] = True
    takes_whole: ClassVar[bool] = True

    momentum: float = 0.3
    least: float = 0.3

    def __post_init__(self) -> None:
        """Check the settings once, at the boundary."""
        check_share(self, "momentum")
        check_share(self, "least")

    def task_changed(self, moment: Moment) -> None:
        """Shrink."""
        if self.least == 1:
            return
        if moment.losses is None:
            raise ConfigError(
                "DASH looks at the gradients of the new data: give task_changed() their losses, one per batch, as in "
                "plastic.task_changed(loss(model(x), y) for x, y in loader)."
            )
        wanted = moment.over_ranks(self._wanted(moment.weights, moment.losses))
        for weight, direction in zip(moment.weights, wanted, strict=True):
            if direction is None:
                continue
            dims = 2 if weight.parameter.dim() > 2 else weight.parameter.dim() - 1
            rows, like = weight.parameter.flatten(dims), direction.flatten(dims)
            agreement = functional.cosine_similarity(rows.to(like), like, dim=-1).clamp(self.least, 1.0).to(rows)
            weight.parameter.copy_((rows * agreement[..., None]).view_as(weight.parameter))

    def _wanted(self, weights: Sequence[Weight], losses: Iterable[Tensor]) -> list[Tensor | None]:
        parameters = [weight.parameter for weight in weights]
        wanted: list[Tensor | None] = [None] * len(parameters)
        with torch.enable_grad():
            for loss in losses:
                if not isinstance(loss, Tensor) or not loss.requires_grad:
                    raise ConfigError(f"DASH needs losses with autograd, one number for each batch, but got {loss!r}.")
                gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
                for place, (running, gradient) in enumerate(zip(wanted, gradients, strict=True)):
                    if gradient is not None:
                        # In half precision, small gradients and their norms would be rounded to 0.
                        gradient = gradient.to(torch.promote_types(gradient.dtype, torch.float32))
                        running = torch.zeros_like(gradient) if running is None else running
                        wanted[place] = running.lerp(-gradient, self.momentum)
        if all(direction is None for direction in wanted):
            raise ConfigError("DASH was given losses that depend on no weight, or none: task_changed() needs some.")
        return wanted
