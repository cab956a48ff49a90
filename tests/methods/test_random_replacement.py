import pytest

import regrow
from regrow.errors import ConfigError
from tests.methods.by_hand import attached, does_nothing, make_network, step


def run(seed: int) -> list[tuple[int, int]]:
    model, optimizer, plastic = attached(regrow.RandomReplacement(0.05, 3), make_network(), seed=seed)
    for number in range(400):
        step(model, optimizer, number)
        silent = {event.unit for event in plastic.events if event.step == number + 1}
        assert not model[2].weight[:, list(silent)].any()
    return [(event.step, event.unit) for event in plastic.events]


def test_units_by_lot_at_the_moments_of_continual_backpropagation() -> None:
    events = run(0)
    model, optimizer, plastic = attached(regrow.ContinualBackprop(0.05, 3))
    for number in range(400):
        step(model, optimizer, number)
    assert [step for step, _ in events] == [event.step for event in plastic.events]
    units = [unit for _, unit in events]
    assert len(units) > 60 and all(units.count(unit) > 8 for unit in range(4))
    assert run(0) == events and run(1) != events


def test_a_rate_of_0_is_nothing() -> None:
    assert does_nothing(regrow.RandomReplacement(0.0, 0))


def test_bad_settings() -> None:
    with pytest.raises(ConfigError, match=r"RandomReplacement.replacement_rate is a share and must lie in \[0, 1\]"):
        regrow.RandomReplacement(2.0)
    with pytest.raises(
        ConfigError, match="RandomReplacement.budget cannot be 'lot'; Known: bernoulli, carried, carried_of_all"
    ):
        regrow.RandomReplacement(budget="lot")
