"""What each method is, in a few words, read off the method itself."""

from dataclasses import dataclass

import torch

from regrow.methods.method import Method
from regrow.methods.unit_method import UnitMethod
from regrow.methods.weight_method import Weight, WeightMethod


@dataclass(frozen=True)
class Overview:
    """A method at its default settings.

    Attributes:
        name: under which `attach` knows it.
        kind: "unit", "weight", or "task change" if it does nothing between task changes.
        line: what it does.
        reference: where it comes from.
        needs: what it must be able to see or be told.
        state: how much it remembers: "none", "per layer", "per unit" or "per weight".
    """

    name: str
    kind: str
    line: str
    reference: str
    needs: tuple[str, ...]
    state: str


def overview(kind: type[Method]) -> Overview:
    """Describe a registered method."""
    method = kind()
    line = (kind.__doc__ or "").strip().splitlines()[0]
    if isinstance(method, UnitMethod):
        reads = () if method.needs is None else ("activations" if method.reads_activations else "gradients",)
        return Overview(kind.name, "unit", line, kind.reference, ("units", *reads), "per unit")
    assert isinstance(method, WeightMethod)
    only_at_changes = method.acts_at_task_changes and not method.acts_at_steps
    facts = {
        "units": method.needs_units,
        "activations": method.feature_examples > 0,
        "gradients": method.reads_gradients,
        "task changes": method.acts_at_task_changes,
    }
    needs = tuple(fact for fact, holds in facts.items() if holds)
    return Overview(
        kind.name, "task change" if only_at_changes else "weight", line, kind.reference, needs, _state(method)
    )


def _state(method: WeightMethod) -> str:
    matrix = torch.ones(7, 5)
    one = Weight("weight", matrix, 0.1, lambda draws: matrix, lambda: None, role="matrix", fan_in=5, layer=1)
    sizes = [value.numel() for value in method.initial_state(one).values()]
    if not sizes:
        return "none"
    return "per weight" if matrix.numel() in sizes else "per layer"
