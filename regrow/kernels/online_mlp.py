"""Online learning of a fully connected network, one example per step, with everything of a step fused in one loop.

Equal to the plain path (an optimizer of torch with `regrow.attach`) step by step, within float32 rounding; all random
draws are made outside and handed in.
"""

from typing import NamedTuple

import numpy as np

from regrow.kernels.activations import activate, find_active
from regrow.kernels.adam import Adam, Stride, adam_bias, adam_step, stride_of
from regrow.kernels.compiled import Floats, Integers, at, compiled
from regrow.kernels.dense import ascend, decay_silent, descend, descend_first, descend_tracked
from regrow.kernels.losses import CROSS_ENTROPY, is_right, softmax_slope, squared_error_slope
from regrow.kernels.network import Network, refresh_hidden
from regrow.kernels.replacement import NONE, RANDOM, Plan, Rule, Units, observe, replace_due, tracks_incoming

# Sums of weights that are kept up to date change by change are taken anew after so many steps, so that no rounding
# piles up in them.
_REFRESHED = 1000


class Examples(NamedTuple):
    """What is learned in one call.

    Attributes:
        inputs: [n, inputs of the network].
        classes: labels [n] for the cross-entropy.
        targets: [n, outputs] for the squared error; n = 0 otherwise.
        masks: of dropout, [n, hidden units]: what activations are multiplied by; n = 0 for no dropout.
        judged: output [n]: 1 or 0, whether the most likely class was the label just before each step, or the squared
            error there.
    """

    inputs: Floats
    classes: Integers
    targets: Floats
    masks: Floats
    judged: Floats


class Descent(NamedTuple):
    """Loss and optimizer.

    Attributes:
        loss: CROSS_ENTROPY or SQUARED_ERROR.
        rate: step size.
        adam: with its arrays, or with empty ones for plain SGD.
    """

    loss: int
    rate: float
    adam: Adam


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
    """Scratch for one example: of all layers front to back, input first.

    Attributes:
        values: of the input and of the units, after activation and dropout; last the outputs.
        bends: derivatives of the activations; 0 for inputs.
        slopes: gradients of the loss with respect to inputs and pre-activations.
        active: for each layer's input, the positions at which a value or its derivative is not zero.
        counts: how many.
        moved: by how much Σ|w| of the columns of the layer at work has grown.
        utility: of the units of one group.
    """

    values: Floats
    bends: Floats
    slopes: Floats
    active: Integers
    counts: Integers
    moved: Floats
    utility: Floats


def scratch_for(network: Network) -> Pass:
    """Room for one example."""
    total, widest = int(network.starts[-1]), int(network.widths.max())
    return Pass(
        np.zeros(total, dtype=np.float32),
        np.zeros(total, dtype=np.float32),
        np.zeros(total, dtype=np.float32),
        np.zeros(total, dtype=np.int64),
        np.zeros(len(network.widths) - 1, dtype=np.int64),
        np.zeros(widest, dtype=np.float32),
        np.zeros(widest, dtype=np.float32),
    )


@compiled
def learn(
    network: Network, units: Units, examples: Examples, first_step: int, descent: Descent, decay: Decay, rule: Rule,
    plan: Plan, scratch: Pass,
) -> None:  # fmt: skip
    """Learn examples in order, in place.

    Args:
        network: parameters.
        units: state of the hidden units.
        examples: what to learn.
        first_step: how many steps were taken before.
        descent: loss and optimizer.
        decay: the weight methods.
        rule: the unit method.
        plan: the replacements that are due during these examples.
        scratch: as `scratch_for` the network.
    """
    tracked = tracks_incoming(rule)
    entry = 0
    perturbed = 0
    for t in range(examples.inputs.shape[0]):
        step = first_step + t + 1
        _forward(network, scratch, examples, t)
        _judge(network, scratch, examples, descent.loss, t)
        if descent.adam.mean.shape[0]:
            stride = stride_of(descent.adam, descent.rate, step)
            _adam(network, scratch, descent.adam, stride, decay.keep, tracked)
        else:
            _sgd(network, scratch, np.float32(descent.rate), decay.keep, tracked)
        if decay.period > 0 and step % decay.period == 0:
            _perturb(network, decay, perturbed)
            perturbed += 1
        if rule.kind == NONE:
            continue
        if rule.kind != RANDOM:
            if step % _REFRESHED == 0:
                refresh_hidden(network)
            observe(rule, units, step, network, scratch.values)
        last = entry
        while last < plan.at.shape[0] and plan.at[last] == t:
            last += 1
        if last > entry:
            replace_due(rule, units, plan, entry, last, step, network, descent.adam, scratch.utility)
            entry = last


@compiled
def _forward(network: Network, scratch: Pass, examples: Examples, t: int) -> None:
    """Fill in the values, their derivatives and what is active."""
    values, bends = scratch.values, scratch.bends
    layers = scratch.counts.shape[0]
    for i in range(network.widths[0]):
        values[at(i)] = examples.inputs[at(t), at(i)]
    for layer in range(layers):
        below, above, width = network.starts[layer], network.starts[layer + 1], network.widths[layer + 1]
        count = find_active(values, bends, below, network.widths[layer], scratch.active)
        scratch.counts[layer] = count
        bias = network.offsets[layer + 1] - width
        ascend(network.theta, network.offsets[layer], bias, width, values, below, above, scratch.active, count)
        if layer == layers - 1:
            break
        activate(network.activations[layer], network.shapes[layer], values, bends, above, width)
        if examples.masks.shape[0]:
            first = above - network.starts[1]
            for j in range(width):
                mask = examples.masks[at(t), at(first + j)]
                values[at(above + j)] *= mask
                bends[at(above + j)] *= mask


@compiled
def _judge(network: Network, scratch: Pass, examples: Examples, loss: int, t: int) -> None:
    """Say how good the prediction is, and fill in the gradient with respect to it."""
    width = network.widths[-1]
    start = network.starts[-1] - width
    values, slopes = scratch.values, scratch.slopes
    if loss == CROSS_ENTROPY:
        label = examples.classes[at(t)]
        examples.judged[at(t)] = is_right(values, start, width, label)
        softmax_slope(values, slopes, start, width, label)
    else:
        examples.judged[at(t)] = squared_error_slope(values, slopes, start, width, examples.targets, t)


@compiled
def _sgd(network: Network, scratch: Pass, rate: np.float32, keep: np.float32, tracked: bool) -> None:
    """Backward pass and SGD step in one, from the last layer to the first."""
    theta, slopes, active, outgoing = network.theta, scratch.slopes, scratch.active, network.outgoing
    for layer in range(scratch.counts.shape[0] - 1, -1, -1):
        weights, width, count = network.offsets[layer], network.widths[layer + 1], scratch.counts[layer]
        below, above = network.starts[layer], network.starts[layer + 1]
        if keep != 1:
            decay_silent(
                theta, weights, width, network.widths[layer], below, active, count, keep, outgoing, scratch.moved,
                tracked,
            )  # fmt: skip
        if layer > 0:
            for i in range(network.widths[layer]):
                slopes[at(below + i)] = 0
        if tracked:
            descend_tracked(
                theta, weights, width, scratch.values, scratch.bends, slopes, below, above, active, count, rate, keep,
                outgoing, scratch.moved,
            )  # fmt: skip
            _note_moved(network, scratch, layer)
        elif layer > 0:
            descend(
                theta, weights, width, scratch.values, scratch.bends, slopes, below, above, active, count, rate, keep,
                outgoing,
            )  # fmt: skip
        else:
            descend_first(theta, weights, width, scratch.values, slopes, below, above, active, count, rate, keep)
        bias = network.offsets[layer + 1] - width
        for j in range(width):
            theta[at(bias + j)] = keep * theta[at(bias + j)] - rate * slopes[at(above + j)]


@compiled
def _adam(network: Network, scratch: Pass, adam: Adam, stride: Stride, keep: np.float32, tracked: bool) -> None:
    """Backward pass and Adam's step in one, from the last layer to the first."""
    for layer in range(scratch.counts.shape[0] - 1, -1, -1):
        weights, width = network.offsets[layer], network.widths[layer + 1]
        below, above = network.starts[layer], network.starts[layer + 1]
        adam_step(
            network.theta, weights, width, network.widths[layer], scratch.values, scratch.bends, scratch.slopes, below,
            above, adam, stride, keep, network.outgoing, scratch.moved, tracked,
        )  # fmt: skip
        if tracked:
            _note_moved(network, scratch, layer)
        bias = network.offsets[layer + 1] - width
        adam_bias(network.theta, bias, width, scratch.slopes, above, adam, stride, keep)


@compiled
def _note_moved(network: Network, scratch: Pass, layer: int) -> None:
    start = network.starts[layer + 1]
    for j in range(network.widths[layer + 1]):
        network.incoming[at(start + j)] += scratch.moved[at(j)]
        scratch.moved[at(j)] = 0


@compiled
def _perturb(network: Network, decay: Decay, row: int) -> None:
    theta = network.theta
    if decay.noise.shape[0]:
        for i in range(theta.shape[0]):
            theta[at(i)] = decay.shrink * theta[at(i)] + decay.noise_std * decay.noise[at(row), at(i)]
    else:
        for i in range(theta.shape[0]):
            theta[at(i)] *= decay.shrink
    refresh_hidden(network)
