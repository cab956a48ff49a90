"""Values that leave for NumPy or Python, which no operator shows."""

from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.overrides import TorchFunctionMode

_EXITS = (Tensor.numpy, Tensor.tolist, Tensor.__array__, Tensor.__dlpack__, Tensor.data_ptr)


class Exits(TorchFunctionMode):
    """Reports every tensor on which a method is called that hands its memory to someone else.

    Args:
        leave: called with the tensor and the name of the method.
    """

    def __init__(self, leave: Callable[[Tensor, str], None]) -> None:
        super().__init__()
        self._leave = leave

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in _EXITS:
            self._leave(args[0], f"{func.__name__}()")
        return func(*args, **(kwargs or {}))
