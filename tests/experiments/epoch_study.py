"""A study of seconds whose learners go through each task for epochs, on images that say which they are."""

import torch
from torch import nn

from regrow.experiments.arm import Arm
from regrow.experiments.epochs import EpochStudy
from regrow.experiments.spec import RunSpec
from regrow.experiments.study import _plain
from regrow.streams.task import Examples, SplitTask

PROBLEM = {
    "tasks": 3,
    "epochs": 3,
    "batch": 4,
    "learning_rate": 0.1,
    "momentum": 0.9,
    "measured_images": 0,
    "outputs": 6,
}


class Stream:
    """Tasks of 14 training images, so that the last batch is short; classes as `classes` says, task by task."""

    def __init__(self, seed, classes=(2, 2, 2), validation=True, train=14):
        self.seed, self.classes, self.validation, self.train = seed, classes, validation, train

    def task(self, index):
        random = torch.Generator().manual_seed(100 * self.seed + index)
        classes = self.classes[index]

        def examples(count):
            inputs = torch.rand(count, 3, 8, 8, generator=random)
            inputs[:, 0, 0, 0] = torch.arange(count)  # which image it is
            return Examples(inputs, torch.arange(count) % classes)

        train, test, validation, probe = (examples(count) for count in (self.train, 7, 9, 12))
        return SplitTask(index, train, test, validation if self.validation else None, classes, probe.inputs)


class EpochStudyOfTests(EpochStudy):
    def arms(self, scale):
        return {"backprop": Arm()}

    def origin(self, problem):
        return "made up"

    def stream(self, problem, seed):
        return Stream(seed, problem.get("classes", (2, 2, 2)), problem.get("validation", True))

    def network(self, problem, seed):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            layers = [nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 4, 2), nn.ReLU()]
            return nn.Sequential(*layers, nn.Flatten(), nn.Linear(16, problem["outputs"]))


def course(*methods, study=None, seed=0, **changes):
    """Begin a run of these methods on the problem with changes."""
    arm = Arm(methods) if methods else Arm()
    plain = tuple(map(_plain, arm.methods))
    spec = RunSpec("epochs", "test", "arm", plain, seed, "plain", {**PROBLEM, **changes})
    return (study or EpochStudyOfTests()).course(spec)


def rows_of(begun, tasks=3):
    """Go on to the end of so many tasks, and return their rows."""
    rows = []
    while len(rows) < tasks:
        row = begun.advance().row
        if row is not None:
            rows.append(row)
    return rows
