from dataclasses import FrozenInstanceError, dataclass

import pytest

from regrow.errors import ConfigError, RegrowError
from regrow.methods import ContinualBackprop, Method, WeightMethod, method_named


def test_every_registered_method_builds_from_its_name_and_explains_itself() -> None:
    assert {"backprop", "cbp", "l2", "random-replacement", "shrink-and-perturb"} <= set(Method.registry)
    for name, kind in Method.registry.items():
        method = method_named(name)
        assert type(method) is kind and method.name == name
        assert kind.__doc__ and kind.__doc__[0].isupper()
        assert method_named(name, **method.settings()) == method


def test_settings_are_fixed_once_built() -> None:
    with pytest.raises(FrozenInstanceError):
        ContinualBackprop().decay_rate = 0.5  # type: ignore[misc]


def test_two_methods_of_one_name_are_refused() -> None:
    with pytest.raises(RegrowError, match="Two methods are called 'cbp': ContinualBackprop and Other"):

        @dataclass(frozen=True)
        class Other(WeightMethod, name="cbp"):
            """Another."""

    assert Method.registry["cbp"] is ContinualBackprop


def test_an_unknown_setting_names_the_nearest() -> None:
    with pytest.raises(RegrowError, match="ContinualBackprop has no setting 'decay'; did you mean 'decay_rate'?"):
        method_named("cbp", decay=0.9)


def test_a_method_says_how_it_is_turned_off() -> None:
    with pytest.raises(ConfigError, match="Endless must say in `off` with which settings it does nothing"):

        class Endless(WeightMethod, name="endless"):
            pass

    assert "endless" not in Method.registry
