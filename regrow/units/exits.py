"""Values that leave for NumPy or Python, which no operator shows."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from regrow.units.call import tensors_in

_EXITS = (Tensor.numpy, Tensor.tolist, Tensor.__array__, Tensor.__dlpack__, Tensor.data_ptr)
_NUMBERS = (Tensor.__float__, Tensor.__int__, Tensor.__complex__, Tensor.__bool__)
_MAKERS = (torch.tensor, torch.as_tensor, torch.asarray, Tensor.new_tensor, Tensor.new)
_SPLITS = (torch.tensor_split, Tensor.tensor_split)


class Exits(TorchFunctionMode):
    """Reports every tensor on which a method is called that hands its memory to someone else.

    Args:
        leave: called with the tensor and the name of the method.
    """

    def __init__(self, leave: Callable[[Tensor, str], None]) -> None:
        super().__init__()
        self._leave = leave

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        for tensor in _leaving(func, args, kwargs or {}):
            self._leave(tensor, f"{func.__name__}()")
        return func(*args, **(kwargs or {}))


def _leaving(func: Any, args: Any, kwargs: Any) -> list[Tensor]:
    """Arguments whose values are read beside the operators."""
    if func in _EXITS:
        return [args[0]]
    if func in _NUMBERS:  # an operator, but not where the elements of a list are read
        python = torch._C.DispatchKey.Python
        return [args[0]] if torch._C._dispatch_tls_is_dispatch_key_excluded(python) else []
    if func in _MAKERS:  # a tensor is copied by operators, and those in lists are not
        lists = [given for given in (*args, *kwargs.values()) if not isinstance(given, Tensor)]
        return list(tensors_in(lists))
    if func in _SPLITS:
        return list(tensors_in(([*args[1:]], kwargs)))
    return []
