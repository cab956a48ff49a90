import pytest

from regrow.methods import Method
from regrow.methods.overview import overview


@pytest.mark.parametrize(
    ("name", "kind", "needs", "state"),
    [
        ("backprop", "weight", (), "none"),
        ("cbp", "unit", ("units", "activations"), "per unit"),
        ("random-replacement", "unit", ("units",), "per unit"),
        ("ccbp", "unit", ("units", "gradients"), "per unit"),
        ("swr", "weight", ("gradients",), "none"),
        ("l2-init", "weight", (), "per weight"),
        ("spectral-penalty", "weight", (), "per layer"),
        ("l2-er", "weight", ("units", "activations"), "none"),
        ("nap", "weight", ("units",), "per layer"),
        ("fire", "task change", ("units", "task changes"), "none"),
        ("dash", "task change", ("gradients", "task changes"), "none"),
    ],
)
def test_what_a_method_needs_and_remembers(name: str, kind: str, needs: tuple[str, ...], state: str) -> None:
    found = overview(Method.registry[name])
    assert (found.kind, found.needs, found.state) == (kind, needs, state)


def test_every_method_has_a_line_and_a_reference() -> None:
    for kind in Method.registry.values():
        found = overview(kind)
        assert found.reference and found.line.endswith((".", ")")) and "$" not in found.line, kind
