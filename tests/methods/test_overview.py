import pytest

from regrow.methods import methods_by_name
from regrow.methods.overview import overview


@pytest.mark.parametrize(
    ("name", "kind", "needs", "edits", "works", "state"),
    [
        ("backprop", "weight", (), (), "never", "none"),
        ("cbp", "unit", ("units", "activations"), ("units", "optimizer state"), "at each step", "per unit"),
        ("cbp-first-order", "unit", ("units", "gradients"), ("units", "optimizer state"), "at each step", "per unit"),
        ("random-replacement", "unit", ("units",), ("units", "optimizer state"), "at each step", "per unit"),
        ("redo", "unit", ("units", "activations"), ("units", "optimizer state"), "at every 1000th step", "per unit"),
        ("ccbp", "unit", ("units", "gradients"), ("units",), "at each step", "per unit"),
        ("swr", "weight", ("gradients", "optimizer"), ("weights",), "at every 2048th step", "none"),
        ("l2-init", "weight", ("optimizer",), ("gradients",), "at each step", "per weight"),
        ("hare-and-tortoise", "weight", ("optimizer",), ("weights",), "at each step", "per weight"),
        ("spectral-penalty", "weight", ("optimizer",), ("gradients",), "at each step", "per layer"),
        ("l2-er", "weight", ("units", "activations", "optimizer"), ("weights",), "at every 100th step", "none"),
        ("nap", "weight", ("units", "optimizer"), ("weights",), "at each step", "per layer"),
        (
            "hard-reset",
            "task change",
            ("units", "task changes"),
            ("weights", "optimizer state"),
            "at task changes",
            "none",
        ),
        ("fire", "task change", ("units", "task changes"), ("weights",), "at task changes", "none"),
        ("dash", "task change", ("gradients", "task changes"), ("weights",), "at task changes", "none"),
    ],
)
def test_what_a_method_needs_and_remembers(
    name: str, kind: str, needs: tuple[str, ...], edits: tuple[str, ...], works: str, state: str
) -> None:
    found = overview(name)
    assert (found.kind, found.needs, found.edits, found.works, found.state) == (kind, needs, edits, works, state)


def test_every_method_has_a_line_a_reference_and_a_cost() -> None:
    for name in methods_by_name():
        found = overview(name)
        assert found.cost and "." not in found.cost, name
        assert found.reference and found.line.endswith((".", ")")) and "$" not in found.line, name
