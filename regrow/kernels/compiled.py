"""How the functions of this room are compiled, and the arrays that they take."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numba
import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]
Function = TypeVar("Function", bound=Callable[..., Any])

# A position as an unsigned number. Of a signed one numba asks at every access whether it counts from the end, which
# keeps loops from being vectorised; and a view of a part of an array costs more than all that a small layer does.
at = np.uintp


def digest(folder: Path) -> str:
    """A name for the present content of all Python files in a folder."""
    return hashlib.sha256(b"".join(path.read_bytes() for path in sorted(folder.glob("*.py")))).hexdigest()[:16]


sources = digest(Path(__file__).parent)


def compiled(function: Function) -> Function:
    """Compile a function with numba on its first call and keep the machine code on disk.

    Sums may be reordered and products contracted, which is rounding. Comparisons and `isfinite` see NaN and infinity
    as they are: the flags that would assume them away are left out.
    """
    # No count of references to arrays is kept (they outlive every call, and no function makes any): it would take
    # longer than a step of a small network. For the same reason all functions of a step are made one.
    options: dict[str, Any] = {
        "error_model": "numpy",
        "fastmath": {"contract", "nsz", "reassoc"},
        "forceinline": True,
        "_nrt": False,
    }
    # Numba takes machine code on disk for current as long as the function's own file has not changed, although the
    # code of other files' functions is in it. A name that changes with any of them keeps old code from being found.
    function.__qualname__ += f"_{sources}"
    result: Function
    try:
        result = numba.njit(cache=True, **options)(function)
    except RuntimeError:  # no folder for the machine code can be written: it lasts as long as the process
        result = numba.njit(**options)(function)
    return result
