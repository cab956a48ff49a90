"""Choosing and re-drawing on arrays, by hand."""

import numpy as np

from regrow.kernels.adam import Adam
from regrow.kernels.network import Network, empty_network, refresh_hidden
from regrow.kernels.replacement import EACH_STEP, RANDOM, WHEN_DUE, Plan, Rule, Units, observe, replace_due

WIDTHS = [3, 4, 4, 2]
TABLE = np.array([0, 0.5], np.float32)
INF, NAN = np.inf, np.nan


def ones() -> tuple[Network, Units]:
    network = empty_network(WIDTHS)
    network.theta[:] = 1
    refresh_hidden(network)
    return network, Units(np.ones(8, np.float32), np.ones(8, np.float32), np.zeros(8, np.int64), np.zeros(8, np.bool_))


def adam_of(network: Network) -> Adam:
    return Adam(0.9, 0.999, np.float32(1e-8), np.ones_like(network.theta), np.ones_like(network.theta))


def rule_of(kind: int, decay_rate: float = 0.5, adaptable: bool = False) -> Rule:
    return Rule(kind, adaptable, np.float32(decay_rate), np.float32(1 - decay_rate), TABLE, 10)


def weights_of(values: np.ndarray, layer: int) -> list[list[float]]:
    start = sum((WIDTHS[k] + 1) * WIDTHS[k + 1] for k in range(layer))
    rows, width = WIDTHS[layer], WIDTHS[layer + 1]
    return values[start : start + rows * width].reshape(rows, width).tolist()


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
    rule = rule_of(RANDOM)._replace(maturity=maturity)
    replace_due(rule, units, plan, 0, 1, step, network, adam_of(network), np.empty(4, np.float32))
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
    plan, adam = plan_of([0, 1], [1, 1]), adam_of(network)
    replace_due(rule_of(WHEN_DUE), units, plan, 0, 2, 20, network, adam, np.empty(4, np.float32))
    assert plan.chosen.tolist() == [1, 2]
    # Unit 1 of the first group: new column above, its outgoing row 0 but for what newborn 2 drew.
    assert [row[1] for row in weights_of(network.theta, 0)] == [5, 5, 5]
    assert weights_of(network.theta, 1) == [[1, 1, 5, 1], [0, 0, 5, 0], [1, 1, 5, 1], [1, 1, 5, 1]]
    assert weights_of(network.theta, 2)[2] == [0, 0]
    assert units.running.tolist() == [1, 0, 1, 1, 1, 1, 0, 1]
    assert units.mean.tolist() == [1, 0, 1, 1, 1, 1, 0, 1]
    assert units.born.tolist() == [0, 20, 0, 0, 0, 0, 20, 0]
    # What the optimizer remembers of all these weights is gone, and of no others.
    for moments in (adam.mean, adam.square):
        assert weights_of(moments, 0) == [[1, 0, 1, 1]] * 3
        assert weights_of(moments, 1) == [[1, 1, 0, 1], [0, 0, 0, 0], [1, 1, 0, 1], [1, 1, 0, 1]]
        assert weights_of(moments, 2) == [[1, 1], [1, 1], [0, 0], [1, 1]]
        biases = [moments[12:16].tolist(), moments[32:36].tolist(), moments[44:].tolist()]
        assert biases == [[1, 0, 1, 1], [1, 1, 0, 1], [1, 1]]


def test_sums_follow_what_is_replaced() -> None:
    network, units = ones()
    plan = plan_of([0, 1], [2, 1], drawn=-3.0)
    replace_due(rule_of(WHEN_DUE), units, plan, 0, 2, 20, network, adam_of(network), np.empty(4, np.float32))
    outgoing, incoming = network.outgoing.copy(), network.incoming.copy()
    refresh_hidden(network)
    assert outgoing[3:].tolist() == network.outgoing[3:].tolist()
    assert incoming[3:11].tolist() == network.incoming[3:11].tolist()


def test_of_units_alike_those_with_large_incoming_weights_go_first() -> None:
    network, units = ones()
    network.theta[[1, 2]] = -7, 3  # of units 1 and 2
    replace = rule_of(WHEN_DUE, adaptable=True), units, plan_of([0], [2])
    replace_due(*replace, 0, 1, 20, network, adam_of(network), np.empty(4, np.float32))
    assert replace[2].chosen.tolist() == [1, 2]


def test_a_reading_that_is_not_finite_is_left_out_and_noted() -> None:
    network, units = ones()
    values = np.array([9, 9, 9, 3, NAN, INF, 1, 1, 1, 1, 1, 9, 9], np.float32)
    observe(rule_of(WHEN_DUE), units, 1, network, values)
    assert units.running.tolist() == [2, 1, 1, 1, 1, 1, 1, 1]
    assert units.not_finite.tolist() == [False, True, True, False, False, False, False, False]


def test_the_adaptable_contribution_by_hand() -> None:
    network, units = ones()
    values = np.array([9, 9, 9, 4, NAN, 1, 1, 1, 1, 1, 1, 9, 9], np.float32)
    units.running[:] = 0
    # At age 1: mean 1 and value 4 make 2.5, corrected by ½ to 5, from which 4 is 1 away; 4 weights out, 3 in.
    observe(rule_of(EACH_STEP, adaptable=True), units, 1, network, values)
    assert units.running[:2].tolist() == [np.float32(0.5) * np.float32(4 / 3), 0]
    assert units.mean[:3].tolist() == [2.5, 1, 1]
    # Beyond the table the correction is computed: at age 2 it is ¾.
    observe(rule_of(WHEN_DUE, adaptable=True), units, 2, network, values)
    assert units.running[2] == np.float32(0.5 * (4 / 3 * 0.5) + 0.5 * abs(1 - 1 / 0.75))
