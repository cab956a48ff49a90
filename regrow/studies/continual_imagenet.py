"""Continual ImageNet: one pair of classes after another, each learned for many epochs."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from regrow.errors import DataError
from regrow.experiments.arm import Arm
from regrow.experiments.counterpart import ArticlePanel, Counterpart
from regrow.experiments.epochs import EpochStudy, SplitStream
from regrow.experiments.scale import Scale
from regrow.methods import ContinualBackprop, FullReset, L2Init, ShrinkAndPerturb
from regrow.networks.convnet import ConvNet
from regrow.streams import ClassPairs, GradualSplit, NoisyLabels, sources
from regrow.streams.images import colour_statistics

# The article's problem, with its own numbers.
_PAPER = {
    "data": "imagenet-32",
    "classes": 1000,
    "train_per_class": 600,
    "test_per_class": 100,
    "normalised": True,
    "label_noise": 0.0,
    "mixed_tasks": 0,
    "tasks": 5000,
    "channels": [32, 64, 128],
    "kernels": [5, 3, 3],
    "widths": [128, 128],
    "epochs": 250,
    "batch": 100,
    "optimizer": "sgd",
    "learning_rate": 0.01,
    "momentum": 0.9,
    "weight_decay": 0.0,
    "head": "zeroed",
    "measured_images": 200,
    "channels_last": True,
    "device": "cpu",
}
_KUMAR = _PAPER | {
    "tasks": 500,
    "channels": [16, 16],
    "kernels": [5, 5],
    "widths": [100, 100],
    "epochs": 10,
    "head": "kept",
}
_LAPTOP = _PAPER | {
    "data": "tiny-imagenet-100",
    "classes": 100,
    "train_per_class": 400,
    "tasks": 200,
    "channels": [8, 16, 32],
    "epochs": 10,
    "learning_rate": 0.05,
}
_SMOKE = _PAPER | {
    "data": "generated-images",
    "classes": 20,
    "train_per_class": 20,
    "test_per_class": 10,
    "tasks": 3,
    "channels": [4, 6, 8],
    "widths": [16, 16],
    "epochs": 8,
    "batch": 10,
    "learning_rate": 0.05,
    "measured_images": 20,
}
_LINEAR: dict[str, Any] = {"channels": [], "kernels": [], "widths": []}
_CAPTION = (
    "{images}, {epochs} epochs on one pair of classes after another, in mini-batches of 100; network of three "
    "convolutions ({channels} channels) and two hidden layers of 128; SGD with momentum .9, step {step} unless said; "
    "output layer zeroed before each task."
)


class ContinualImageNet(EpochStudy, name="continual-imagenet"):
    """Continual ImageNet (Dohare et al., Nature 632, 2024, Fig. 1).

    A convolutional network learns to tell two classes apart, then two others, and so on. Before each task the output
    layer is zeroed; all else is kept, momentum too. What counts is the accuracy on the test images of a task after its
    last epoch: tasks are alike, so a network that learns the later ones worse has lost plasticity.

    Any set of colour images of 32×32 pixels will do, or one that can be reduced to that size: `--data`. Of its training
    part the first `classes` classes are used, and of each class the first `train_per_class` images to learn and the
    last `test_per_class` to test on. If "normalised", the pixels of each colour have mean 0 and variance 1 over all
    images; floats, such as the article's own arrays, are taken as they are.

    Beyond the article: a share "label_noise" of the training labels is wrong, and as many "mixed_tasks" come between
    two tasks, in which more and more images are those of the task to come.
    """

    summary = "a convolutional network that learns one pair of image classes after another"
    caption = _CAPTION.format(images="ImageNet at 32×32", epochs=250, channels="32, 64, 128", step=".01")
    scales = {
        "smoke": Scale("seconds: 3 tasks of generated images, 2 seeds, to see that it works", range(2), _SMOKE),
        "laptop": Scale(
            "an hour of one core: 200 tasks of 10 epochs, a small network, 3 seeds",
            range(3),
            _LAPTOP,
            _CAPTION.format(
                images="100 classes of Tiny ImageNet at 32×32", epochs=10, channels="8, 16, 32", step=".05"
            ),
        ),
        # Seeds that no figure uses, so that nothing is chosen on what it is judged by.
        "search": Scale(
            "hours of one core: steps and settings of all methods to choose from, 1 seed", range(1000, 1001), _LAPTOP
        ),
        "kumar-2023": Scale(
            "days: the setting of Kumar et al. 2023, 500 tasks of 10 epochs, the output layer is kept, 10 seeds",
            range(10),
            _KUMAR,
            _CAPTION.format(images="ImageNet at 32×32", epochs=10, channels="16, 16", step=".01")
            .replace("three convolutions", "two convolutions of 5×5")
            .replace("hidden layers of 128", "hidden layers of 100")
            .replace("; output layer zeroed before each task", ""),
        ),
        "paper": Scale("the article's: 5,000 tasks of 250 epochs, 1,000 classes, 30 seeds", range(30), _PAPER),
        "paper-code": Scale(
            "cbp as in the published code, beside the article's, at the size of paper", range(30), _PAPER
        ),
    }

    def arms(self, scale: str) -> dict[str, Arm]:
        """Return three steps, a linear learner and the remedies; or settings to choose from; or both forms of cbp."""
        if scale == "search":
            return _candidates()
        if scale == "paper-code":
            return {"cbp": _cbp(), "cbp as in the code": _cbp(utility_rule="adaptable_contribution", of_all=True)}
        if scale == "kumar-2023":
            return {
                **_steps(0.01, 0.001),
                "l2": _l2(1e-3),
                "l2-init": Arm((L2Init(1e-3),)),
                "shrink-and-perturb": _shrink_and_perturb(1e-3, 1e-3),
                "cbp": _cbp(1e-4, utility_rule="adaptable_contribution"),
            }
        if scale == "paper":
            return {
                **_steps(0.01, 0.001, 0.0001),
                "linear": _linear(0.01),
                "l2": _l2(3e-6, 0.03),
                "shrink-and-perturb": _shrink_and_perturb(1e-5, 1e-5),
                # The article calls it the variance of the noise; its code has it as the standard deviation.
                "shrink-and-perturb variance": _shrink_and_perturb(1e-5, 1e-5**0.5),
                "cbp": _cbp(),
            }
        found = {
            **_steps(0.05, 0.03, 0.01),
            "linear": _linear(0.01),
            "l2": _l2(1e-3),
            "shrink-and-perturb": _shrink_and_perturb(1e-3, 1e-4),
        }
        if scale == "smoke":
            return found | {"cbp": _cbp(0.02, 4)}
        # Ten times the article's rate, since a task has a 37th of its updates; and the article's.
        return found | {"cbp": _cbp(3e-3), "cbp rate=0.0003": _cbp()}

    def counterparts(self, scale: str) -> tuple[Counterpart, ...]:
        """Return Fig. 1b and 1c."""
        if scale not in ("laptop", "paper"):
            return ()
        arms = self.arms(scale)
        plain = tuple(name for name in arms if name.startswith("backprop"))
        whole = scale == "paper"
        bin_ = 50 if whole else 10
        return (
            Counterpart(
                "Fig. 1b",
                "plain backpropagation at three steps, and a linear network",
                (
                    _panel("first tasks", plain, last=10, published="Fig. 1b, first tasks" if whole else None),
                    _panel("all tasks", (*plain, "linear"), bin_, last=2000, published="Fig. 1b" if whole else None),
                ),
            ),
            Counterpart(
                "Fig. 1c",
                "methods that keep plasticity",
                (
                    _panel(
                        "all tasks",
                        (
                            *(("backprop step=0.01",) if whole else (plain[0], "cbp rate=0.0003")),
                            "l2",
                            "shrink-and-perturb",
                            "cbp",
                        ),
                        bin_,
                        published="Fig. 1c" if whole else None,
                    ),
                ),
            ),
        )

    def stream(self, problem: Mapping[str, Any], seed: int) -> SplitStream:
        """Make the data of a run.

        Raises:
            DataError: they are grey, or there are too few classes or images.
        """
        found = sources.load(problem["data"], size=32)
        classes = problem["classes"]
        if found.images.ndim != 4:
            raise DataError(f"{found.origin} are grey, and the network takes colours: use other data.")
        there = int(found.labels.max()) + 1
        if there < classes:
            raise DataError(
                f"{classes} classes are needed, but these are {found.origin}: use other data, or fewer classes "
                f"(--scale ...+classes={there})."
            )
        images, labels = found.images, found.labels
        if there > classes:
            images, labels = images[labels < classes], labels[labels < classes]
        mean, std = None, None
        if problem["normalised"] and images.dtype == np.uint8:
            mean, std = colour_statistics(images, found.white)
        train, test = problem["train_per_class"], problem["test_per_class"]
        stream: SplitStream = ClassPairs(images, labels, train, test, seed, white=found.white, mean=mean, std=std)
        if problem["mixed_tasks"]:
            stream = GradualSplit(stream, problem["mixed_tasks"], seed)
        if problem["label_noise"]:
            stream = NoisyLabels(stream, problem["label_noise"], seed=seed)
        return stream

    def network(self, problem: Mapping[str, Any], seed: int) -> nn.Module:
        """Make the network, with torch's initial law; linear if it has no hidden layer."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return ConvNet(2, problem["channels"], problem["kernels"], problem["widths"])

    def origin(self, problem: Mapping[str, Any]) -> str:
        """Say what was read, and from where."""
        return sources.load(problem["data"], size=32).origin


def _panel(
    heading: str, arms: tuple[str, ...], bin_: int = 1, last: int | None = None, published: str | None = None
) -> ArticlePanel:
    return ArticlePanel(
        f"Test accuracy (%), {heading}", "test_accuracy", arms, bin_, last=last, factor=100, published=published
    )


def _steps(*steps: float) -> dict[str, Arm]:
    return {f"backprop step={step}": Arm(changes={"learning_rate": step}) for step in steps}


def _linear(step: float) -> Arm:
    """The whole network begins anew at each task."""
    return Arm((FullReset(),), {**_LINEAR, "learning_rate": step})


def _l2(weight_decay: float, step: float | None = None) -> Arm:
    """By the optimizer, which adds it to the gradient, so that it passes through momentum."""
    return Arm(changes={"weight_decay": weight_decay, **({} if step is None else {"learning_rate": step})})


def _shrink_and_perturb(weight_decay: float, noise_std: float) -> Arm:
    """Shrinkage by the optimizer, noise on every weight and bias after each step."""
    return Arm((ShrinkAndPerturb(0.0, noise_std),), {"weight_decay": weight_decay})


def _cbp(rate: float = 3e-4, maturity: int = 100, utility_rule: Any = "contribution", of_all: bool = False) -> Arm:
    budget: Any = "carried_of_all" if of_all else "carried"
    return Arm((ContinualBackprop(rate, maturity, budget=budget, utility_rule=utility_rule, weight_sums="each_step"),))


def _candidates() -> dict[str, Arm]:
    """The article's sweeps, moved to what a run of some hundred short tasks can show."""
    found = _steps(0.1, 0.07, 0.05, 0.03, 0.01)
    found |= {f"linear step={step}": _linear(step) for step in (0.01, 0.001)}
    found |= {f"l2 {decay:g}": _l2(decay) for decay in (1e-2, 1e-3, 1e-4, 1e-5)}
    found |= {
        f"shrink {decay:g} perturb {noise:g}": _shrink_and_perturb(decay, noise)
        for decay in (1e-3, 1e-4)
        for noise in (1e-3, 1e-4, 1e-5)
    }
    found |= {f"cbp rate={rate:g}": _cbp(rate) for rate in (1e-2, 3e-3, 1e-3, 3e-4, 1e-4)}
    return found | {"cbp adaptable": _cbp(utility_rule="adaptable_contribution")}
