"""Permuted digits: the main effect on real data, in minutes."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from regrow.experiments.arm import Arm, arms_of
from regrow.experiments.online import OnlineStudy
from regrow.experiments.scale import Scale
from regrow.methods import L2, ContinualBackprop, Method, RandomReplacement, ShrinkAndPerturb
from regrow.networks.mlp import MLP
from regrow.streams import PermutedImages, sources
from regrow.studies import method_grids

_PROBLEM = {
    "data": "optical-digits",
    "images": 1797,
    "passes": 3,
    "tasks": 200,
    "widths": [64, 64, 64],
    "learning_rate": 0.01,
    "init": "kaiming_uniform",
    "measured_images": 1797,
}
_SEARCH = range(1000, 1002)
# Smoke runs are for tests: so short that replacements must be frequent to happen at all.
_SMOKE = _PROBLEM | {"images": 300, "passes": 2, "tasks": 4, "widths": [32, 32], "measured_images": 300}
# Short runs for the comparison of all methods, in mini-batches. The step is one at which a fresh network learns as fast
# as at any other, and at which plain backprop loses plasticity within them.
_METHODS = _PROBLEM | {"passes": 1, "tasks": 48, "batch": 16, "learning_rate": 0.15, "measured_images": 500}

# Chosen by the highest accuracy over all tasks, mean of the two seeds of the scale methods-search.
BEST: Mapping[str, Mapping[str, Any]] = {
    "cbp": {"replacement_rate": 0.001, "maturity_threshold": 20},
    "cbp-first-order": {"replacement_rate": 0.001, "maturity_threshold": 20},
    "dash": {"least": 0.9},
    "fire": {"skip_output": True},
    "hard-reset": {"layers": 2},
    "hare-and-tortoise": {"momentum": 0.999, "period": 1000},
    "l2": {"strength": 0.001},
    "l2-er": {"strength": 0.001, "rank_rate": 0.01, "period": 10},
    "l2-init": {"strength": 0.003},
    "nap": {"period": 10},
    "parseval": {"strength": 0.001},
    "random-replacement": {"replacement_rate": 0.001},
    "redo": {"period": 100, "threshold": 0.02},
    "regrama": {"period": 100, "threshold": 0.1},
    "shrink-and-perturb-at-task-change": {"shrink": 0.8, "toward_fresh": True},
    "snr": {"largest_gap": 1000, "update_period": 100},
    "swr": {"share": 0.01, "period": 64},
    "weight-clipping": {"bound": 5.0},
}


class PermutedDigits(OnlineStudy, name="permuted-digits"):
    """The small sister of Online Permuted MNIST (Dohare et al., Nature 632, 2024, Extended Data Figs. 3 and 4).

    1,797 real digits of 8×8 pixels, a new permutation of the pixels each task, three passes a task, one image at a
    time, each predicted before it is learned; nothing tells that the task has changed. Network 64–64–64–64–10, ReLU,
    plain SGD of step .01. How the settings of the methods were found: docs/studies/permuted-digits.md.
    """

    summary = "1,797 real digits under ever new pixel permutations, learned online"
    caption = (
        "1,797 handwritten digits of 8×8 pixels (UCI), a new permutation of the pixels each task, three passes, one "
        "image at a time; network 64–64–64–64–10, ReLU, SGD of step .01."
    )
    scales = {
        "smoke": Scale("seconds: 4 tasks of 600 images, 2 seeds, to see that it works", range(2), _SMOKE),
        "laptop": Scale("minutes: 200 tasks of 5,391 images, 5 seeds", range(5), _PROBLEM),
        # Seeds that no figure uses, so that nothing is chosen on what it is judged by.
        "search": Scale(
            "minutes: settings of l2 and shrink-and-perturb to choose from, two forms of cbp", _SEARCH, _PROBLEM
        ),
        "methods": Scale(
            "half an hour of one core: every method, at its default and at the best of a small grid, 10 seeds",
            range(10),
            _METHODS,
            "1,797 handwritten digits of 8×8 pixels (UCI), a new permutation of the pixels each task, one pass in "
            "mini-batches of 16; network 64–64–64–64–10, ReLU, SGD of step .15.",
        ),
        "methods-search": Scale("the grids of all methods to choose from, 2 seeds", _SEARCH, _METHODS),
    }
    missing_scales = {
        "paper": "the article has no such experiment; its nearest is Online Permuted MNIST.",
    }

    def arms(self, scale: str) -> dict[str, Arm]:
        """Return the five that are compared, where the control has the rate of cbp; or all methods; or the settings to
        choose from.
        """
        if scale == "search":
            return arms_of(_candidates())
        if scale == "methods-search":
            return arms_of(method_grids.candidates(hidden_layers=3))
        if scale == "methods":
            return arms_of(method_grids.compared(BEST))
        rate, maturity = (1e-3, 50) if scale == "smoke" else (1e-4, 100)
        return {
            "backprop": Arm(),
            "cbp": Arm((ContinualBackprop(rate, maturity, weight_sums="each_step"),)),
            "l2": Arm((L2(1e-3),)),
            "shrink-and-perturb": Arm((ShrinkAndPerturb(3e-3, 1e-3, period=100),)),
            "random-replacement": Arm((RandomReplacement(rate, maturity),)),
        }

    def stream(self, problem: Mapping[str, Any], seed: int) -> PermutedImages:
        """Make the data of a run: the first `images` of the set."""
        digits = sources.load(problem["data"])
        count = problem["images"]
        return PermutedImages(digits.images[:count], digits.labels[:count], problem["passes"], seed, digits.white)

    def network(self, problem: Mapping[str, Any], seed: int) -> nn.Module:
        """Make the network: kaiming-uniform hidden layers, output bound √3/√fan_in, biases 0."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return MLP(64, problem["widths"], 10)

    def origin(self, problem: Mapping[str, Any]) -> str:
        """Say what was read, and from where."""
        return sources.load(problem["data"]).origin


def _candidates() -> dict[str, tuple[Method, ...]]:
    strengths = (1e-2, 3e-3, 1e-3, 3e-4, 1e-4, 1e-5)
    decays, noises = (1e-2, 3e-3, 1e-3, 1e-4), (3e-3, 1e-3, 3e-4, 1e-4)
    return {
        "cbp each step": (ContinualBackprop(weight_sums="each_step"),),
        "cbp when due": (ContinualBackprop(weight_sums="when_due"),),
        **{f"l2 {strength:g}": (L2(strength),) for strength in strengths},
        **{
            f"shrink {decay:g} perturb {noise:g}": (ShrinkAndPerturb(decay, noise, period=100),)
            for decay in decays
            for noise in noises
        },
    }
