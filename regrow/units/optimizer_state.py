"""What an optimizer remembers of a parameter's elements."""

from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from regrow.errors import ModelError
from regrow.units.refusals import has_own_form


def state_of(optimizer: Optimizer, parameter: Tensor) -> dict[str, Any]:
    """All that it remembers of a parameter, by name; nothing as long as it has made no step.

    ZeroRedundancyOptimizer has that in an optimizer within, which holds the parameters of this rank only.
    """
    within = getattr(optimizer, "optim", None)
    found: dict[str, Any] = (within if isinstance(within, Optimizer) else optimizer).state.get(parameter, {})
    return found


def remembered(optimizer: Optimizer, parameter: Tensor, name: str) -> list[Tensor]:
    """Every state tensor of the parameter's shape. A scalar step count belongs to the whole tensor.

    Args:
        optimizer: the optimizer.
        parameter: one that it holds, or none of its own.
        name: of the parameter, for the error.

    Raises:
        ModelError: state is quantised, so that setting an element to 0 does not make it 0.
    """
    found = []
    # Looked up anew each time: load_state_dict replaces the tensors.
    for key, value in state_of(optimizer, parameter).items():
        if not isinstance(value, Tensor) or not value.dim():
            continue
        same_shape = value.shape == parameter.shape
        own = has_own_form(value)
        if own or (same_shape and value.dtype in (torch.uint8, torch.int8)):
            kind = type(value).__name__ if own else str(value.dtype).removeprefix("torch.")
            raise ModelError(
                f"What {type(optimizer).__name__} remembers of {name} is quantised (its {key!r} is of type {kind}), "
                "so it cannot be cleared for single units. Use an optimizer whose state is of floats, such as "
                "torch.optim.AdamW, at least for the parameters of units that are replaced; or exclude these modules "
                "(exclude=)."
            )
        if same_shape:
            found.append(value)
    return found
