"""What `attach` cannot serve, seen at the call or at a step: what to do instead."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from regrow.errors import ConfigError, ModelError, StateError
from regrow.methods.method import Method

_INSTEAD = (
    "A unit's weights lie in several parameters, which are to be changed together once all gradients are there. Use "
    "one optimizer for the whole model, and step after backward(); or pass optimizer=None and call step() of the "
    "result after each backward(), which leaves what the optimizers remember of replaced units as it is."
)


def refuse_frozen(model: nn.Module) -> None:
    """Raise if nothing of a model is trained.

    Raises:
        ModelError: as said.
    """
    parameters = list(model.parameters())
    if not any(parameter.requires_grad for parameter in parameters):
        raise ModelError(
            f"All {len(parameters)} parameters of {type(model).__name__} are frozen (requires_grad is False), so none "
            "is trained, and a new unit would never learn. Call requires_grad_() on what is to be trained, and attach "
            "then."
        )


def refuse_several(optimizers: Any) -> None:
    """Raise if these are several optimizers.

    Raises:
        ModelError: as said, with what to do instead.
    """
    found = list(optimizers.values()) if isinstance(optimizers, dict) else optimizers
    if not isinstance(found, list | tuple) or not found or not all(isinstance(item, Optimizer) for item in found):
        return
    if len(found) > 1 and all(len(_held(optimizer)) == 1 for optimizer in found):
        raise ModelError(
            f"attach() got a {type(optimizers).__name__} of {len(found)} optimizers with one parameter each, as where "
            f"they step within the backward pass. {_INSTEAD}"
        )
    raise ModelError(
        f"attach() takes one optimizer, but got a {type(optimizers).__name__} of {len(found)}. Attach to each in a "
        "call of its own; a unit is replaced only if one optimizer holds all weights that make and read it."
    )


def refuse_one_of_many(model: nn.Module, optimizer: Optimizer) -> None:
    """Raise if an optimizer is one of those that step within the backward pass, as far as can be seen before it.

    Raises:
        ModelError: as said, with what to do instead.
    """
    trained = {id(parameter): name for name, parameter in model.named_parameters() if parameter.requires_grad}
    held = [parameter for parameter in _held(optimizer) if id(parameter) in trained]
    mine = held or list(model.parameters())  # none is held by what only stands for optimizers elsewhere
    if len(held) > 1 or len(trained) < 2 or not any(map(_tells_when_ready, mine)):
        return
    those = f"only {trained[id(held[0])]}" if held else "none"
    raise ModelError(
        f"The {type(optimizer).__name__} holds {those} of the {len(trained)} parameters of {type(model).__name__} that "
        "are trained, and a hook runs when the gradient is there (register_post_accumulate_grad_hook), as where "
        f"optimizers step within the backward pass. {_INSTEAD}"
    )


def refuse_within_backward(optimizer: Optimizer) -> None:
    """Raise if called within a backward pass.

    Raises:
        StateError: as said, with what to do instead.
    """
    if torch._C._current_graph_task_id() != -1:
        raise StateError(f"step() of the {type(optimizer).__name__} was called within the backward pass. {_INSTEAD}")


def refuse_recomputed(method: Method, optimizer: Optimizer | None) -> None:
    """Raise since an optimizer computes gradients more than once in a step, and a method edits them.

    Raises:
        ConfigError: as said, with what to do instead.
    """
    name = type(optimizer).__name__
    raise ConfigError(
        f"{type(method).__name__} edits the gradients of a step, but {name} computes them several times in one step, "
        "by calling its closure again, and compares them with each other and with the loss. Use an optimizer that "
        "computes them once per step, such as torch.optim.SGD, or another method; torch's LBFGS does with max_iter=1."
    )


def _held(optimizer: Optimizer) -> list[Tensor]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def _tells_when_ready(parameter: Tensor) -> bool:
    hooks = getattr(parameter, "_post_accumulate_grad_hooks", None)
    return bool(hooks) or hasattr(parameter, "_in_backward_optimizers")
