"""Replacing units of many networks of the same shape at once, without a word from the device.

How many are due, and what new weights are drawn from, is known beforehand (`replacement_plan`); which units go is found
and carried out where the networks are. S is the number of networks.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter

import torch
from torch import Tensor

from regrow.engines.batched_step import Layered, Networks, correction, weigh
from regrow.kernels.replacement import Plan
from regrow.methods import ContinualBackprop, QuotaMethod


@dataclass(frozen=True)
class Due:
    """What is due after one step in one hidden layer.

    Attributes:
        at: index of the step within what was planned.
        group: index of the layer.
        counts: how many units, by network.
        wanted: bool [S, most]: whether so many are due; `most` is the largest of the counts.
        drawn: new incoming weights, float32 [S, most, fan-in]; without meaning where none is wanted.
        lots: float32 [S, units], by which units are ranked if they are chosen by lot; else empty.
    """

    at: int
    group: int
    counts: tuple[int, ...]
    wanted: Tensor
    drawn: Tensor
    lots: Tensor


def joined(plans: Sequence[Plan], widths: Sequence[int], device: torch.device) -> dict[int, list[Due]]:
    """The plans of all networks as one, by step: with the carried budget they differ in their draws only.

    Args:
        plans: one for each network, over the same steps.
        widths: of the networks, input and output included.
        device: where they are.
    """
    entries = [
        {(int(at), int(group)): place for place, (at, group) in enumerate(zip(plan.at, plan.group, strict=True))}
        for plan in plans
    ]
    keys = sorted({key for places in entries for key in places})
    dues = [_joined(plans, [places.get(key) for places in entries], key, widths, device) for key in keys]
    return {at: list(same) for at, same in groupby(dues, key=attrgetter("at"))}


def _joined(
    plans: Sequence[Plan],
    places: Sequence[int | None],
    key: tuple[int, int],
    widths: Sequence[int],
    device: torch.device,
) -> Due:
    at, group = key
    fan_in, size = widths[group : group + 2]
    counts = tuple(0 if place is None else int(plan.due[place]) for plan, place in zip(plans, places, strict=True))
    by_lot = any(len(plan.scores) for plan in plans)
    drawn = torch.zeros(len(plans), max(counts), fan_in)
    lots = torch.zeros(len(plans), size if by_lot else 0)
    for number, (plan, place) in enumerate(zip(plans, places, strict=True)):
        if place is not None:
            first, length = int(plan.drawn_from[place]), counts[number] * fan_in
            drawn[number, : counts[number]] = torch.from_numpy(plan.drawn[first : first + length]).view(-1, fan_in)
            if by_lot:
                first = int(plan.scores_from[place])
                lots[number] = torch.from_numpy(plan.scores[first : first + size])
    wanted = torch.arange(max(counts)) < torch.tensor(counts)[:, None]
    staged = (tensor.to(device, non_blocking=True) for tensor in (wanted, drawn, lots))
    return Due(at, group, counts, *staged)


def replace_units(method: QuotaMethod, networks: Networks, dues: Sequence[Due]) -> list[Tensor]:
    """Choose and re-draw what is due after a step.

    Args:
        method: which utility, and from which age on.
        networks: changed in place.
        dues: all that is due now, front to back.

    Returns:
        For each of them the chosen units, int64 [S, most], lowest utility first.
    """
    # All are chosen before any weight changes, and re-drawn after all outgoing weights were cleared: where one weight
    # leads from a new unit to another, the re-draw wins.
    chosen = [_choose(method, networks, due) for due in dues]
    kept = [each for each in (networks.mean, networks.square) if each is not None]
    for due, units in zip(dues, chosen, strict=True):
        for held in (networks.theta, *kept):
            _write(held.weights[due.group + 1].transpose(1, 2), units, due.wanted, None)
    for due, units in zip(dues, chosen, strict=True):
        _renew(networks, due, units, kept)
    return chosen


def _choose(method: QuotaMethod, networks: Networks, due: Due) -> Tensor:
    utility = _utility(method, networks, due)
    finite = utility.isfinite()
    networks.not_finite[due.group].logical_or_(~finite)
    eligible = networks.steps - networks.born[due.group] > method.maturity_threshold
    # One that is not finite is no reason to replace a unit: such units come last, but before those that are too young.
    last = torch.finfo(utility.dtype).max
    ranked = utility.masked_fill(~finite, last).masked_fill(~eligible, float("inf"))
    return ranked.argsort(dim=1, stable=True)[:, : due.wanted.shape[1]]


def _utility(method: QuotaMethod, networks: Networks, due: Due) -> Tensor:
    if not isinstance(method, ContinualBackprop):
        return due.lots
    mean = networks.running[due.group] / correction(method, networks, due.group)
    return mean if method.weight_sums == "each_step" else weigh(method, networks, due.group, mean)


def _renew(networks: Networks, due: Due, units: Tensor, kept: Sequence[Layered]) -> None:
    number = due.group
    _write(networks.theta.weights[number], units, due.wanted, due.drawn)
    for held in kept:
        _write(held.weights[number], units, due.wanted, None)
    rests = [each.biases[number] for each in (networks.theta, *kept)]
    for rest in (*rests, networks.running[number], networks.mean_activation[number]):
        _write(rest, units, due.wanted, None)
    _write(networks.born[number], units, due.wanted, networks.steps)


def _write(values: Tensor, units: Tensor, wanted: Tensor, new: Tensor | None) -> None:
    """Put new values, or zeros, in the place of [S, units, ...] at some units of each network, where wanted."""
    rows = torch.arange(len(values), device=values.device)[:, None]
    present = values[rows, units]
    wanted = wanted.view(*wanted.shape, *[1] * (present.dim() - 2))
    replaced = torch.zeros_like(present) if new is None else new.expand_as(present)
    values.index_put_((rows, units), torch.where(wanted, replaced, present))
