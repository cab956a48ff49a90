"""Utilities and replacements of hidden units, on the arrays of a fused loop."""

from typing import NamedTuple

import numpy as np

from regrow.kernels.adam import Adam
from regrow.kernels.compiled import Flags, Floats, Integers, at, compiled
from regrow.kernels.network import Network, refresh_incoming

NONE, EACH_STEP, WHEN_DUE, RANDOM = range(4)


class Units(NamedTuple):
    """State of all hidden units, front to back in one array each.

    Attributes:
        running: the running mean, of the utility (EACH_STEP) or of the activity in it (WHEN_DUE).
        mean: that of h, for the adaptable contribution.
        born: the step after which each unit was drawn.
        not_finite: whether a reading was ever NaN or infinite.
    """

    running: Floats
    mean: Floats
    born: Integers
    not_finite: Flags


class Rule(NamedTuple):
    """A unit method, as numbers.

    Attributes:
        kind: NONE, EACH_STEP, WHEN_DUE or RANDOM.
        adaptable: whether the utility is the adaptable contribution.
        decay_rate: η.
        rate: 1 - η.
        corrections: 1 - η^age, by age, as far as it is worth a table; the last holds for all above it if that is 1.
        maturity: units are eligible once older than this.
    """

    kind: int
    adaptable: bool
    decay_rate: np.float32
    rate: np.float32
    corrections: Floats
    maturity: int


class Plan(NamedTuple):
    """What is due, known beforehand, with the draws that it takes; one entry per step and group that has any.

    Attributes:
        at: index of the example after which it is due; ascending, and front to back within a step.
        group: index of the group, from 0.
        due: how many units.
        drawn_from: where in `drawn` the new incoming weights start, (due, fan-in) row by row.
        drawn: new incoming weights.
        scores_from: where in `scores` the units' lots start (RANDOM).
        scores: lots.
        chosen_from: where in `chosen` the units go.
        chosen: output: the replaced units, lowest utility first.
    """

    at: Integers
    group: Integers
    due: Integers
    drawn_from: Integers
    drawn: Floats
    scores_from: Integers
    scores: Floats
    chosen_from: Integers
    chosen: Integers


@compiled
def tracks_incoming(rule: Rule) -> bool:
    """Whether Σ|w_in| is needed at each step."""
    return rule.kind == EACH_STEP and rule.adaptable


@compiled
def observe(rule: Rule, units: Units, step: int, network: Network, values: Floats) -> None:
    """One step of the running means. A reading that is not finite is left out.

    Args:
        rule: the method.
        units: state of the units.
        step: number of the optimizer step, from 1.
        network: the network after the step, its sums up to date.
        values: values of all layers before it.
    """
    first, running = network.starts[1], units.running
    weighed = rule.kind == EACH_STEP
    for i in range(running.shape[0]):
        if rule.adaptable:
            new = _deviation(rule, units, step, i, values[at(first + i)])
        else:
            new = abs(values[at(first + i)])
        if weighed:
            new *= network.outgoing[at(first + i)]
            if rule.adaptable:
                new /= np.float32(network.incoming[at(first + i)])
        finite = np.isfinite(new)
        running[at(i)] += rule.rate * (new - running[at(i)]) if finite else np.float32(0)
        units.not_finite[at(i)] |= not finite


@compiled
def _deviation(rule: Rule, units: Units, step: int, i: int, h: np.float32) -> np.float32:
    """|h - ĥ|, where the corrected running mean ĥ takes h in beforehand."""
    mean = units.mean[at(i)]
    if np.isfinite(h):
        mean += rule.rate * (h - mean)
        units.mean[at(i)] = mean
    return abs(h - mean / _correction(rule, step - units.born[at(i)]))


@compiled
def _correction(rule: Rule, age: int) -> np.float32:
    last = rule.corrections.shape[0] - 1
    correction: np.float32 = rule.corrections[at(min(age, last))]
    if age > last and correction != 1:
        correction = np.float32(1) - rule.decay_rate ** np.float32(age)
    return correction


@compiled
def replace_due(
    rule: Rule, units: Units, plan: Plan, first: int, stop: int, step: int, network: Network, adam: Adam,
    utility: Floats,
) -> None:  # fmt: skip
    """Carry out entries `first` to `stop` of the plan, all of one step.

    Args:
        rule: the method.
        units: state of the units.
        plan: what is due.
        first: first entry.
        stop: one past the last entry.
        step: number of the optimizer step, from 1.
        network: the network.
        adam: what the optimizer remembers; that of replaced weights is cleared.
        utility: scratch of the size of the largest group.
    """
    for entry in range(first, stop):
        _choose(rule, units, plan, entry, step, network, utility)
    # All outgoing weights first: where one is also the incoming weight of another newborn, the re-draw wins.
    for entry in range(first, stop):
        _silence(plan, entry, network, adam)
    for entry in range(first, stop):
        _redraw(units, plan, entry, step, network, adam)


@compiled
def _choose(rule: Rule, units: Units, plan: Plan, entry: int, step: int, network: Network, utility: Floats) -> None:
    group = plan.group[entry]
    size = network.widths[group + 1]
    begin = network.starts[group + 1]
    start = begin - network.starts[1]
    if rule.kind == WHEN_DUE and rule.adaptable:
        refresh_incoming(network, group)
    for i in range(size):
        age = step - units.born[start + i]
        if rule.kind == RANDOM:
            value = plan.scores[plan.scores_from[entry] + i]
        else:
            value = units.running[start + i] / _correction(rule, age)
            if rule.kind == WHEN_DUE:
                value *= network.outgoing[begin + i]
                if rule.adaptable:
                    value /= np.float32(network.incoming[begin + i])
        if not np.isfinite(value):
            # No reason to replace a unit: such units come last.
            units.not_finite[start + i] = True
            value = np.float32(np.inf)
        utility[i] = value if age > rule.maturity else np.float32(np.nan)
    for k in range(plan.due[entry]):
        lowest = -1
        for i in range(size):
            # What is not eligible, or already taken, is NaN.
            if not np.isnan(utility[i]) and (lowest < 0 or utility[i] < utility[lowest]):
                lowest = i
        utility[lowest] = np.float32(np.nan)
        plan.chosen[plan.chosen_from[entry] + k] = lowest


@compiled
def _silence(plan: Plan, entry: int, network: Network, adam: Adam) -> None:
    layer = plan.group[entry] + 1
    width, above = network.widths[layer + 1], network.starts[layer + 1]
    for k in range(plan.due[entry]):
        unit = plan.chosen[plan.chosen_from[entry] + k]
        row = network.offsets[layer] + unit * width
        for j in range(width):
            network.incoming[above + j] -= abs(network.theta[row + j])
            network.theta[row + j] = 0
            _forget(adam, row + j)
        network.outgoing[network.starts[layer] + unit] = 0


@compiled
def _redraw(units: Units, plan: Plan, entry: int, step: int, network: Network, adam: Adam) -> None:
    group = plan.group[entry]
    fan_in, size, below = network.widths[group], network.widths[group + 1], network.starts[group]
    start = network.starts[group + 1] - network.starts[1]
    for k in range(plan.due[entry]):
        unit = plan.chosen[plan.chosen_from[entry] + k]
        total = np.float64(0)
        for i in range(fan_in):
            place = network.offsets[group] + i * size + unit
            new = plan.drawn[plan.drawn_from[entry] + k * fan_in + i]
            network.outgoing[below + i] += abs(new) - abs(network.theta[place])
            total += abs(new)
            network.theta[place] = new
            _forget(adam, place)
        network.incoming[network.starts[group + 1] + unit] = total
        bias = network.offsets[group + 1] - size + unit
        network.theta[bias] = 0
        _forget(adam, bias)
        units.running[start + unit] = 0
        units.mean[start + unit] = 0
        units.born[start + unit] = step


@compiled
def _forget(adam: Adam, place: int) -> None:
    if adam.mean.shape[0]:
        adam.mean[place] = 0
        adam.square[place] = 0
