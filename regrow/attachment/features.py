"""Activations with autograd, for methods that change weights by what the features are like."""

import io
from collections import deque
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils._pytree import tree_map_only

from regrow.attachment.hooks import Switch
from regrow.errors import StateError
from regrow.units.example import untouched
from regrow.units.graph import Tap, UnitGraph
from regrow.units.taps import ModuleHook, TapHook, is_training, per_unit
from regrow.units.wrappers import IF_COMPILED, as_written


class Features:
    """Keeps the last inputs of a model, and runs it on them again.

    Args:
        model: the model.
        examples: how many inputs to keep at least, counted by the first dimension of the first tensor.
        switch: keep only while it is on.
    """

    def __init__(self, model: nn.Module, examples: int, switch: Switch) -> None:
        self._model = model
        self._examples = examples
        self._kept: deque[tuple[int, tuple[Any, ...], dict[str, Any]]] = deque()
        self._taps: list[Tap] = []
        keeper = _Keeper(self._keep, switch)
        self.handle = keeper.hung(model.register_forward_pre_hook(keeper, with_kwargs=True))

    def use(self, graph: UnitGraph) -> bool:
        """Take note of where activations can be read: of every hidden group that a module sees.

        Returns whether there is any.
        """
        hidden = [group for group in graph if group.status in ("free", "shared", "coupled")]
        taps = [next((part.tap for part in group.having("outgoing") if part.tap), None) for group in hidden]
        self._taps = [tap for tap in taps if tap is not None]
        return bool(self._taps)

    def __call__(self) -> list[Tensor]:
        """Activations of each group for the inputs that are kept, of shape (observations, units), with autograd.

        Nothing about the model changes.

        Raises:
            StateError: no training forward has been seen.
        """
        if not self._kept:
            raise StateError(
                f"Features were asked for before any training forward of {type(self._model).__name__} was seen. Call "
                "it in training mode with grad enabled; if your loop calls a part of it only, attach to that part. "
                f"{IF_COMPILED}"
            )
        seen: list[list[Tensor]] = [[] for _ in self._taps]
        hooks = [
            TapHook(self._model, tap, _appender(found), detached=False)
            for tap, found in zip(self._taps, seen, strict=True)
        ]
        try:
            with untouched(self._model), torch.enable_grad():
                for _, args, kwargs in self._kept:
                    # Buffers of its own for every forward: autograd holds on to those that a norm has written.
                    buffers = {name: buffer.clone() for name, buffer in self._model.named_buffers()}
                    functional_call(self._model, buffers, args, kwargs)
        finally:
            for hook in hooks:
                hook.handle.remove()
        return [
            torch.cat([per_unit(tap, value) for value in found])
            for tap, found in zip(self._taps, seen, strict=True)
            if found
        ]

    def state(self) -> Tensor:
        """The inputs that are kept, as the bytes of a file, on the host. Those are left out that only code could read
        again: with parts that are neither tensors, numbers nor text in lists, tuples and dicts.
        """
        file = io.BytesIO()
        torch.save([list(kept) for kept in self._kept if _is_plain(kept)], file)
        return torch.frombuffer(bytearray(file.getvalue()), dtype=torch.uint8)

    def load(self, state: Tensor) -> None:
        """Go on from what `state` returned. Inputs that were on another device come to that of the model."""
        device = next((parameter.device for parameter in self._model.parameters()), torch.device("cpu"))
        file = io.BytesIO(state.cpu().numpy().tobytes())
        kept = torch.load(file, map_location=lambda storage, where: _moved(storage, where, device), weights_only=True)
        self._kept = deque((size, args, kwargs) for size, args, kwargs in kept)

    def _keep(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        sizes: list[int] = []
        tree_map_only(Tensor, lambda tensor: sizes.append(len(tensor) if tensor.dim() else 1), (args, kwargs))
        # Copied, since the user may write the next batch into the same memory.
        args, kwargs = tree_map_only(Tensor, lambda tensor: tensor.detach().clone(), (args, kwargs))
        self._kept.append((sizes[0] if sizes else 1, args, kwargs))
        while sum(size for size, _, _ in self._kept) - self._kept[0][0] >= self._examples:
            self._kept.popleft()


class _Keeper(ModuleHook):
    def __init__(self, keep: Callable[[tuple[Any, ...], dict[str, Any]], None], switch: Switch) -> None:
        self._keep = keep
        self._switch = switch

    def __call__(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Forward pre-hook."""
        if self._switch.on and is_training(module):
            as_written(self._keep)(args, kwargs)  # compiled code would be compiled anew for every number of inputs


def _is_plain(value: Any) -> bool:
    if type(value) in (list, tuple):
        return all(map(_is_plain, value))
    if type(value) is dict:
        return all(map(_is_plain, (*value, *value.values())))
    return value is None or type(value) in (Tensor, bool, int, float, str)


def _moved(storage: Any, where: str, device: torch.device) -> Any:
    return storage if where == "cpu" or device.type == "cpu" else storage.to(device=device)


def _appender(found: list[Tensor]) -> Callable[[nn.Module, Tensor], None]:
    return lambda module, value: found.append(value)
