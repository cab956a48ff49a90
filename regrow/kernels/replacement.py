"""Utilities and replacements of hidden units, on the arrays of a fused loop."""

from typing import NamedTuple

import numpy as np

from regrow.kernels.compiled import Flags, Floats, Integers, compiled
from regrow.kernels.dense import row_sum
from regrow.kernels.network import Network, bias_of, refresh_sums, sums_of, weights_of

NONE, EACH_STEP, WHEN_DUE, RANDOM = range(4)


class Units(NamedTuple):
    """State of all hidden units, front to back in one array each.

    Attributes:
        running: the running mean, of |h|·Σ|w_out| (EACH_STEP) or of |h| (WHEN_DUE).
        born: the step after which each unit was drawn.
        not_finite: whether a reading was ever NaN or infinite.
    """

    running: Floats
    born: Integers
    not_finite: Flags


class Rule(NamedTuple):
    """A unit method, as numbers.

    Attributes:
        kind: NONE, EACH_STEP, WHEN_DUE or RANDOM.
        decay_rate: η.
        rate: 1 - η.
        maturity: units are eligible once older than this.
    """

    kind: int
    decay_rate: np.float32
    rate: np.float32
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
def observe(rule: Rule, units: Units, h: Floats, sums: Floats) -> None:
    """One step of the running means. A reading that is not finite is left out."""
    weighed = rule.kind == EACH_STEP
    running = units.running
    alarm = False
    for i in range(h.shape[0]):
        new = abs(h[i])
        if weighed:
            new *= sums[i]
        finite = np.isfinite(new)
        alarm |= not finite
        running[i] += rule.rate * (new - running[i]) if finite else np.float32(0)
    if alarm:
        for i in range(h.shape[0]):
            new = abs(h[i]) * sums[i] if weighed else abs(h[i])
            units.not_finite[i] |= not np.isfinite(new)


@compiled
def replace_due(
    rule: Rule, units: Units, plan: Plan, first: int, stop: int, step: int, network: Network, utility: Floats
) -> None:
    """Carry out entries `first` to `stop` of the plan, all of one step.

    Args:
        rule: the method.
        units: state of the units.
        plan: what is due.
        first: first entry.
        stop: one past the last entry.
        step: number of the optimizer step, from 1.
        network: the network.
        utility: scratch of the size of the largest group.
    """
    for entry in range(first, stop):
        _choose(rule, units, plan, entry, step, network, utility)
    # All outgoing weights first: where one is also the incoming weight of another newborn, the re-draw wins.
    for entry in range(first, stop):
        layer = plan.group[entry] + 1
        width = network.widths[layer + 1]
        outgoing = weights_of(network, layer)
        for k in range(plan.due[entry]):
            unit = plan.chosen[plan.chosen_from[entry] + k]
            outgoing[unit * width : (unit + 1) * width] = 0
    for entry in range(first, stop):
        _redraw(units, plan, entry, step, network)
    for entry in range(first, stop):
        _refresh(plan, entry, network)


@compiled
def _choose(rule: Rule, units: Units, plan: Plan, entry: int, step: int, network: Network, utility: Floats) -> None:
    group = plan.group[entry]
    size = network.widths[group + 1]
    sums = sums_of(network, group + 1)
    start = network.starts[group + 1] - network.starts[1]
    for i in range(size):
        age = step - units.born[start + i]
        if rule.kind == RANDOM:
            value = plan.scores[plan.scores_from[entry] + i]
        else:
            value = units.running[start + i] / (np.float32(1) - rule.decay_rate ** np.float32(age))
            if rule.kind == WHEN_DUE:
                value *= sums[i]
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
def _redraw(units: Units, plan: Plan, entry: int, step: int, network: Network) -> None:
    group = plan.group[entry]
    fan_in, size = network.widths[group], network.widths[group + 1]
    incoming, bias = weights_of(network, group), bias_of(network, group)
    start = network.starts[group + 1] - network.starts[1]
    for k in range(plan.due[entry]):
        unit = plan.chosen[plan.chosen_from[entry] + k]
        drawn = plan.drawn_from[entry] + k * fan_in
        for i in range(fan_in):
            incoming[i * size + unit] = plan.drawn[drawn + i]
        bias[unit] = 0
        units.running[start + unit] = 0
        units.born[start + unit] = step


@compiled
def _refresh(plan: Plan, entry: int, network: Network) -> None:
    """The sums of the newborns, and of every unit below, whose outgoing weights to them are new."""
    group = plan.group[entry]
    width = network.widths[group + 2]
    sums = sums_of(network, group + 1)
    for k in range(plan.due[entry]):
        unit = plan.chosen[plan.chosen_from[entry] + k]
        sums[unit] = row_sum(weights_of(network, group + 1), unit, width)
    if group > 0:
        refresh_sums(network, group)
