"""A method that is off changes nothing, one that is on does, and the same seed gives the same numbers."""

import pytest

from tests.conformance.cases import (
    OPTIMIZERS,
    PROBLEMS,
    Run,
    acts_at_task_changes_only,
    brisk,
    every_case,
    every_method,
    off,
    replaces,
    same,
    start,
)  # fmt: skip

_bare: dict[tuple[str, str], Run] = {}


def _without(problem: str, optimizer: str) -> Run:
    if (problem, optimizer) not in _bare:
        _bare[problem, optimizer] = start(problem, optimizer, None).train(15)
    return _bare[problem, optimizer]


@pytest.mark.parametrize("problem", PROBLEMS)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@every_method()
def test_a_method_that_is_off_changes_nothing(method: str, optimizer: str, problem: str) -> None:
    run = start(problem, optimizer, off(method)).train(15)
    assert same(run.state, _without(problem, optimizer).state)
    assert not run.plastic.events


@every_case(acts_at_task_changes_only)
def test_a_method_that_is_not_told_of_a_task_change_waits(method: str, problem: str, optimizer: str) -> None:
    run = start(problem, optimizer, brisk(method), task=0).train(15)
    assert same(run.state, _without(problem, optimizer).state)


@every_case()
def test_a_method_that_is_on_acts(method: str, problem: str, optimizer: str) -> None:
    run = start(problem, optimizer, brisk(method)).train(15)
    changed = not same(run.state, _without(problem, optimizer).state)
    if method == "backprop":
        assert not changed
    elif replaces(brisk(method)):
        assert changed == bool(run.plastic.events)
        assert changed or problem != "mlp", "it replaces nothing in 15 steps: its `brisk` settings are not"
    else:
        assert changed


@every_case()
def test_same_seed_same_numbers(method: str, problem: str, optimizer: str) -> None:
    first, second = (start(problem, optimizer, brisk(method), seed=5).train(15) for _ in range(2))
    assert same(first.state, second.state)
    assert first.plastic.events == second.plastic.events
    for name, value in first.plastic.state_dict().items():
        assert value.equal(second.plastic.state_dict()[name]), name
