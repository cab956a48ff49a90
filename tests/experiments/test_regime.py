import pytest

from regrow.errors import ConfigError
from regrow.experiments.regime import Regime


def test_it_is_read_from_the_numbers_of_a_run():
    regime = Regime.of({"epochs": 3, "schedule": [[1, 0.2], [2, 0.04]], "head": "zeroed", "batch": 10})
    assert regime == Regime(epochs=3, schedule=[[1, 0.2], [2, 0.04]], head="zeroed")
    assert (regime.selection, regime.reported, regime.augmentation, regime.memory) == ("last", "last", "none", "kept")


def test_the_step_follows_the_schedule():
    regime = Regime(epochs=5, schedule=[[1, 0.2], [3, 0.04]])
    assert [regime.factor(epoch) for epoch in range(5)] == [1.0, 0.2, 0.2, 0.04, 0.04]
    assert Regime(epochs=5).factor(4) == 1.0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epochs": 0}, "Regime.epochs=0 is too small: it must be at least 1."),
        ({"epochs": 2.5}, "Regime.epochs=2.5 is not a whole number: pass an int of at least 1."),
        ({"head": "zero"}, "Regime.head cannot be 'zero'; did you mean 'zeroed'"),
        (
            {"selection": "best"},
            "Regime.selection cannot be 'best'; did you mean 'last'? Known: best_validation",
        ),
        ({"memory": "clear"}, "Regime.memory cannot be 'clear'; did you mean 'cleared'"),
        ({"reported": "first"}, "Regime.reported cannot be 'first'; Known: best, last."),
        ({"augmentation": "test"}, "Regime.augmentation cannot be 'test'; Known: none, train, train_and_test."),
        ({"schedule": [[2, 0.2], [1, 0.1]]}, "Regime.schedule must be pairs of an epoch, in ascending order, and a "),
        ({"schedule": [[1, 0.2], [1, 0.1]]}, "factor above 0, but is [[1, 0.2], [1, 0.1]]."),
        ({"schedule": [[1, 0.0]]}, "factor above 0, but is [[1, 0.0]]."),
        ({"schedule": [[-1, 0.5]]}, "factor above 0, but is [[-1, 0.5]]."),
    ],
)
def test_a_value_out_of_its_range_is_refused(settings, message):
    with pytest.raises(ConfigError) as caught:
        Regime(**{"epochs": 1, **settings})
    assert message in str(caught.value)


def test_tasks_in_turn_may_have_other_epochs():
    regime = Regime.of({"epochs": 7, "epochs_in_turn": [10, 50]})
    assert [regime.epochs_of(task) for task in range(4)] == [10, 50, 10, 50]
    assert Regime(7).epochs_of(3) == 7
    with pytest.raises(ConfigError, match="Regime.epochs=0 is too small"):
        Regime(7, epochs_in_turn=[10, 0])
