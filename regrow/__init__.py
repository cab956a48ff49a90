"""Keeps deep networks able to learn for as long as they run.

    plastic = regrow.attach(model, optimizer, regrow.ContinualBackprop())

The names below are loaded when first used, so that the command line starts without importing torch.
"""

import importlib
from typing import TYPE_CHECKING, Any

from regrow.errors import RegrowError as RegrowError

if TYPE_CHECKING:
    from regrow.attachment.attach import attach as attach
    from regrow.attachment.attachment import Attachment as Attachment
    from regrow.measures import measure as measure
    from regrow.methods import L2 as L2
    from regrow.methods import Backprop as Backprop
    from regrow.methods import ContinualBackprop as ContinualBackprop
    from regrow.methods import RandomReplacement as RandomReplacement
    from regrow.methods import ShrinkAndPerturb as ShrinkAndPerturb
    from regrow.units.graph import Slice as Slice
    from regrow.units.graph import UnitGraph as UnitGraph
    from regrow.units.graph import UnitGroup as UnitGroup
    from regrow.units.trace import find_units as find_units
    from regrow.units.verify import verify as verify

__version__ = "0.1.0"

_HOME = {
    "attach": "regrow.attachment.attach",
    "Attachment": "regrow.attachment.attachment",
    "Backprop": "regrow.methods",
    "ContinualBackprop": "regrow.methods",
    "L2": "regrow.methods",
    "RandomReplacement": "regrow.methods",
    "ShrinkAndPerturb": "regrow.methods",
    "Slice": "regrow.units.graph",
    "UnitGraph": "regrow.units.graph",
    "UnitGroup": "regrow.units.graph",
    "find_units": "regrow.units.trace",
    "measure": "regrow.measures",
    "verify": "regrow.units.verify",
}

__all__ = ["RegrowError", *_HOME]  # noqa: PLE0604


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'regrow' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])
