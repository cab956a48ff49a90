"""What each method is, in a few words, read off the method itself."""

from dataclasses import dataclass

from regrow.methods.method import methods_by_name
from regrow.methods.unit_method import UnitMethod
from regrow.methods.weight_method import Weight, WeightMethod
from regrow.units import host


@dataclass(frozen=True)
class Overview:
    """A method at its default settings.

    Attributes:
        name: under which `attach` knows it.
        kind: "unit", "weight", or "task change" if it does nothing between task changes.
        line: what it does.
        reference: where it comes from.
        needs: what it must be able to see or be told.
        edits: what it changes: "units", "weights", "gradients", "optimizer state".
        works: when it has something to do: "at each step", "at every 1000th step", "at task changes", "never".
        cost: what it then does that takes time. How much, `python -m benchmarks.overhead` measures.
        state: how much it remembers: "none", "per layer", "per unit" or "per weight".
    """

    name: str
    kind: str
    line: str
    reference: str
    needs: tuple[str, ...]
    edits: tuple[str, ...]
    works: str
    cost: str
    state: str


def overview(name: str) -> Overview:
    """Describe a registered method, or a variant of one."""
    kind, settings = methods_by_name()[name]
    method = kind(**settings)
    line, cost = (kind.__doc__ or "").strip().splitlines()[0], kind.cost
    if name in kind.variants:
        _, line, cost = kind.variants[name]
    if isinstance(method, UnitMethod):
        reads = () if method.needs is None else ("activations" if method.reads_activations else "gradients",)
        works = _every(1 if method.reads_every_step and method.needs else getattr(method, "period", 1))
        edits = ("units",) if method.keeps_moments else ("units", "optimizer state")
        return Overview(name, "unit", line, kind.reference, ("units", *reads), edits, works, cost, "per unit")
    assert isinstance(method, WeightMethod)
    only_at_changes = method.acts_at_task_changes and not method.acts_at_steps
    facts = {
        "units": method.needs_units,
        "activations": method.feature_examples > 0,
        "gradients": method.reads_gradients,
        "optimizer": method.acts_at_steps,
        "task changes": method.acts_at_task_changes,
    }
    needs = tuple(fact for fact, holds in facts.items() if holds)
    period = getattr(method, "period", 1) if method.evaluated is None else 1  # a slow copy follows at each step
    times = [_every(period)] if method.acts_at_steps and period else []
    works = " and ".join([*times, *(["at task changes"] if method.acts_at_task_changes else [])]) or "never"
    kind_of = "task change" if only_at_changes else "weight"
    return Overview(name, kind_of, line, kind.reference, needs, _edits(method), works, cost, _state(method))


def _edits(method: WeightMethod) -> tuple[str, ...]:
    facts = {
        "weights": (method.acts_at_steps and not method.edits_gradients) or method.acts_at_task_changes,
        "gradients": method.edits_gradients,
        "optimizer state": method.forgets,
    }
    return tuple(fact for fact, holds in facts.items() if holds)


def _every(period: int) -> str:
    return "at each step" if period == 1 else f"at every {period}th step"


def _state(method: WeightMethod) -> str:
    matrix = host.ones(7, 5)
    one = Weight("weight", matrix, 0.1, lambda draws: matrix, lambda: None, role="matrix", fan_in=5, layer=1)
    sizes = [value.numel() for value in method.initial_state(one).values()]
    if not sizes:
        return "none"
    return "per weight" if matrix.numel() in sizes else "per layer"
