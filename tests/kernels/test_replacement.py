"""Choosing and re-drawing on arrays, by hand."""

import numpy as np

from regrow.kernels.network import Network, empty_network, refresh_sums, sums_of, weights_of
from regrow.kernels.replacement import RANDOM, WHEN_DUE, Plan, Rule, Units, observe, replace_due

WIDTHS = [3, 4, 4, 2]
INF, NAN = np.inf, np.nan


def ones() -> tuple[Network, Units]:
    network = empty_network(WIDTHS)
    network.theta[:] = 1
    for layer in range(3):
        refresh_sums(network, layer)
    return network, Units(np.ones(8, np.float32), np.zeros(8, np.int64), np.zeros(8, np.bool_))


def plan_of(groups: list[int], due: list[int], drawn: float = 5.0, scores: list[float] | None = None) -> Plan:
    fan_ins = [WIDTHS[group] * many for group, many in zip(groups, due, strict=True)]
    whole = [np.array(numbers, dtype=np.int64) for numbers in (groups, due)]
    starts = [np.cumsum([0, *numbers[:-1]]).astype(np.int64) for numbers in (fan_ins, [4] * len(groups), due)]
    return Plan(
        at=np.zeros(len(groups), np.int64),
        group=whole[0],
        due=whole[1],
        drawn_from=starts[0],
        drawn=np.full(sum(fan_ins), drawn, np.float32),
        scores_from=starts[1],
        scores=np.array(scores or [], np.float32),
        chosen_from=starts[2],
        chosen=np.full(sum(due), -1, np.int64),
    )


def chosen(scores: list[float], due: int, born: list[int], maturity: int = 10, step: int = 20) -> list[int]:
    network, units = ones()
    units.born[:4] = born
    plan = plan_of([0], [due], scores=scores)
    rule = Rule(RANDOM, np.float32(0), np.float32(0), maturity)
    replace_due(rule, units, plan, 0, 1, step, network, np.empty(4, np.float32))
    return plan.chosen.tolist()


def test_the_lowest_go_first_and_of_equals_the_first() -> None:
    assert chosen([3, 1, 2, 1], 3, born=[0] * 4) == [1, 3, 2]


def test_the_young_stay() -> None:
    assert chosen([3, 1, 2, 1], 2, born=[0, 10, 9, 10]) == [2, 0]


def test_what_is_not_finite_goes_last() -> None:
    assert chosen([NAN, 7, -INF, INF], 3, born=[0] * 4) == [1, 0, 2]


def test_of_two_newborns_that_meet_the_redraw_wins() -> None:
    network, units = ones()
    units.running[:] = [1, 0, 1, 1, 1, 1, 0, 1]
    plan = plan_of([0, 1], [1, 1])
    rule = Rule(WHEN_DUE, np.float32(0.99), np.float32(0.01), 10)
    replace_due(rule, units, plan, 0, 2, 20, network, np.empty(4, np.float32))
    assert plan.chosen.tolist() == [1, 2]
    # Unit 1 of the first group: new column above, its outgoing row 0 but for what newborn 2 drew.
    assert weights_of(network, 0).reshape(3, 4)[:, 1].tolist() == [5, 5, 5]
    assert weights_of(network, 1).reshape(4, 4).tolist() == [[1, 1, 5, 1], [0, 0, 5, 0], [1, 1, 5, 1], [1, 1, 5, 1]]
    assert weights_of(network, 2).reshape(4, 2)[2].tolist() == [0, 0]
    assert sums_of(network, 1).tolist() == [8, 5, 8, 8]
    assert sums_of(network, 2).tolist() == [2, 2, 0, 2]
    assert units.running.tolist() == [1, 0, 1, 1, 1, 1, 0, 1]
    assert units.born.tolist() == [0, 20, 0, 0, 0, 0, 20, 0]


def test_a_reading_that_is_not_finite_is_left_out_and_noted() -> None:
    _, units = ones()
    rule = Rule(WHEN_DUE, np.float32(0.5), np.float32(0.5), 10)
    observe(rule, units, np.array([3, NAN, INF, 1, 1, 1, 1, 1], np.float32), np.ones(8, np.float32))
    assert units.running.tolist() == [2, 1, 1, 1, 1, 1, 1, 1]
    assert units.not_finite.tolist() == [False, True, True, False, False, False, False, False]
