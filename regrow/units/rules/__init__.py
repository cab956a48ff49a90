"""What operators do to labels: one function per operator family, found by the operator.

README.md in this folder says how to add one.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch

from regrow.units.rules.call import Call as Call

if TYPE_CHECKING:
    from regrow.units.trace import Trace

Rule = Callable[["Trace", Call], None]

_rules: dict[Any, Rule] = {}


def rule(*names: str) -> Callable[[Rule], Rule]:
    """Register a function as the rule of ATen operators, all their overloads.

    Names that this version of torch does not have are skipped. In-place forms are named as such, "relu_".
    """

    def register(function: Rule) -> Rule:
        for name in names:
            packet = getattr(torch.ops.aten, name, None)
            if packet is not None:
                if packet in _rules:
                    raise ValueError(f"aten.{name} has a rule already: {_rules[packet].__name__}")
                _rules[packet] = function
        return function

    return register


def rule_for(operator: Any) -> Rule | None:
    """The rule of an operator, or None."""
    from regrow.units.rules import contraction, creation, movement, normalization, pointwise, reduction

    del contraction, creation, movement, normalization, reduction  # imported to register
    found = _rules.get(operator.overloadpacket)
    if found is None and torch.Tag.pointwise in operator.tags:
        return pointwise.pointwise
    return found
