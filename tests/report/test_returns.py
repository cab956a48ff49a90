"""What is said of agents."""

import polars as pl
import pytest

from regrow.report.returns import is_of_agents, sentence
from regrow.report.view import view_of


def curves(**returns):
    """One row for each task: of each method, a list for each seed."""
    rows = [
        {"study": "ant", "scale": "laptop", "method": method, "seed": seed, "task": task, "return": float(value)}
        for method, seeds in returns.items()
        for seed, values in enumerate(seeds)
        for task, value in enumerate(values)
    ]
    return pl.DataFrame(rows)


def test_the_last_tasks_stand_beside_the_best_ones():
    rising_and_falling = [[0, 100, 200, 300, 400, 500, 400, 300, 200, 100]] * 3
    steady = [[10 * task + seed for task in range(10)] for seed in range(3)]
    table = curves(standard=rising_and_falling, cbp=steady)
    assert is_of_agents(table)
    assert sentence(table) == (
        "Return in the last 5 of 10 tasks, and in the best 5 tasks in a row on the way there: Continual backprop 71 "
        "(70 to 72), 71; standard 300 (300 to 300), 380."
    )
    assert view_of(table).sentence(table) == sentence(table)


def test_long_runs_are_judged_by_stretches():
    table = curves(l2=[[float(min(task, 99 - task)) for task in range(100)]] * 2)
    assert sentence(table) == (
        "Return in the last 20 of 100 tasks, and in the best 20 tasks in a row on the way there: L2 10 (10 to 10), 44."
    )


def test_one_seed_has_no_interval():
    assert "L2 5 (one seed), 5" in sentence(curves(l2=[[1, 5]]))


@pytest.mark.parametrize("column", ["accuracy", "squared_error"])
def test_other_outcomes_are_not_agents(column):
    assert not is_of_agents(curves(l2=[[1, 5]]).rename({"return": column}))
