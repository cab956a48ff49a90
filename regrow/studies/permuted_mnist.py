"""Online Permuted MNIST: the article's test of plain supervised learning."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from regrow.experiments.arm import Arm
from regrow.experiments.counterpart import ArticlePanel, Counterpart
from regrow.experiments.online import OnlineStudy, Stream
from regrow.experiments.scale import Scale
from regrow.methods import L2, ContinualBackprop, ShrinkAndPerturb
from regrow.networks.layers.online_normalization import OnlineNormalization
from regrow.networks.mlp import MLP
from regrow.streams import PermutedImages, sources
from regrow.streams.options import Gradual, NoisyLabels
from regrow.studies.settings_of_others import HERNANDEZ, KUMAR, hernandez_arms, kumar_arms

# The article's problem, with its own numbers.
_PAPER: dict[str, Any] = {
    "data": "auto",
    "images": 60_000,
    "every": 0,
    "stretches": 1,
    "drawn": "with_replacement",
    "transition": 0,
    "label_noise": 0.0,
    "tasks": 800,
    "widths": [2000, 2000, 2000],
    "initial": "article",
    "black": 0.0,
    "batch": 1,
    "optimizer": "sgd",
    "learning_rate": 0.003,
    "init": "kaiming_uniform",
    "dropout": 0.0,
    "normalization": "none",
    "measured_images": 2000,
    "dormant_threshold": 0.0,  # dead units, as the article counts them here: those that never fire
}
_LAPTOP = _PAPER | {"images": 10_000, "tasks": 100, "widths": [100, 100, 100], "learning_rate": 0.01}
_SMOKE = _LAPTOP | {"data": "optical-digits", "images": 200, "tasks": 3, "widths": [16, 16], "measured_images": 200}

_CAPTION = (
    "{images} images of 28×28 pixels, a new permutation of the pixels each task, one pass, one image at a time; "
    "network 784–{widths}–10, ReLU, {rest}."
)
_PREFERRED = ("mnist", "fashion-mnist", "optical-digits")
_STEPS = (0.01, 0.003, 0.001)
# Stretches of `every` examples under one permutation.
_TURNS = {"laptop-rates": (1, 4, 24), "paper-rates": (1, 10, 100)}
_ONLINE_NORMALIZATION = Arm(changes={"normalization": "online"})


class PermutedMNIST(OnlineStudy, name="permuted-mnist"):
    """Online Permuted MNIST (Dohare et al., Nature 632, 2024, Extended Data Figs. 3 and 4).

    A new random permutation of the pixels each task, every image once a task, one at a time, each predicted before it
    is learned; nothing tells that the task has changed. Three hidden layers, ReLU, SGD on the cross-entropy. Any image
    set of one channel will do; without `--data` it is MNIST if that is below REGROW_DATA, else Fashion-MNIST where
    Debian's package has put it, else the packaged digits.
    """

    summary = "MNIST under ever new pixel permutations, learned online, one image at a time"
    caption = _CAPTION.format(images="10,000", widths="100–100–100", rest="SGD of step .01 unless said")
    scales = {
        "smoke": Scale("seconds: 3 tasks of 200 packaged digits, 2 seeds, to see that it works", range(2), _SMOKE),
        "laptop": Scale("an hour of two cores: 100 tasks of 10,000 images, width 100, 10 seeds", range(10), _LAPTOP),
        # Seeds that no figure uses, so that nothing is chosen on what it is judged by.
        "search": Scale("half an hour: settings to choose from, 2 seeds", range(1000, 1002), _LAPTOP),
        "laptop-normalization": Scale(
            "half an hour: backprop with and without online normalization, 30 tasks, 3 seeds",
            range(3),
            _LAPTOP | {"tasks": 30},
        ),
        "laptop-widths": Scale(
            "an hour of two cores: 10, 100 and 1,000 units a layer, 60 tasks, 3 seeds",
            range(3),
            _LAPTOP | {"tasks": 60, "learning_rate": 0.003},
            _CAPTION.format(images="10,000", widths="w–w–w", rest="SGD of step .003"),
        ),
        "kumar-2023": Scale(
            "hours: the setting of Kumar et al. 2023, 500 tasks, what they sweep, 10 seeds",
            range(10),
            _PAPER | KUMAR,
            _CAPTION.format(
                images="10,000", widths="100–100", rest="mini-batches of 16, Adam of step .001 unless said"
            ),
        ),
        "hernandez-2025": Scale(
            "days: the setting of Hernandez-Garcia et al. 2025, 1,000 tasks, 30 seeds",
            range(30),
            _PAPER | HERNANDEZ,
            _CAPTION.format(images="60,000", widths="100–100–100", rest="mini-batches of 30, SGD of step .05"),
        ),
        "paper-100": Scale(
            "the article's smallest network: 150 tasks of 60,000 images, width 100, 3 seeds",
            range(3),
            _PAPER | {"tasks": 150, "widths": [100, 100, 100]},
            _CAPTION.format(images="60,000", widths="100–100–100", rest="SGD of step .003 unless said"),
        ),
        "paper": Scale(
            "the article's: 800 tasks of 60,000 images, width 2,000, 30 seeds",
            range(30),
            _PAPER,
            _CAPTION.format(images="60,000", widths="2000–2000–2000", rest="SGD of step .003 unless said"),
        ),
        "laptop-rates": Scale(
            "minutes: a new permutation every 2,500, 10,000 and 60,000 examples, 960,000 in all, 10 seeds",
            range(10),
            _LAPTOP | {"every": 2500, "tasks": 384, "measured_images": 0},
            _CAPTION.format(images="10,000", widths="100–100–100", rest="SGD of step .01, images drawn at random"),
        ),
        "paper-rates": Scale(
            "the article's: a new permutation every 10,000, 100,000 and 1,000,000 examples, 48M in all, 30 seeds",
            range(30),
            _PAPER | {"every": 10_000, "tasks": 4800, "measured_images": 0},
            _CAPTION.format(images="60,000", widths="2000–2000–2000", rest="SGD of step .003, images drawn at random"),
        ),
        "paper-widths": Scale(
            "the article's: 100, 1,000 and 10,000 units a layer, 150 tasks, 30 seeds",
            range(30),
            _PAPER | {"tasks": 150},
            _CAPTION.format(images="60,000", widths="w–w–w", rest="SGD of step .003"),
        ),
    }

    def arms(self, scale: str) -> dict[str, Arm]:
        """Return step sizes and remedies, or widths, or settings to choose from."""
        if scale.endswith("widths"):
            widths = (10, 100, 1000) if scale == "laptop-widths" else (100, 1000, 10_000)
            return {f"width {width}": Arm(changes={"widths": [width] * 3}) for width in widths}
        if scale.endswith("rates"):
            every = self.scales[scale].problem["every"]
            return {f"change every {turns * every}": Arm(changes={"stretches": turns}) for turns in _TURNS[scale]}
        if scale in ("kumar-2023", "hernandez-2025"):
            return kumar_arms() if scale == "kumar-2023" else hernandez_arms()
        if scale == "search":
            return _candidates()
        if scale == "laptop-normalization":
            return {"backprop": Arm(), "online normalization": _ONLINE_NORMALIZATION}
        steps = {f"backprop step={step}": Arm(changes={"learning_rate": step}) for step in _STEPS}
        if scale == "smoke":  # so short that replacements must be frequent to happen at all
            return steps | _chosen(1e-2, 20) | {"online normalization": _ONLINE_NORMALIZATION}
        return steps | (_chosen(1e-4, 100) if scale == "laptop" else _as_published())

    def settled(self, problem: Mapping[str, Any]) -> Mapping[str, Any]:
        """Take the images that are there, and no more of them than there are."""
        name = problem["data"]
        if name == "auto":
            name = sources.first_of(_PREFERRED)
        return {**problem, "data": name, "images": min(problem["images"], len(sources.load(name)))}

    def counterparts(self, scale: str) -> tuple[Counterpart, ...]:
        """Return Extended Data Fig. 3b and 3c, or 4a."""
        whole, arms = scale == "paper", tuple(self.arms(scale)) if scale in self.scales else ()
        if scale.endswith("widths"):
            panel = _panel("online accuracy", arms, published="ED 3b, widths" if scale.startswith("paper") else None)
            return (Counterpart("ED 3b, widths", "networks of three widths", (panel,)),)
        if scale.endswith("rates"):
            examples = self.scales[scale].problem["every"] / 1e6
            panel = _panel("online accuracy", arms, published="ED 3b, rates" if scale.startswith("paper") else None)
            million = replace(
                panel,
                bin=round(1 / examples) if scale == "paper-rates" else 24,
                x_label="Million examples",
                x_factor=examples,
            )
            return (Counterpart("ED 3b, rates", "three rates of change", (million,)),)
        if scale not in ("laptop", "paper", "paper-100"):
            return ()
        steps = tuple(name for name in arms if name.startswith("backprop"))
        methods = (f"backprop step={0.01 if scale == 'laptop' else 0.003}", *(name for name in _SHOWN if name in arms))
        published = {"accuracy": "ED 3b, step sizes"} if whole else {}
        of_methods = {
            "accuracy": "ED 4a, accuracy",
            "dormant": "ED 4a, dead units",
            "effective_rank": "ED 4a, effective rank",
            "weight_magnitude": "ED 4a, weight magnitude",
        }
        return (
            Counterpart("ED 3b and 3c", "three step sizes", tuple(_panels(steps, published))),
            Counterpart("ED 4a", "methods", tuple(_panels(methods, of_methods if whole else {}))),
        )

    def stream(self, problem: Mapping[str, Any], seed: int) -> Stream:
        """Make the data of a run: the first `images` of the set."""
        found = sources.load(problem["data"])
        count, every = problem["images"], problem["every"]
        stream: Stream = PermutedImages(
            found.images[:count],
            found.labels[:count],
            seed=seed,
            white=found.white,
            every=every or None,
            drawn=problem["drawn"],
            stretches=problem["stretches"],
            black=problem["black"],
        )
        if problem["transition"]:
            stream = Gradual(stream, problem["transition"], seed)
        return NoisyLabels(stream, problem["label_noise"], 10, seed) if problem["label_noise"] else stream

    def network(self, problem: Mapping[str, Any], seed: int) -> nn.Module:
        """Make the network: kaiming-uniform hidden layers, output bound √3/√fan_in, biases 0; or by torch's own law."""
        pixels = sources.load(problem["data"]).images[0].size
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network = MLP(pixels, problem["widths"], 10, dropout=problem["dropout"], seed=seed)
            if problem["initial"] == "pytorch":
                for layer in network:
                    if isinstance(layer, nn.Linear):
                        layer.reset_parameters()
        return _normalized(network) if problem["normalization"] == "online" else network

    def origin(self, problem: Mapping[str, Any]) -> str:
        """Say what was read, and from where."""
        words = sources.load(problem["data"]).origin
        if problem["data"] in _PREFERRED:
            words = " ".join(filter(None, [words + ".", sources.why_not_first(_PREFERRED, problem["data"])]))
        return words


def _normalized(network: MLP) -> nn.Module:
    """Put online normalization between each hidden layer and its activation."""
    layers: list[nn.Module] = []
    for module in network:
        layers.append(module)
        if isinstance(module, nn.Linear):
            layers.append(OnlineNormalization(module.out_features))
    return nn.Sequential(*layers[:-1])


_SHOWN = ("cbp", "l2", "shrink-and-perturb", "dropout", "online normalization", "adam")
_MEASURES = {
    "accuracy": ("Online accuracy (%)", 100.0),
    "dormant": ("Dead units (%)", 100.0),
    "effective_rank": ("Effective rank", 1.0),
    "weight_magnitude": ("Mean weight magnitude", 1.0),
}


def _panels(arms: tuple[str, ...], published: Mapping[str, str]) -> Iterator[ArticlePanel]:
    for measure, (heading, factor) in _MEASURES.items():
        if measure in published and measure == "effective_rank":  # the article has it in per cent of its 2,000 units
            heading, factor = "Effective rank (% of the units)", 100 / 2000
        yield ArticlePanel(heading, measure, arms, factor=factor, published=published.get(measure))


def _panel(heading: str, arms: tuple[str, ...], published: str | None) -> ArticlePanel:
    return ArticlePanel(f"{heading.capitalize()} (%)", "accuracy", arms, factor=100, published=published)


def _as_published() -> dict[str, Arm]:
    """The settings of Extended Data Fig. 4a, and those of 4b that are known."""
    cbp = {
        rate: ContinualBackprop(rate, 100, utility_rule="adaptable_contribution", weight_sums="each_step")
        for rate in (1e-4, 1e-5, 1e-6)
    }
    return {
        "cbp": Arm((cbp[1e-6],)),
        "l2": Arm((L2(1e-4),)),
        "shrink-and-perturb": Arm((ShrinkAndPerturb(1e-4, 1e-5),)),
        "dropout": Arm(changes={"dropout": 0.1}),
        "online normalization": _ONLINE_NORMALIZATION,
        "adam": Arm(changes={"optimizer": "adam", "learning_rate": 1e-4}),
        **{f"cbp rate={rate:g}": Arm((cbp[rate],)) for rate in (1e-4, 1e-5)},
        **{f"l2 strength={strength:g}": Arm((L2(strength),)) for strength in (1e-3, 1e-5)},
        **{f"shrink-and-perturb noise={noise:g}": Arm((ShrinkAndPerturb(1e-4, noise),)) for noise in (1e-4, 1e-6)},
        "dropout p=0.03": Arm(changes={"dropout": 0.03}),
        **{f"adam step={step:g}": Arm(changes={"optimizer": "adam", "learning_rate": step}) for step in (5e-5, 3e-5)},
    }


def _chosen(rate: float, maturity: int) -> dict[str, Arm]:
    """The best of each in the scale "search"."""
    return {
        "cbp": Arm((ContinualBackprop(rate, maturity, weight_sums="each_step"),)),
        "l2": Arm((L2(1e-3),)),
        "shrink-and-perturb": Arm((ShrinkAndPerturb(1e-3, 1e-4, period=100),)),
        "dropout": Arm(changes={"dropout": 0.03}),
        "adam": Arm(changes={"optimizer": "adam", "learning_rate": 1e-4}),
    }


def _candidates() -> dict[str, Arm]:
    """Settings at step .01, and other steps."""
    found = {f"backprop step={step}": Arm(changes={"learning_rate": step}) for step in (0.03, *_STEPS)}
    found |= {
        f"cbp rate={rate:g}": Arm((ContinualBackprop(rate, 100, weight_sums="each_step"),))
        for rate in (1e-3, 1e-4, 1e-5)
    }
    found |= {f"l2 strength={strength:g}": Arm((L2(strength),)) for strength in (1e-2, 1e-3, 1e-4)}
    for decay in (1e-2, 1e-3, 1e-4):
        for noise in (1e-3, 1e-4):
            name = f"shrink-and-perturb weight_decay={decay:g} noise_std={noise:g}"
            found[name] = Arm((ShrinkAndPerturb(decay, noise, period=100),))
    found |= {f"dropout p={share}": Arm(changes={"dropout": share}) for share in (0.03, 0.1)}
    for step in (1e-3, 3e-4, 1e-4):
        found[f"adam step={step:g}"] = Arm(changes={"optimizer": "adam", "learning_rate": step})
    return found
