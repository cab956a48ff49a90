"""How the functions of this room are compiled, and the arrays that they take."""

from collections.abc import Callable
from typing import Any, TypeVar

import numba
import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]
Function = TypeVar("Function", bound=Callable[..., Any])


def compiled(function: Function) -> Function:
    """Compile a function with numba on its first call and keep the machine code on disk.

    Sums may be reordered and products contracted, which is rounding. NaN and infinity keep their meaning: the
    flags that would assume them away are left out.
    """
    options: dict[str, Any] = {"error_model": "numpy", "fastmath": {"contract", "nsz", "reassoc"}, "cache": True}
    result: Function = numba.njit(**options)(function)
    return result
