"""Slowly-changing regression: a target that keeps moving because some of its input bits flip now and then."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from regrow.experiments.arm import Arm, arms_of
from regrow.experiments.counterpart import ArticlePanel, Counterpart
from regrow.experiments.online import OnlineStudy
from regrow.experiments.scale import Scale
from regrow.methods import L2, ContinualBackprop, ShrinkAndPerturb
from regrow.networks.mlp import MLP
from regrow.streams import BitFlipping
from regrow.studies import method_grids

# The article's problem, with its own numbers.
_PROBLEM = {
    "flip": "one",
    "target": "article",
    "period": 10_000,
    "tasks": 100,
    "widths": [5],
    "activation": "relu",
    "loss": "squared_error",
    "batch": 1,
    "optimizer": "sgd",
    "learning_rate": 0.01,
    "init": "kaiming_uniform",
    "measured_images": 1000,
    "measure_every": 10,
}
ACTIVATIONS = ("tanh", "sigmoid", "relu", "leaky_relu", "elu", "swish")
STEPS = (0.01, 0.003, 0.001)

# Short runs for the comparison of all methods, in mini-batches.
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
_METHODS_CAPTION = (
    "A target of 100 threshold units; 15 of 20 bits stand still for 960 examples, then all 15 are drawn anew; "
    "network 20–20–1, ReLU, mini-batches of 16, Adam of step .03."
)


class BitFlippingStudy(OnlineStudy, name="bit-flipping"):
    """Slowly-changing regression (Dohare et al., Nature 632, 2024, Extended Data Fig. 2).

    A network 20–5–1 tracks a fixed network of 100 threshold units, one example a step. 15 of the 20 input bits stand
    still for 10,000 examples, then one of them is inverted. Between article and published code there are two
    differences that change the numbers: what flips (`flip`), and whether the target counts the bias with the right sign
    (`target`); the scale "paper-code" has the code's way of both, and its length.

    The scales "methods" and "methods-search" compare all methods in runs of seconds: periods are short, steps have 16
    examples and the optimizer is Adam, since plain SGD loses nothing within so few steps
    (docs/studies/method-comparison.md).
    """

    summary = "a regression whose slow input bits flip now and then"
    caption = (
        "A target of 100 threshold units; 15 of 20 bits stand still for 10,000 examples, then one of them flips; "
        "network 20–5–1, one example a step."
    )
    scales = {
        "smoke": Scale(
            "seconds: 4 periods of 80 examples, every method, 2 seeds, to see that it works",
            range(2),
            _METHODS | {"period": 80, "tasks": 4, "batch": 8, "measured_images": 80},
        ),
        "laptop": Scale("minutes: 1M examples, 20 seeds", range(20), _PROBLEM),
        # Seeds that no figure uses, so that nothing is chosen on what it is judged by.
        "search": Scale(
            "minutes: settings of l2, shrink-and-perturb and cbp to choose from, 5 seeds", range(1000, 1005), _PROBLEM
        ),
        "paper": Scale(
            "the article's: 3M examples, all activations and steps, 100 seeds", range(100), _PROBLEM | {"tasks": 300}
        ),
        "paper-code": Scale(
            "as in the published code: 1M examples, all slow bits redrawn, 100 seeds",
            range(100),
            _PROBLEM | {"flip": "all", "target": "code"},
            "A target of 100 threshold units; 15 of 20 bits stand still for 10,000 examples, then all 15 are drawn "
            "anew; network 20–5–1, one example a step.",
        ),
        "methods": Scale(
            "a quarter of an hour of one core: every method, at its default and at the best of a small grid, 10 seeds",
            range(10),
            _METHODS,
            _METHODS_CAPTION,
        ),
        "methods-search": Scale(
            "the grids of all methods to choose from, 2 seeds", range(1000, 1002), _METHODS, _METHODS_CAPTION
        ),
    }

    def arms(self, scale: str) -> dict[str, Arm]:
        """Return activations and steps, a linear learner, the remedies; or all methods; or settings to choose from."""
        if scale == "methods-search":
            return arms_of(method_grids.candidates(hidden_layers=1))
        if scale in ("smoke", "methods"):
            return arms_of(method_grids.compared({} if scale == "smoke" else BEST))
        if scale == "search":
            return _candidates()
        activations = ACTIVATIONS if scale.startswith("paper") else ("relu",)
        found = {
            f"{activation} step={step}": Arm(changes={"activation": activation, "learning_rate": step})
            for activation in activations
            for step in STEPS
        }
        found |= {f"linear step={step}": Arm(changes={"widths": [], "learning_rate": step}) for step in STEPS}
        found |= {f"adam step={step}": Arm(changes={"optimizer": "adam", "learning_rate": step}) for step in STEPS}
        if scale == "paper-code":  # as configured there; a maturity threshold of 100 was meant, and 10 used
            published = ContinualBackprop(
                1e-4, 10, budget="bernoulli", utility_rule="adaptable_contribution", weight_sums="each_step"
            )
            found["cbp as in the code"] = Arm((published,))
        return found | {
            "l2": Arm((L2(1e-2),)),
            "shrink-and-perturb": Arm((ShrinkAndPerturb(1e-2, 1e-3, period=100),)),
            "cbp": Arm((ContinualBackprop(1e-4, 100, weight_sums="each_step"),)),
        }

    def counterparts(self, scale: str) -> tuple[Counterpart, ...]:
        """Return Extended Data Fig. 2, or the picture in the readme of the published code."""
        title = "loss of plasticity in slowly-changing regression"
        if scale == "paper":
            panels = tuple(_panel(name, bin=4, published=f"ED 2, {name}") for name in ACTIVATIONS)
            return Counterpart("ED 2", title, panels), _of_methods(bin=4)
        if scale == "paper-code":
            panels = tuple(_panel(name, bin=2, published=f"published code, {name}") for name in ("relu", "tanh"))
            return Counterpart("Readme of the published code", "all slow bits redrawn", panels), _of_methods(bin=2)
        if scale == "laptop":
            return Counterpart("ED 2", title, (_panel("relu", bin=4),)), _of_methods(bin=4)
        return ()

    def stream(self, problem: Mapping[str, Any], seed: int) -> BitFlipping:
        """Make the data of a run."""
        return BitFlipping(seed, problem["flip"], problem["target"], problem["period"])

    def network(self, problem: Mapping[str, Any], seed: int) -> nn.Module:
        """Make the network: kaiming-uniform hidden layer, output bound √3/√fan_in, biases 0; without one, linear."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return MLP(20, problem["widths"], 1, problem.get("activation", "relu"))

    def origin(self, problem: Mapping[str, Any]) -> str:
        """Say where the data come from."""
        return "made from the seed of each run"


# Chosen by the lowest squared error over all periods, mean of the two seeds of the scale methods-search.
BEST: Mapping[str, Mapping[str, Any]] = {
    "cbp": {"replacement_rate": 0.01, "maturity_threshold": 20},
    "cbp-first-order": {"replacement_rate": 0.01, "maturity_threshold": 20},
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


def _panel(activation: str, bin: int, published: str | None = None) -> ArticlePanel:
    """Step sizes of one activation, in bins of 10,000 examples times `bin`, and the linear learner."""
    arms = (*(f"{activation} step={step}" for step in STEPS), "linear step=0.01")
    name = activation.replace("_", " ").replace("relu", "ReLU")
    heading = f"Squared error, {name}"
    return ArticlePanel(
        heading, "squared_error", arms, bin, x_label="Million examples", x_factor=0.01, published=published
    )


def _of_methods(bin: int) -> Counterpart:
    """What the article does not show: the remedies beside ReLU networks of step .01."""
    arms = ("relu step=0.01", "cbp", "l2", "shrink-and-perturb", "adam step=0.01", "linear step=0.01")
    panel = ArticlePanel("Squared error", "squared_error", arms, bin, x_label="Million examples", x_factor=0.01)
    dormant = replace(panel, heading="Dormant units (%)", measure="dormant", arms=arms[:-1], bin=10, factor=100)
    return Counterpart("Beside ED 2", "methods, ReLU, step .01", (panel, dormant))


def _candidates() -> dict[str, Arm]:
    """Settings at step .01: the published sweeps, thinned out."""
    found = {f"l2 strength={strength}": Arm((L2(strength),)) for strength in (1e-1, 1e-2, 1e-3, 1e-4, 1e-5)}
    for decay in (1e-2, 1e-3, 1e-4):
        for noise in (1e-2, 1e-3, 1e-4):
            found[f"shrink-and-perturb weight_decay={decay} noise_std={noise}"] = Arm(
                (ShrinkAndPerturb(decay, noise, 100),)
            )
    for rate in (1e-2, 1e-3, 1e-4, 1e-5):
        found[f"cbp rate={rate}"] = Arm((ContinualBackprop(rate, 100, weight_sums="each_step"),))
    return found
