import ast
import inspect
from dataclasses import FrozenInstanceError, dataclass
from pathlib import Path

import pytest

from regrow.errors import ConfigError, RegrowError
from regrow.methods import ContinualBackprop, Method, WeightMethod, method_named, methods_by_name


def test_every_registered_method_builds_from_its_name_and_explains_itself() -> None:
    assert {"backprop", "cbp", "l2", "random-replacement", "shrink-and-perturb"} <= set(Method.registry)
    for name, kind in Method.registry.items():
        method = method_named(name)
        assert type(method) is kind and method.name == name
        assert kind.__doc__ and kind.__doc__[0].isupper()
        assert method_named(name, **method.settings()) == method


def test_a_variant_is_a_method_by_a_name_of_its_own() -> None:
    assert method_named("cbp-first-order") == ContinualBackprop(utility_rule="first_order")
    assert method_named("cbp-first-order", replacement_rate=0.5) == ContinualBackprop(0.5, utility_rule="first_order")
    assert [*methods_by_name()][-1] == "cbp-first-order" and "cbp-first-order" not in Method.registry
    with pytest.raises(RegrowError, match="There is no method 'cbp-first'; did you mean 'cbp-first-order'?"):
        method_named("cbp-first")


def test_what_is_derived_from_a_method_has_none_of_its_variants() -> None:
    @dataclass(frozen=True)
    class Derived(ContinualBackprop, name="derived"):
        """Another."""

    try:
        assert [name for name, (kind, _) in methods_by_name().items() if kind is Derived] == ["derived"]
    finally:
        del Method.registry["derived"]


def computed_by_hand(kind: type) -> bool:
    """Whether the file that tests a class speaks of it, and takes numbers from NumPy or from `by_hand`."""
    path = Path(__file__).with_name(f"test_{Path(inspect.getfile(kind)).stem}.py")
    if not path.exists():
        return False
    nodes = list(ast.walk(ast.parse(path.read_text())))
    imported = {node.module for node in nodes if isinstance(node, ast.ImportFrom)}
    imported |= {name.name for node in nodes if isinstance(node, ast.Import | ast.ImportFrom) for name in node.names}
    spoken_of = {getattr(node, "attr", getattr(node, "id", None)) for node in nodes}
    return bool(imported & {"numpy", "by_hand", "tests.methods.by_hand"}) and kind.__name__ in spoken_of


def test_every_method_is_computed_by_hand() -> None:
    assert [kind.__name__ for kind in Method.registry.values() if not computed_by_hand(kind)] == []


def test_a_method_that_nobody_computes_is_noticed() -> None:
    class Untested(Method):
        """In a file without a test."""

    assert not computed_by_hand(Untested)
    Untested.__module__ = "regrow.methods.l2"
    assert not computed_by_hand(Untested)


def test_settings_are_fixed_once_built() -> None:
    with pytest.raises(FrozenInstanceError):
        ContinualBackprop().decay_rate = 0.5  # type: ignore[misc]


def test_two_methods_of_one_name_are_refused() -> None:
    with pytest.raises(RegrowError, match="Two methods are called 'cbp': ContinualBackprop and Other"):

        @dataclass(frozen=True)
        class Other(WeightMethod, name="cbp"):
            """Another."""

    assert Method.registry["cbp"] is ContinualBackprop
    with pytest.raises(RegrowError, match="Two methods are called 'cbp-first-order': ContinualBackprop and Another"):

        @dataclass(frozen=True)
        class Another(WeightMethod, name="cbp-first-order"):
            """Another."""


def test_an_unknown_setting_names_the_nearest() -> None:
    with pytest.raises(RegrowError, match="ContinualBackprop has no setting 'decay'; did you mean 'decay_rate'?"):
        method_named("cbp", decay=0.9)


def test_a_method_says_how_it_is_turned_off() -> None:
    with pytest.raises(ConfigError, match="Endless must say in `off` with which settings it does nothing"):

        class Endless(WeightMethod, name="endless"):
            pass

    assert "endless" not in Method.registry
