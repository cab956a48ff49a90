"""Bit flipping: regression on a target that keeps moving because some of its input bits flip now and then."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from regrow.experiments.arm import Arm, arms_of
from regrow.experiments.online import OnlineStudy
from regrow.experiments.study import Scale
from regrow.networks.mlp import MLP
from regrow.streams import BitFlipping
from regrow.studies import method_grids

_METHODS = {
    "flip": "all",
    "target": "article",
    "period": 960,
    "tasks": 40,
    "widths": [20],
    "loss": "squared_error",
    "batch": 16,
    "optimizer": "adam",
    "learning_rate": 0.03,
    "init": "kaiming_uniform",
    "measured_images": 500,
}


class BitFlippingStudy(OnlineStudy, name="bit-flipping"):
    """Slowly-changing regression (Dohare et al., Nature 632, 2024, Extended Data Fig. 2), in runs of seconds.

    The article's learner is 20–5–1 with one example a step and plain SGD, over millions of steps. Here periods are
    short, steps have 16 examples and the optimizer is Adam, since plain SGD loses nothing within so few steps:
    docs/studies/method-comparison.md. The stream is the article's but for what flips: all slow bits are drawn anew, as
    in its published code, so that all periods are equally hard.
    """

    summary = "a regression whose slow input bits are redrawn now and then"
    caption = (
        "A target of 100 threshold units; 15 of 20 bits stand still for 960 examples, then all 15 are drawn anew; "
        "network 20–20–1, ReLU, mini-batches of 16, Adam of step .03."
    )
    scales = {
        "smoke": Scale(
            "seconds: 4 periods of 80 examples, 2 seeds, to see that it works",
            range(2),
            _METHODS | {"period": 80, "tasks": 4, "batch": 8, "measured_images": 80},
        ),
        "methods": Scale(
            "a quarter of an hour of one core: every method, at its default and at the best of a small grid, 10 seeds",
            range(10),
            _METHODS,
        ),
        # Seeds that no figure uses, so that nothing is chosen on what it is judged by.
        "methods-search": Scale("the grids of all methods to choose from, 2 seeds", range(1000, 1002), _METHODS),
    }

    missing_scales = dict.fromkeys(("laptop", "paper"), "only the comparison of methods has been built.")

    def arms(self, scale: str) -> dict[str, Arm]:
        """Return all methods, each at its default and at the best of its grid; or the whole grids."""
        if scale == "methods-search":
            return arms_of(method_grids.candidates(hidden_layers=1))
        return arms_of(method_grids.compared({} if scale == "smoke" else BEST))

    def stream(self, problem: Mapping[str, Any], seed: int) -> BitFlipping:
        """Make the data of a run."""
        return BitFlipping(seed, problem["flip"], problem["target"], problem["period"])

    def network(self, problem: Mapping[str, Any], seed: int) -> nn.Module:
        """Make the network: kaiming-uniform hidden layers, output bound √3/√fan_in, biases 0."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return MLP(20, problem["widths"], 1)

    def origin(self, problem: Mapping[str, Any]) -> str:
        """Say where the data come from."""
        return "made from the seed of each run"


# Chosen by the lowest squared error over all periods, mean of the two seeds of the scale methods-search.
BEST: Mapping[str, Mapping[str, Any]] = {
    "cbp": {"replacement_rate": 0.01, "maturity_threshold": 20},
    "ccbp": {"period": 10, "rate": 0.05},
    "dash": {"least": 0.9},
    "fire": {"skip_output": True},
    "hare-and-tortoise": {"momentum": 0.99, "period": 100},
    "l2": {"strength": 0.001},
    "l2-er": {"strength": 0.001, "rank_rate": 0.01},
    "l2-init": {"strength": 0.01},
    "nap": {"period": 10},
    "parseval": {"strength": 0.01},
    "random-replacement": {"replacement_rate": 0.01, "maturity_threshold": 20},
    "redo": {"period": 20, "threshold": 0.02},
    "regrama": {"period": 20, "threshold": 0.1},
    "shrink-and-perturb": {"weight_decay": 0.01, "noise_std": 0.003},
    "shrink-and-perturb-at-task-change": {"shrink": 0.2, "toward_fresh": True},
    "snr": {"largest_gap": 1000, "update_period": 100},
    "swr": {"share": 0.0005, "period": 128},
    "upgd": {"noise_std": 0.1},
    "weight-clipping": {"bound": 3.0},
}
