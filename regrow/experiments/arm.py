"""What is compared in a study, under one name."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from regrow.methods import Backprop, Method


@dataclass(frozen=True)
class Arm:
    """One arm of a comparison: the methods that act together, and what else differs from the other arms.

    Attributes:
        methods: in the order in which they act.
        changes: entries of the scale's problem that this arm has in its own way, such as its step size.
    """

    methods: tuple[Method, ...] = (Backprop(),)
    changes: Mapping[str, Any] = field(default_factory=dict)


def arms_of(methods: Mapping[str, tuple[Method, ...]]) -> dict[str, Arm]:
    """Arms that differ by their methods only."""
    return {name: Arm(together) for name, together in methods.items()}
