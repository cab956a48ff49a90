"""5+1 CIFAR: hard tasks of five classes, and between them easy ones of one class."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from regrow.experiments.arm import Arm
from regrow.experiments.epochs import EpochStudy, SplitStream
from regrow.experiments.scale import Scale
from regrow.methods import L2, ContinualBackprop, FullReset, L2Init, ShrinkAndPerturb
from regrow.networks.convnet import ConvNet
from regrow.streams import HardAndEasy, sources

_KUMAR = {
    "data": "cifar100",
    "hard": 5,
    "easy": 1,
    "tasks": 30,
    "classes": 100,
    "epochs": 10,
    "epochs_in_turn": [10, 49],  # 780 steps of 32: 2,500 images, then 500
    "batch": 32,
    "optimizer": "adam",
    "learning_rate": 1e-3,
    "measured_images": 500,
    "device": "cpu",
}
_SMOKE = _KUMAR | {
    "data": "generated-images",
    "classes": 20,
    "tasks": 3,
    "epochs_in_turn": [1, 2],
    "measured_images": 0,
}


class HardAndEasyStudy(EpochStudy, name="hard-and-easy"):
    """5+1 CIFAR-100 (Kumar, Marklund and Van Roy 2023, arXiv 2308.11958).

    Hard tasks, of five classes, take turns with easy ones, of a single class; each class comes once, and all tasks have
    as many steps. A network may lose the ability to learn while an easy task lasts: what counts are the tasks with an
    even number.
    """

    summary = "hard tasks of five image classes, and between them easy ones of one"
    caption = (
        "CIFAR-100, five classes and one class in turn, 780 steps of 32 images each, Adam of step .001; two "
        "convolutions of 16 channels and a hidden layer of 100."
    )
    scales = {
        "smoke": Scale("seconds: 3 tasks of generated images, 2 seeds, to see that it works", range(2), _SMOKE),
        "kumar-2023": Scale("a day of one core: as published, 30 tasks, 10 seeds", range(10), _KUMAR),
    }
    missing_scales = dict.fromkeys(
        ("laptop", "paper"), "it has another paper's setting alone, and the article has no such experiment."
    )

    def arms(self, scale: str) -> dict[str, Arm]:
        """Return plain backprop, the remedies and the oracle."""
        rate, maturity = (1e-2, 4) if scale == "smoke" else (1e-4, 100)
        return {
            "backprop": Arm(),
            "cbp": Arm((ContinualBackprop(rate, maturity, weight_sums="each_step"),)),
            "l2": Arm((L2(1e-3, coupled=True),)),
            "l2-init": Arm((L2Init(1e-3),)),
            "shrink-and-perturb": Arm((ShrinkAndPerturb(1e-3, 1e-3),)),
            "full-reset": Arm((FullReset(),)),
        }

    def stream(self, problem: Mapping[str, Any], seed: int) -> SplitStream:
        """Make the data of a run."""
        train, test = (sources.load(problem["data"], split, 32) for split in ("train", "test"))
        return HardAndEasy(
            train.images, train.labels, test.images, test.labels, problem["hard"], problem["easy"], seed,
            white=train.white,
        )  # fmt: skip

    def network(self, problem: Mapping[str, Any], seed: int) -> nn.Module:
        """Make the network, with torch's own initial law."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return ConvNet(problem["classes"], (16, 16), (5, 5), (100,))

    def origin(self, problem: Mapping[str, Any]) -> str:
        """Say what was read, and from where."""
        return sources.load(problem["data"], size=32).origin
