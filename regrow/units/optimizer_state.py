"""What an optimizer remembers of a parameter's elements."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

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


# What torch's optimizers and most others call what they gather from gradients. Anything else is looked at.
_OF_GRADIENTS = frozenset(
    "momentum_buffer exp_avg exp_avg_sq max_exp_avg_sq exp_inf square_avg grad_avg acc_delta sum prev step_size".split()
)
# With which setting of its group an entry begins; 0 for all others.
_BEGINS_AS = {"step_size": "lr", "sum": "initial_accumulator_value"}  # of Rprop; of Adagrad
# TensorFlow's RMSprop, as Stable-Baselines3 and timm have it: its running mean of squares begins at 1.
_SQUARES_BEGIN_AT_1 = frozenset({"RMSpropTFLike", "RMSpropTF"})
_copies: "WeakKeyDictionary[Optimizer, frozenset[str]]" = WeakKeyDictionary()


@contextmanager
def carried_along(optimizer: Optimizer | None) -> Iterator[None]:
    """Within the block, what is done to weights is done to copies of them too, as far as those are not written there
    themselves. The optimizer would undo it else.
    """
    if optimizer is None:
        yield
        return
    find_copies(optimizer)
    held = [
        (parameter.detach(), parameter.detach().clone(), copy, copy._version)
        for group in (optimizer.param_groups if _copies.get(optimizer) else ())
        for parameter in group["params"]
        for key, copy in state_of(optimizer, parameter).items()
        if key in _copies[optimizer]
    ]
    yield
    for weight, before, copy, version in held:
        if copy._version == version:
            copy.add_(weight.to(copy) - before.to(copy))


def find_copies(optimizer: Optimizer) -> None:
    """Notice which of its entries are copies of the weights, such as the sequence z of schedule-free optimizers, or
    weights in higher precision. They are told by their values, all parameters together: a copy is nearer to the weights
    than 0 is. To be called when the optimizer has made a step, before weights are changed otherwise; once is enough.
    """
    if optimizer in _copies:
        return
    distances: dict[str, tuple[Tensor, Tensor]] = {}
    held = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    states = [(parameter.detach(), state) for parameter in held if (state := state_of(optimizer, parameter))]
    for parameter, state in states:
        for key, value in state.items():
            if key in _OF_GRADIENTS or not isinstance(value, Tensor) or has_own_form(value):
                continue
            if value.shape == parameter.shape and value.dim() and value.is_floating_point():
                far, size = distances.get(key, (0.0, 0.0))
                weight = parameter.float()
                distances[key] = far + (value - weight).square().sum(), size + weight.square().sum()
    if states:
        _copies[optimizer] = frozenset(key for key, (far, size) in distances.items() if bool(far < size / 2))


def remembered(optimizer: Optimizer, parameter: Tensor, name: str) -> list[tuple[Tensor, float | None]]:
    """Every state tensor of the parameter's shape, and with what number each element of it begins: None if it is a copy
    of the weights, as far as `find_copies` has seen. A scalar step count belongs to the whole tensor.

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
            is_copy = key in _copies.get(optimizer, ())
            found.append((value, None if is_copy else _beginning(optimizer, parameter, key)))
    return found


def _beginning(optimizer: Optimizer, parameter: Tensor, key: str) -> float:
    if key == "square_avg" and type(optimizer).__name__ in _SQUARES_BEGIN_AT_1:
        return 1.0
    for group in optimizer.param_groups if key in _BEGINS_AS else ():
        if any(held is parameter for held in group["params"]):
            return float(group.get(_BEGINS_AS[key], 0.0))
    return 0.0


def forget_path(optimizer: Optimizer) -> None:
    """Let an optimizer that has related past steps of all parameters to each other, as LBFGS does, begin anew: what it
    has found is about weights that are no longer there.
    """
    for state in optimizer.state.values():
        if any(isinstance(value, list) for value in state.values()):
            state.clear()
