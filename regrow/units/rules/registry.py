"""Which rule belongs to which operator."""

from collections.abc import Callable
from typing import Any

import torch

from regrow.units.call import Call
from regrow.units.record import Record

Rule = Callable[[Record, Call], None]

rules: dict[Any, Rule] = {}


def rule(*names: str) -> Callable[[Rule], Rule]:
    """Register a function as the rule of ATen operators, all their overloads.

    Names that this version of torch does not have are skipped. In-place forms are named as such, "relu_"; operators
    that are not torch's own with their namespace, "regrow::normalize_online".
    """

    def register(function: Rule) -> Rule:
        for name in names:
            space, _, own = name.rpartition("::")
            packet = getattr(getattr(torch.ops, space or "aten"), own, None)
            if packet is not None:
                if packet in rules:
                    raise ValueError(f"{packet} has a rule already: {rules[packet].__name__}")
                rules[packet] = function
        return function

    return register
