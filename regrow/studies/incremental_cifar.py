"""Class-incremental CIFAR-100: a network that is to learn ever more classes."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from regrow.errors import DataError
from regrow.experiments.arm import Arm
from regrow.experiments.counterpart import ArticlePanel, Counterpart
from regrow.experiments.epochs import Companion, EpochStudy, SplitStream
from regrow.experiments.scale import Scale
from regrow.methods import ContinualBackprop, FullReset, HardReset, ShrinkAndPerturb
from regrow.networks.resnet import ResNet
from regrow.streams import ClassIncremental, NoisyLabels, sources
from regrow.streams.images import Labelled
from regrow.studies.main_path import main_path_symptoms
from regrow.studies.published_resnet_cbp import PublishedResNetCBP
from regrow.units.graph import UnitGraph

# The article's problem, with its own numbers.
_PAPER = {
    "data": "cifar-100",
    "increment": 5,
    "tasks": 20,
    "train_per_class": 450,
    "validation_per_class": 50,
    "label_noise": 0.0,
    "size": 32,
    "channels": [64, 128, 256, 512],
    "blocks": [2, 2, 2, 2],
    "epochs": 200,
    "schedule": [[60, 0.2], [120, 0.04], [160, 0.008]],
    "batch": 90,
    "optimizer": "sgd",
    "learning_rate": 0.1,
    "momentum": 0.9,
    "weight_decay": 5e-4,
    "init": "kaiming_normal",
    "head": "grown",
    "selection": "best_validation",
    "memory": "kept",
    "reported": "best",
    "augmentation": "train",
    "published_cbp": None,
    "measured_images": 1000,
    "measured_in": "eval",
    "channels_last": True,
    "device": "cpu",
}
# Where the published code does otherwise and an option says so; see docs/differences.md.
_CODE = {"augmentation": "train_and_test", "measured_in": "train", "head": "kept"}
_LAPTOP = _PAPER | {
    "data": "auto",
    "tasks": 10,
    "train_per_class": 100,
    "validation_per_class": 20,
    "size": 16,
    "channels": [8, 16, 32, 64],
    "blocks": [1, 1, 1, 1],
    "epochs": 20,
    "schedule": [[6, 0.2], [12, 0.04], [16, 0.008]],
    "learning_rate": 0.3,
    "weight_decay": 5e-3,
    "augmentation": "none",
}
_SMOKE = _LAPTOP | {
    "data": "generated-images",
    "increment": 2,
    "tasks": 3,
    "train_per_class": 12,
    "validation_per_class": 4,
    "channels": [4, 6],
    "blocks": [1, 1],
    "size": 8,
    "epochs": 3,
    "schedule": [[1, 0.2], [2, 0.04]],
    "batch": 8,
    "augmentation": "train",
    "measured_images": 24,
}
_RATES = {f"cbp rate={rate}": rate for rate in (1e-4, 1e-6)}  # of Extended Data Fig. 1b, beside the chosen 1e-5
_PREFERRED = ("cifar-100", "tiny-imagenet-100")
_REST = (
    "SGD with momentum; the highest test accuracy of each increment. Dormant units and the rank of the last features: "
    "on the images of the next classes."
)
_SMALL = (
    "Images of 16×16 pixels; 5 classes, then 5 more in each increment, which trains on 100 images of each class so far "
    "for 20 epochs; residual network of 8–16–32–64 channels, batches of 90, step .3 falling to .0024; "
) + _REST


class IncrementalCIFAR(EpochStudy, name="incremental-cifar"):
    """Class-incremental CIFAR-100 (Dohare et al., Nature 632, 2024, Fig. 2 and Extended Data Fig. 1).

    A residual network learns 5 classes, then 5 more in each increment, always with all images of the classes so far;
    in each increment the step falls in four stages, and the next one begins with the network that was best in
    validation. Only what the network brings along can make it worse than one that is trained from scratch.

    Of a problem, beside what `EpochStudy` reads: "increment" classes a task; "train_per_class" and
    "validation_per_class", the first of the data; "size" of the images in pixels, to which larger ones are reduced;
    "label_noise", a share of the training labels that is wrong (beyond the article); "channels" and "blocks" of the
    network; "measured_in" eval or train mode, see `main_path_symptoms`; and
    "published_cbp", None or the settings of `PublishedResNetCBP`.

    Where the published code differs from the article there is an option for it (docs/differences.md); the scale
    "paper-code" takes the code's way in all of them.
    """

    summary = "a residual network that is to learn ever more classes of small images"
    caption = (
        "CIFAR-100; 5 classes, then 5 more in each increment, which trains on all images of the classes so far for 200 "
        "epochs; ResNet-18, batches of 90, step .1 falling to .0008; "
    ) + _REST
    scales = {
        "smoke": Scale(
            "seconds: 3 increments of 2 generated classes, 2 seeds, to see that it works",
            range(2),
            _SMOKE,
            "Generated images; 2 classes, then 2 more in each increment, 3 epochs; " + _REST,
        ),
        "laptop": Scale(
            "forty minutes of two cores: 10 increments of 5 classes, small images, small network, 3 seeds",
            range(3),
            _LAPTOP,
            _SMALL,
        ),
        # Seeds that no figure uses, so that nothing is chosen on what it is judged by.
        "search": Scale(
            "half an hour of two cores: settings to choose from, 1 seed", range(1000, 1001), _LAPTOP, _SMALL
        ),
        "paper": Scale("the article's: 20 increments of 5 classes, 200 epochs each, 15 seeds", range(15), _PAPER),
        "paper-code": Scale(
            "as in the published code: augmented test images, measured in train mode, all outputs from the start",
            range(15),
            _PAPER | _CODE,
        ),
    }

    def arms(self, scale: str) -> dict[str, Arm]:
        """Return the network as it is, the retrained one, and the remedies."""
        if scale == "search":
            return _candidates()
        if scale.startswith("paper"):
            return _as_published(by_code=scale == "paper-code")
        return _chosen() if scale == "laptop" else _compared(0.02, 4, noise_std=1e-3)

    def settled(self, problem: Mapping[str, Any]) -> Mapping[str, Any]:
        """Take the images that are there."""
        if problem["data"] == "auto":
            return {**problem, "data": sources.first_of(_PREFERRED)}
        return problem

    def stream(self, problem: Mapping[str, Any], seed: int) -> SplitStream:
        """Make the data of a run.

        Raises:
            DataError: there are too few classes, or too few images of one.
        """
        train, test = (_images(problem, split) for split in ("train", "test"))
        learned = Labelled(train.images, train.labels)
        count = problem["train_per_class"] + problem["validation_per_class"]
        learned.require(count)
        first = np.concatenate([rows[:count] for rows in learned.by_class])
        classes = problem["increment"] * problem["tasks"]
        if classes > len(learned.by_class):
            raise DataError(
                f"{problem['tasks']} increments of {problem['increment']} classes are {classes} classes, and "
                f"{problem['data']} has {len(learned.by_class)}: take fewer increments, or other data."
            )
        stream: SplitStream = ClassIncremental(
            train.images[first],
            train.labels[first],
            test.images,
            test.labels,
            problem["increment"],
            problem["validation_per_class"],
            seed,
            white=train.white,
        )
        return NoisyLabels(stream, problem["label_noise"], seed=seed) if problem["label_noise"] else stream

    def classes(self, problem: Mapping[str, Any], index: int) -> int:
        """See `EpochStudy`: ever more."""
        return (index + 1) * int(problem["increment"])

    def network(self, problem: Mapping[str, Any], seed: int) -> nn.Module:
        """Make the network, with an output for each class that ever comes."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return ResNet(problem["increment"] * problem["tasks"], problem["channels"], problem["blocks"])

    def symptoms(
        self, network: nn.Module, probe: Tensor, graph: UnitGraph, problem: Mapping[str, Any]
    ) -> dict[str, float]:
        """Measure along the main path, as the article does."""
        assert isinstance(network, ResNet)
        return main_path_symptoms(network, probe, problem["measured_in"])

    def companion(
        self, network: nn.Module, optimizer: Optimizer, problem: Mapping[str, Any], seed: int
    ) -> Companion | None:
        """Put the published form of continual backpropagation to work, if the arm has it."""
        if problem["published_cbp"] is None:
            return None
        assert isinstance(network, ResNet)
        return PublishedResNetCBP(network, optimizer, **problem["published_cbp"], seed=seed)

    def counterparts(self, scale: str) -> tuple[Counterpart, ...]:
        """Return Fig. 2 and Extended Data Fig. 1."""
        return _figures(scale == "paper") if scale in ("laptop", "paper") else ()

    def origin(self, problem: Mapping[str, Any]) -> str:
        """Say what was read, and from where, and what it stands in for."""
        data = problem["data"]
        remark = sources.why_not_first(_PREFERRED, data) if data in _PREFERRED else ""
        return "; ".join(filter(None, (_images(problem, "train").origin, remark)))


def _chosen() -> dict[str, Arm]:
    """As many replacements of each unit in a run of 6,200 steps as in the article's of a million."""
    return _compared(1e-3, 100, noise_std=1e-3)


def _candidates() -> dict[str, Arm]:
    found = {f"base step={step}": Arm(changes={"learning_rate": step}) for step in (0.1, 0.2, 0.3)}
    found |= {f"base weight_decay={decay}": Arm(changes={"weight_decay": decay}) for decay in (5e-4, 2e-3)}
    found |= {f"cbp rate={rate}": Arm((_cbp(rate, 100),)) for rate in (1e-3, 3e-4, 1e-4)}
    found |= {f"shrink-and-perturb noise_std={std}": Arm((_noise(std),)) for std in (1e-3, 3e-4, 1e-4)}
    return {"retrained": Arm((FullReset(),))} | found


def _compared(rate: float, maturity: int, noise_std: float) -> dict[str, Arm]:
    return {
        "base": Arm(),
        "retrained": Arm((FullReset(),)),
        "head-reset": Arm((HardReset(),)),
        "shrink-and-perturb": Arm((_noise(noise_std),)),
        "cbp": Arm((_cbp(rate, maturity),)),
        "cbp as in the code": _published_cbp(rate, maturity),
    }


def _as_published(by_code: bool) -> dict[str, Arm]:
    arms = _compared(1e-5, 1000, 1e-5)
    if by_code:
        arms["retrained"], arms["head-reset"] = Arm((FullReset(memory="kept"),)), Arm((HardReset(memory="kept"),))
        del arms["cbp"]
    return arms | {
        name: _published_cbp(rate, 1000) if by_code else Arm((_cbp(rate, 1000),)) for name, rate in _RATES.items()
    }


def _cbp(rate: float, maturity: int) -> ContinualBackprop:
    return ContinualBackprop(rate, maturity, weight_sums="each_step")


def _published_cbp(rate: float, maturity: int) -> Arm:
    settings = {"replacement_rate": rate, "maturity_threshold": maturity}
    return Arm(changes={"published_cbp": settings})


def _noise(std: float) -> ShrinkAndPerturb:
    """The shrinking is the weight decay of the optimizer, which all arms have."""
    return ShrinkAndPerturb(0.0, std)


def _images(problem: Mapping[str, Any], split: sources.Split) -> sources.ImageSet:
    return sources.load(problem["data"], split, problem["size"])


_LEARNERS = ("cbp", "shrink-and-perturb", "head-reset", "base")


def _figures(paper: bool) -> tuple[Counterpart, ...]:
    """Fig. 2 without its sketch, and Extended Data Fig. 1."""

    def panel(
        heading: str, measure: str, arms: tuple[str, ...], published: str | None, relative_to: str | None = None
    ) -> ArticlePanel:
        return ArticlePanel(
            heading,
            measure,
            arms,
            x_label="Classes",
            x_factor=5,
            x_offset=5,
            factor=100,
            relative_to=relative_to,
            published=published if paper else None,
        )

    symptoms = Counterpart(
        "Fig. 2b–d",
        "ever more classes",
        (
            panel("Test accuracy − retrained (points)", "test_accuracy", _LEARNERS, "Fig. 2b", "retrained"),
            panel("Dormant units on the next classes (%)", "dormant", _LEARNERS, "Fig. 2c"),
            panel("Rank of the features on the next classes (%)", "last_rank", _LEARNERS, "Fig. 2d"),
        ),
    )
    accuracy = Counterpart(
        "ED 1a",
        "ever more classes, test accuracy",
        (panel("Test accuracy (%)", "test_accuracy", ("retrained", *_LEARNERS), "ED 1a"),),
    )
    rates = Counterpart(
        "ED 1b",
        "ever more classes, replacement rates",
        (panel("Test accuracy (%)", "test_accuracy", ("cbp", *_RATES), None),),
    )
    return (symptoms, accuracy, rates) if paper else (symptoms, accuracy)
