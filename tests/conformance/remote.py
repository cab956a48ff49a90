"""A device that stands in for an accelerator: its tensors cannot be mixed with those of the host, and what makes the
host wait for it is counted.
"""

import gc
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map_only

# A device that every build of torch knows. What is on it has values here.
REMOTE = torch.device("meta")

_aten = torch.ops.aten
_FETCHES = (
    _aten._local_scalar_dense.default,
    _aten.equal.default,
    _aten.masked_select.default,
    _aten.nonzero.default,
    _aten._unique2.default,
)
_INDEXES = (_aten.index.Tensor, _aten.index_put.default, _aten.index_put_.default)


class RemoteTensor(Tensor):
    """A tensor on the device. All that is done with it is done with what it holds, on the host."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> "RemoteTensor":
        """Put a tensor there."""
        made = Tensor._make_wrapper_subclass(cls, held.size(), held.stride(), dtype=held.dtype, device=REMOTE)
        made.held = held
        return made

    def tolist(self) -> Any:
        """Torch has none for subclasses."""
        return self.cpu().tolist()

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Where nobody watches."""
        return _run(func, args, kwargs or {}, [], [])


class Watch(TorchDispatchMode):
    """Notes what makes the host wait for the device, as it does on CUDA.

    Attributes:
        waits: the operators that did.
        draws: the operators that drew random numbers on the device.
    """

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[str] = []
        self.draws: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Note it."""
        return _run(func, args, kwargs or {}, self.waits, self.draws)


def move(model: nn.Module) -> None:
    """Move a model there, as `to` does: parameters stay the objects that they are, buffers do not."""
    gc.collect()  # a parameter that is still part of some graph cannot be moved
    for parameter in model.parameters():
        torch.utils.swap_tensors(parameter, nn.Parameter(RemoteTensor(parameter.detach()), parameter.requires_grad))
    for module in model.modules():
        for name, buffer in module._buffers.items():
            module._buffers[name] = None if buffer is None else RemoteTensor(buffer)


def _run(func: Any, args: Any, kwargs: dict[str, Any], waits: list[str], draws: list[str]) -> Any:
    tensors = [value for value in tree_flatten((args, kwargs))[0] if isinstance(value, Tensor)]
    there = [value for value in tensors if isinstance(value, RemoteTensor)]
    asked = kwargs.get("device")
    goes_there = bool(there) if asked is None else torch.device(asked) == REMOTE
    if func in (_aten._to_copy.default, _aten.copy_.default):
        goes_there = goes_there if func is _aten._to_copy.default else isinstance(args[0], RemoteTensor)
        is_patient = kwargs.get("non_blocking") or (len(args) > 2 and args[2])
        if any(isinstance(value, RemoteTensor) != goes_there for value in tensors) and not (is_patient and goes_there):
            waits.append(f"copy to the {'device' if goes_there else 'host'}")
    elif there and func in _INDEXES:
        places = [index for index in args[1] if index is not None]
        if any(index.dtype == torch.bool or not isinstance(index, RemoteTensor) for index in places):
            waits.append(f"{func} with a mask, or with an index of the host")
    elif there and func is _aten.where.self and len(there) < len(tensors):
        waits.append("where with a number of the host")
    elif there and any(value.dim() for value in tensors if not isinstance(value, RemoteTensor)):
        raise RuntimeError(f"Expected all tensors to be on the same device, but {func} got some of the host.")
    elif there and func in _FETCHES:
        waits.append(str(func))
    if goes_there and torch.Tag.nondeterministic_seeded in func.tags:
        draws.append(str(func))
    held_args, held_kwargs = tree_map_only(RemoteTensor, lambda value: value.held, (args, kwargs))
    if asked is not None:
        held_kwargs["device"] = torch.device("cpu")
    result = func(*held_args, **held_kwargs)
    if not goes_there:
        return result
    if torch.Tag.inplace_view in func.tags:  # such as squeeze_: its shape is changed too
        with torch._C._DisableTorchDispatch():
            func(*args, **kwargs)
    known = {id(value.held): value for value in there}  # what was written in place stays what it is
    return tree_map_only(Tensor, lambda value: known[id(value)] if id(value) in known else RemoteTensor(value), result)
