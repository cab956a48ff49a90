"""The comparison of all methods: each at its published default, and at the best of a small grid.

The grid is the same for every problem, and was written down before any of its settings had been run. Most settings
have been published or searched by somebody; periods are shorter. What acts once in thousands of steps at the scale of
its paper would hardly act, or not at all, in a run of 2,400 or 5,400 steps, so the grids have periods of one task
(about 100 steps) and below.
"""

from collections.abc import Mapping
from typing import Any

from regrow.methods import Method, method_named, methods_by_name

_RATES = ({"replacement_rate": 1e-3}, {"replacement_rate": 1e-3, "maturity_threshold": 20})
_QUOTA = (*_RATES, {"replacement_rate": 1e-2, "maturity_threshold": 20})

# What differs from the default, which is always among the candidates. Not here: what has nothing to choose.
GRIDS: Mapping[str, tuple[Mapping[str, Any], ...]] = {
    "cbp": _QUOTA,
    "cbp-first-order": _QUOTA,
    "ccbp": ({"period": 100}, {"period": 10}, {"period": 10, "rate": 0.05}),
    "dash": ({"momentum": 0.1}, {"least": 0.6}, {"least": 0.9}),
    "fire": ({"skip_output": True}, {"iterations": 5}),
    "hard-reset": ({"layers": 2}, {"layers": 3}),
    "hare-and-tortoise": (
        {"momentum": 0.99, "period": 100},
        {"momentum": 0.99, "period": 1000},
        {"momentum": 0.999, "period": 1000},
    ),
    "l2": tuple({"strength": strength} for strength in (1e-3, 3e-3, 1e-2, 1e-1)),
    "l2-er": (
        {"strength": 1e-3},
        {"strength": 1e-3, "rank_rate": 1e-2},
        {"strength": 1e-3, "rank_rate": 1e-2, "period": 10},
    ),
    "l2-init": tuple({"strength": strength} for strength in (1e-4, 3e-3, 1e-2, 1e-1)),
    "nap": ({"period": 10}, {"period": 100}),
    "parseval": ({"strength": 1e-3}, {"strength": 1e-2}, {"strength": 1e-3, "scale": 1.0}),
    "random-replacement": _QUOTA,
    "redo": ({"period": 100}, {"period": 100, "threshold": 0.02}, {"period": 20, "threshold": 0.02}),
    "regrama": ({"period": 100}, {"period": 100, "threshold": 0.1}, {"period": 20, "threshold": 0.1}),
    "shrink-and-perturb": (
        {"weight_decay": 1e-3, "noise_std": 1e-3},
        {"weight_decay": 1e-2, "noise_std": 1e-3},
        {"weight_decay": 1e-2, "noise_std": 3e-3},
        {"weight_decay": 1e-1, "noise_std": 3e-3},
    ),
    "shrink-and-perturb-at-task-change": (
        {"shrink": 0.5},
        {"shrink": 0.8, "toward_fresh": True},
        {"shrink": 0.5, "toward_fresh": True},
        {"shrink": 0.2, "toward_fresh": True},
    ),
    "snr": (
        {"largest_gap": 4000, "update_period": 200},
        {"largest_gap": 1000, "update_period": 100},
        {"largest_gap": 1000, "update_period": 100, "rejection_share": 0.02},
    ),
    "spectral-penalty": tuple({"strength": strength} for strength in (1e-4, 1e-2, 1e-1)),
    "swr": (
        {"share": 5e-4, "period": 128},
        {"share": 1e-3, "period": 16},
        {"share": 1e-2, "period": 64},
    ),
    "upgd": ({"noise_std": 0.01}, {"noise_std": 0.1}, {"decay_rate": 0.99}),
    "weight-clipping": tuple({"bound": bound} for bound in (2.0, 3.0, 5.0)),
}

TUNED = " tuned"


def candidates(hidden_layers: int) -> dict[str, tuple[Method, ...]]:
    """Return what is searched: every method at its default, under its own name, and at all settings of its grid.

    Args:
        hidden_layers: of the network; a hard reset of more layers than that is a full reset and is left out.
    """
    found: dict[str, tuple[Method, ...]] = {}
    for name in methods_by_name():
        for changes in ({}, *GRIDS.get(name, ())):
            if changes.get("layers", 1) <= hidden_layers:
                found[_label(name, changes)] = (method_named(name, **changes),)
    return found


def compared(best: Mapping[str, Mapping[str, Any]]) -> dict[str, tuple[Method, ...]]:
    """Return what is compared: every method at its default, and as "name tuned" at the best of its grid.

    Args:
        best: by name, what the best setting changes in the default; not there, or nothing, if the default is the best.
    """
    found: dict[str, tuple[Method, ...]] = {}
    for name in methods_by_name():
        found[name] = (method_named(name),)
        if best.get(name):
            found[name + TUNED] = (method_named(name, **best[name]),)
    return found


def _label(name: str, changes: Mapping[str, Any]) -> str:
    return " ".join([name, *(f"{key}={value!r}" for key, value in changes.items())])
