"""All cheap measures of a network at once, from one forward of a batch."""

import warnings
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from regrow.errors import ConfigError
from regrow.measures.dormancy import dormant_share
from regrow.measures.magnitude import mean_magnitude, weight_magnitude
from regrow.measures.rank import ranks
from regrow.units import host
from regrow.units.example import run, untouched
from regrow.units.graph import UnitGraph, UnitGroup
from regrow.units.parametrized import behind
from regrow.units.surgery import Region
from regrow.units.taps import per_sample, per_unit, record
from regrow.units.trace import find_units
from regrow.units.wrappers import without_wrapper


@dataclass(frozen=True)
class Measurements:
    """Symptoms of a network on one batch. They do not decide whether it can still learn.

    Attributes:
        groups: for each hidden group whose activation can be read: `units`, `dormant` (share in [0, 1]),
            `effective_rank`, `article_rank`, `stable_rank`, and `weight_magnitude` (mean |w_in|).
        network: `dormant` over all these units; the ranks as means over these groups; `weight_magnitude` over
            all weight matrices and kernels.
    """

    groups: dict[str, dict[str, float]]
    network: dict[str, float]


def measure(
    model: nn.Module, batch: Any, graph: UnitGraph | None = None, *, dormant_threshold: float = 0.01
) -> Measurements:
    """Measure dormant units, ranks and weight magnitude on a batch, in eval mode and without grad.

    A channel's activation counts at every place for dormancy, as its mean over places for the ranks. A group
    that several layers read at different places is measured at the first.

    Args:
        model: the network; left as it was.
        batch: a tensor, a tuple of positional or a dict of keyword arguments, or a callable that takes the model.
            The article takes 2,000 random images of the coming task (Online Permuted MNIST) or 1,000 (CIFAR-100);
            with fewer samples than units the ranks are cut off, of which a warning tells.
        graph: the network's units, if they are known already.
        dormant_threshold: a unit is dormant if it fires in less than this share of the observations.

    Raises:
        ConfigError: the threshold is not in [0, 1].
        ModelError: the model cannot take the batch.
    """
    if not 0 <= dormant_threshold <= 1:
        raise ConfigError(f"dormant_threshold is a share and must lie in [0, 1], but is {dormant_threshold!r}.")
    model = without_wrapper(model)
    with untouched(model):
        model.eval()
        graph = graph or find_units(model, batch)
        tapped = [(group, part.tap) for group in graph if (part := _tapped(group)) is not None and part.tap is not None]
        values = record(model, [tap for _, tap in tapped], lambda: run(model, batch))
    groups: dict[str, dict[str, float]] = {}
    cut_off: dict[str, str] = {}
    for (group, tap), value in zip(tapped, values, strict=True):
        if value is not None:
            samples = per_sample(tap, value)
            if len(samples) < group.size:
                cut_off[group.name] = f"group {group.name!r} has {group.size} units and {len(samples)} samples"
            groups[group.name] = {
                "units": float(group.size),
                "dormant": dormant_share(per_unit(tap, value), dormant_threshold),
                **ranks(samples),
                "weight_magnitude": mean_magnitude(_incoming(model, group)),
            }
    if cut_off:
        warnings.warn(
            f"Ranks cannot be higher than the number of samples, which is less than that of units in {len(cut_off)} of "
            f"{len(groups)} groups: {next(iter(cut_off.values()))}. Give a larger batch, or do not use the ranks.",
            RuntimeWarning,
            stacklevel=2,
        )
    return Measurements(groups, _over_network(model, groups))


def _over_network(model: nn.Module, groups: dict[str, dict[str, float]]) -> dict[str, float]:
    figures = {"weight_magnitude": weight_magnitude(model)}
    if groups:
        units = sum(found["units"] for found in groups.values())
        figures["dormant"] = sum(found["dormant"] * found["units"] for found in groups.values()) / units
        for name in ("effective_rank", "article_rank", "stable_rank"):
            figures[name] = sum(found[name] for found in groups.values()) / len(groups)
    return figures


def _tapped(group: UnitGroup) -> Any:
    if group.status == "output":
        return None
    return next((part for part in group.having("outgoing") if part.tap is not None), None)


def _incoming(model: nn.Module, group: UnitGroup) -> list[Tensor]:
    every = host.arange(group.size)
    return [Region(part, behind(model, part.parameter)).read(every) for part in group.having("incoming")]
