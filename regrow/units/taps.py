"""Reading activations where a `Tap` says that they can be seen.

What hangs on a module is copied and pickled with it (target networks, averaged models, checkpoints of whole
models). A copy must do nothing, so every hook here turns into `inert` when it is copied.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any
from uuid import uuid4

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from regrow.units.graph import Tap

_examining: ContextVar[bool] = ContextVar("examining", default=False)


@contextmanager
def examination() -> Iterator[None]:
    """Within the block, forwards serve to find out about the network: they are no training, whatever its mode."""
    token = _examining.set(True)
    try:
        yield
    finally:
        _examining.reset(token)


def is_training(module: nn.Module) -> bool:
    """Whether a forward that passes this module now is one of training: training mode, with grad, no examination."""
    # Nothing compiled runs in an examination (see `untouched`), and the compiler cannot follow the variable.
    examined = not torch.compiler.is_compiling() and _examining.get()
    return module.training and torch.is_grad_enabled() and not examined


def inert(*args: Any, **kwargs: Any) -> None:
    """What a copied hook does: nothing."""


def _return_inert() -> Callable[..., None]:
    return inert


def sweep(model: nn.Module) -> None:
    """Take from a copy of a model what the hooks of the original became in it."""
    for module in model.modules():
        for name in ("_forward_pre_hooks", "_forward_hooks"):
            hooks = vars(module).get(name, {})
            for key in [key for key, hook in hooks.items() if hook is inert]:
                for found in (name, f"{name}_with_kwargs", f"{name}_always_called"):
                    vars(module).get(found, {}).pop(key, None)


class ModuleHook:
    """Base of hooks on modules: inert in every copy."""

    @staticmethod
    def hung(handle: RemovableHandle) -> RemovableHandle:
        """The handle of a hook that was registered just now, under a key of its own.

        Torch counts keys from 0 in each process, so that in a copy that another process loads, a hook that is
        registered there could take the place of this one, and be called as this one is: with keyword arguments.
        """
        old, handle.id = handle.id, uuid4().int >> 66
        for hooks in (handle.hooks_dict_ref(), *(reference() for reference in handle.extra_dict_ref)):
            if hooks is not None and old in hooks:
                items = [(handle.id if key == old else key, value) for key, value in hooks.items()]
                hooks.clear()
                hooks.update(items)
        return handle

    def __deepcopy__(self, memo: Any) -> Callable[..., None]:
        return inert

    def __reduce__(self) -> tuple[Any, ...]:
        return _return_inert, ()


class TapHook(ModuleHook):
    """Hands the value at a tap on, at every forward that passes it.

    Args:
        model: the model that the tap's module name is relative to.
        tap: where to read.
        receive: called with the module and the value.
        detached: hand it on without autograd.
    """

    def __init__(
        self, model: nn.Module, tap: Tap, receive: Callable[[nn.Module, Tensor], None], detached: bool = True
    ) -> None:
        self._detached = detached
        self._tap = tap
        self._receive = receive
        module = model.get_submodule(tap.module)
        self.handle = self.hung(
            module.register_forward_pre_hook(self, with_kwargs=True)
            if tap.where == "input"
            else module.register_forward_hook(self)
        )

    def __call__(self, module: nn.Module, args: tuple[Any, ...], third: Any) -> None:
        """As a pre-hook, called with the keyword arguments third; as a forward hook, with the output.

        Registered as an object, since a bound method would be pickled through the object that it is bound to.
        """
        position = self._tap.position
        if self._tap.where == "input":
            value = third[position] if isinstance(position, str) else args[position]
        else:
            value = third if isinstance(third, Tensor) else third[position]
        self._receive(module, value.detach() if self._detached else value)


def per_position(tap: Tap, value: Tensor) -> Tensor:
    """The value at a tap as a matrix of shape (everything else, positions along the tap's dimension)."""
    return value.movedim(value.dim() + tap.dim, -1).flatten(end_dim=-2)


def per_unit(tap: Tap, value: Tensor) -> Tensor:
    """Activations of each unit, of shape (observations, units): places and a unit's several positions count as
    observations of it.
    """
    rows = tap.rows.to(value.device, non_blocking=True)
    return per_position(tap, value)[:, rows].movedim(2, 1).flatten(end_dim=1)


def per_sample(tap: Tap, value: Tensor) -> Tensor:
    """Activations of each unit, of shape (samples, units): the mean over places and over a unit's positions."""
    rows = tap.rows.to(value.device, non_blocking=True)
    spread = value.movedim(value.dim() + tap.dim, -1)[..., rows].mean(dim=-1)
    return spread.flatten(1, -2).mean(dim=1) if spread.dim() > 2 else spread


def record(model: nn.Module, taps: list[Tap], run: Callable[[], Any]) -> list[Tensor | None]:
    """Run something without grad and return the last value that each tap saw, None where it saw none."""
    seen: list[Tensor | None] = [None] * len(taps)

    def keep(number: int) -> Callable[[nn.Module, Tensor], None]:
        def receive(module: nn.Module, value: Tensor) -> None:
            seen[number] = value

        return receive

    hooks = [TapHook(model, tap, keep(number)) for number, tap in enumerate(taps)]
    try:
        with torch.no_grad():
            run()
    finally:
        for hook in hooks:
            hook.handle.remove()
    return seen
