"""Online learning of a ReLU network, one example per step, with everything of a step fused in one loop.

Softmax cross-entropy, plain SGD. Equal to the plain path (`torch.optim.SGD` with `regrow.attach`) step by step,
within float32 rounding; all random draws are made outside and handed in.
"""

from typing import NamedTuple

import numpy as np

from regrow.kernels.compiled import Flags, Floats, Integers, compiled
from regrow.kernels.dense import ascend, descend, descend_first, find_active, shrink_silent
from regrow.kernels.network import Network, bias_of, refresh_sums, sums_of, weights_of
from regrow.kernels.replacement import NONE, RANDOM, Plan, Rule, Units, observe, replace_due


class Decay(NamedTuple):
    """What the weight methods do, as numbers.

    Attributes:
        keep: factor on all parameters in every step (L2); 1 for none.
        shrink: factor on all parameters after every step whose number `period` divides.
        noise_std: standard deviation of what is then added.
        period: steps; 0 for never.
        noise: standard normal draws, one row per such step, in the layout of `Network.theta`; no rows for none.
    """

    keep: np.float32
    shrink: np.float32
    noise_std: np.float32
    period: int
    noise: Floats


class Pass(NamedTuple):
    """Scratch for one example: values of all layers front to back, input first.

    Attributes:
        values: of the input and, after the ReLU, of the units; last the logits.
        slopes: gradients of the loss with respect to them.
        active: for each layer's input, the positions that are not zero.
        counts: how many.
    """

    values: Floats
    slopes: Floats
    active: Integers
    counts: Integers


@compiled
def learn(
    network: Network, units: Units, inputs: Floats, labels: Integers, first_step: int, rate: np.float32,
    decay: Decay, rule: Rule, plan: Plan, correct: Flags,
) -> None:  # fmt: skip
    """Learn examples in order, in place.

    Args:
        network: parameters.
        units: state of the hidden units.
        inputs: [n, inputs of the network].
        labels: classes [n].
        first_step: how many steps were taken before.
        rate: SGD's step size.
        decay: the weight methods.
        rule: the unit method.
        plan: the replacements that are due during these examples.
        correct: output [n]: whether the most likely class was the label, just before each step.
    """
    layers = network.widths.shape[0] - 1
    total = network.starts[layers + 1]
    scratch = Pass(
        np.empty(total, dtype=np.float32),
        np.empty(total, dtype=np.float32),
        np.empty(total, dtype=np.int64),
        np.empty(layers, dtype=np.int64),
    )
    utility = np.empty(network.widths.max(), dtype=np.float32)
    inside = slice(network.starts[1], network.starts[layers])
    entry = 0
    perturbed = 0
    for t in range(inputs.shape[0]):
        scratch.values[: network.widths[0]] = inputs[t]
        correct[t] = _forward(network, scratch) == labels[t]
        _softmax_slope(network, scratch, labels[t])
        _step(network, scratch, rate, decay.keep)
        step = first_step + t + 1
        if decay.period > 0 and step % decay.period == 0:
            _perturb(network, decay, perturbed)
            perturbed += 1
        if rule.kind == NONE:
            continue
        if rule.kind != RANDOM:
            observe(rule, units, scratch.values[inside], network.sums[network.widths[0] :])
        last = entry
        while last < plan.at.shape[0] and plan.at[last] == t:
            last += 1
        if last > entry:
            replace_due(rule, units, plan, entry, last, step, network, utility)
            entry = last


@compiled
def _values(network: Network, values: Floats, layer: int) -> Floats:
    return values[network.starts[layer] : network.starts[layer + 1]]


@compiled
def _active(network: Network, scratch: Pass, layer: int) -> Integers:
    start = network.starts[layer]
    return scratch.active[start : start + scratch.counts[layer]]


@compiled
def _forward(network: Network, scratch: Pass) -> int:
    """Fill in the values; returns the most likely class: the first of several, and NaN above all, as in torch."""
    layers = scratch.counts.shape[0]
    for layer in range(layers):
        x, z = _values(network, scratch.values, layer), _values(network, scratch.values, layer + 1)
        scratch.counts[layer] = find_active(x, scratch.active[network.starts[layer] :])
        ascend(weights_of(network, layer), bias_of(network, layer), x, _active(network, scratch, layer), z)
        if layer < layers - 1:
            for j in range(z.shape[0]):
                # Not max(z, 0), which would hide NaN.
                z[j] = np.float32(0) if z[j] <= 0 else z[j]
    logits = _values(network, scratch.values, layers)
    best = 0
    for j in range(1, logits.shape[0]):
        if logits[j] > logits[best] or (np.isnan(logits[j]) and not np.isnan(logits[best])):
            best = j
    return best


@compiled
def _softmax_slope(network: Network, scratch: Pass, label: int) -> None:
    """Gradient of the cross-entropy with respect to the logits."""
    layers = scratch.counts.shape[0]
    logits, slope = _values(network, scratch.values, layers), _values(network, scratch.slopes, layers)
    top = logits.max()
    total = np.float32(0)
    for j in range(logits.shape[0]):
        slope[j] = np.exp(logits[j] - top)
        total += slope[j]
    for j in range(logits.shape[0]):
        slope[j] /= total
    slope[label] -= np.float32(1)


@compiled
def _step(network: Network, scratch: Pass, rate: np.float32, keep: np.float32) -> None:
    """Backward pass and SGD step in one, from the last layer to the first."""
    for layer in range(scratch.counts.shape[0] - 1, -1, -1):
        weights, bias, sums = weights_of(network, layer), bias_of(network, layer), sums_of(network, layer)
        x, active = _values(network, scratch.values, layer), _active(network, scratch, layer)
        below, slope = _values(network, scratch.slopes, layer), _values(network, scratch.slopes, layer + 1)
        if keep != 1:
            shrink_silent(weights, active, slope.shape[0], keep, sums)
        if layer == 0:
            descend_first(weights, x, active, slope, rate, keep)
        else:
            descend(weights, x, active, slope, rate, keep, below, sums)
        for j in range(slope.shape[0]):
            bias[j] = keep * bias[j] - rate * slope[j]


@compiled
def _perturb(network: Network, decay: Decay, row: int) -> None:
    theta = network.theta
    if decay.noise.shape[0]:
        noise = decay.noise[row]
        for i in range(theta.shape[0]):
            theta[i] = decay.shrink * theta[i] + decay.noise_std * noise[i]
    else:
        for i in range(theta.shape[0]):
            theta[i] *= decay.shrink
    for layer in range(1, network.widths.shape[0] - 1):
        refresh_sums(network, layer)
