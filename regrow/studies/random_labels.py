"""Random labels: the same images, to be learned by heart again and again."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from regrow.experiments.arm import Arm
from regrow.experiments.epochs import EpochStudy, SplitStream
from regrow.experiments.scale import Scale
from regrow.methods import L2, ContinualBackprop, FullReset, L2Init, ShrinkAndPerturb
from regrow.networks.convnet import ConvNet
from regrow.networks.mlp import MLP
from regrow.streams import RandomLabels, sources

_KUMAR = {
    "data": "mnist",
    "images": 1200,
    "network": "mlp",
    "tasks": 50,
    "epochs": 400,
    "batch": 16,
    "optimizer": "adam",
    "learning_rate": 1e-3,
    "measured_images": 500,
    "device": "cpu",
}
_LAPTOP = _KUMAR | {"data": "optical-digits", "tasks": 30, "epochs": 40}
_SMOKE = _LAPTOP | {"images": 64, "tasks": 2, "epochs": 3, "measured_images": 0}


class RandomLabelsStudy(EpochStudy, name="random-labels"):
    """Random-label MNIST and CIFAR-10 (Kumar, Marklund and Van Roy 2023, arXiv 2308.11958).

    The same images in every task, under labels that are drawn anew, so that all tasks are equally hard and there is
    nothing to know but each image. What counts there is `online_accuracy`, of the predictions before each step over all
    epochs of a task; the test images are those that are learned.
    """

    summary = "the same images under labels that are drawn anew each task"
    caption = (
        "1,200 images under labels drawn anew for each task, in mini-batches of 16, Adam of step .001; network of two "
        "hidden layers of 100, ReLU. The accuracy is that on the images learned, after the last epoch."
    )
    scales = {
        "smoke": Scale("seconds: 2 tasks of 3 epochs on 64 packaged digits, 2 seeds", range(2), _SMOKE),
        "laptop": Scale("an hour of one core: 30 tasks of 40 epochs on packaged digits, 3 seeds", range(3), _LAPTOP),
        "kumar-2023": Scale("hours: as published, 50 tasks of 400 epochs on MNIST, 10 seeds", range(10), _KUMAR),
        "kumar-2023-cifar": Scale(
            "days: as published, on CIFAR-10 with a convolutional network, 10 seeds",
            range(10),
            _KUMAR | {"data": "cifar10", "network": "convnet"},
        ),
    }

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
        found = sources.load(problem["data"])
        return RandomLabels(found.images, found.labels, problem["images"], seed=seed, white=found.white)

    def network(self, problem: Mapping[str, Any], seed: int) -> nn.Module:
        """Make the network, with torch's own initial law: two hidden layers, or convolutions before one."""
        image = sources.load(problem["data"]).images[0]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            if problem["network"] == "convnet":
                return ConvNet(10, (16, 16), (5, 5), (100,), image.shape[0], image.shape[2])
            network = MLP(image.size, (100, 100), 10)
            for layer in network:
                if isinstance(layer, nn.Linear):
                    layer.reset_parameters()
            return nn.Sequential(nn.Flatten(), *network)

    def origin(self, problem: Mapping[str, Any]) -> str:
        """Say what was read, and from where."""
        return sources.load(problem["data"]).origin
