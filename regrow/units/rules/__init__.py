"""What operators do to labels: one function per operator family, found by the operator.

README.md in this folder says how to add one. Importing a family registers its rules.
"""

from typing import Any

import torch

from regrow.units.rules import contraction, creation, lookup, movement, normalization, pointwise, reduction
from regrow.units.rules.registry import Rule, rules

__all__ = ["contraction", "creation", "lookup", "movement", "normalization", "pointwise", "reduction", "rule_for"]


def rule_for(operator: Any) -> Rule | None:
    """The rule of an operator, or None."""
    found = rules.get(operator.overloadpacket)
    if found is None and torch.Tag.pointwise in operator.tags:
        return pointwise.pointwise
    return found
