"""How long a step of convolutional networks takes in a study, and in a plain PyTorch loop: `python -m
benchmarks.convolution`.

The plain loop is what one would write by hand: default memory layout, torch's SGD with momentum at its defaults, the
article's network with the ReLU before the pooling. The study's goes through `EpochCourse`, as `regrow run` does, with
all that belongs to it: order, layout, judging what was learned. Both learn the same images and then test one.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.interleave import AGAIN, Row, compare_times, parse, report, time_in_turn
from regrow.experiments.arm import Arm
from regrow.experiments.epochs import EpochStudy, SplitStream
from regrow.experiments.spec import RunSpec
from regrow.experiments.study import _plain
from regrow.methods import Backprop, ContinualBackprop, Method
from regrow.networks.convnet import ConvNet
from regrow.networks.resnet import ResNet
from regrow.streams.task import Examples, SplitTask


class Images:
    """The same task over and over: random images."""

    def __init__(self, count: int, classes: int) -> None:
        random = torch.Generator().manual_seed(0)
        inputs = torch.randn(count, 3, 32, 32, generator=random)
        self.train = Examples(inputs, torch.randint(classes, (count,), generator=random))
        self.classes = classes

    def task(self, index: int) -> SplitTask:
        """See `SplitStream`."""
        test = Examples(self.train.inputs[:1], self.train.labels[:1])
        return SplitTask(index, self.train, test, None, self.classes, test.inputs)


class Steps(EpochStudy):
    """A study of one task, again and again, in as many steps as a call is to take."""

    def arms(self, scale: str) -> dict[str, Arm]:
        """See `EpochStudy`."""
        return {}

    def origin(self, problem: Mapping[str, Any]) -> str:
        """See `EpochStudy`."""
        return "random images"

    def stream(self, problem: Mapping[str, Any], seed: int) -> SplitStream:
        """See `EpochStudy`."""
        return Images(problem["steps"] * problem["batch"], problem["classes"])

    def network(self, problem: Mapping[str, Any], seed: int) -> nn.Module:
        """See `EpochStudy`."""
        torch.manual_seed(seed)
        return network_of(problem)


def main() -> None:
    options = parse(__doc__.splitlines()[0])
    rows: list[Row] = []
    for name, classes, batch, steps, rate in (("ConvNet", 2, 100, 3, 3e-4), ("ResNet-18", 100, 30, 1, 1e-5)):
        problem = {
            "network": name,
            "classes": classes,
            "batch": batch,
            "steps": steps,
            "learning_rate": 0.01,
            "momentum": 0.9,
            "epochs": 1,
            "measured_images": 0,
            "channels_last": True,
        }
        cbp = ContinualBackprop(rate, 100, weight_sums="each_step")
        cases = {
            f"{name}, plain PyTorch loop": plain_loop(problem),
            f"{name}, study, backprop": study_loop(problem, Backprop()),
            f"{name}, study, cbp": study_loop(problem, cbp),
        }
        cases = {case + again: call for case, call in cases.items() for again in ("", AGAIN)}
        times = time_in_turn(cases, 2 if options.quick else 15)
        for baseline in (f"{name}, plain PyTorch loop", f"{name}, study, backprop"):
            rows += [per_step(row, steps) for row in compare_times(of_interest(times, baseline), baseline)]
    notes = ["ms a step; ConvNet: the article's for Continual ImageNet, batch 100; ResNet-18 on 3×32×32, batch 30"]
    report(rows, "Convolutional networks: a step in a study, and in a plain PyTorch loop", options.json, notes)


def of_interest(times: Mapping[str, list[float]], baseline: str) -> dict[str, list[float]]:
    """The baseline twice, to see the noise, and what follows it once."""
    names = [name for name in times if not name.endswith(AGAIN)]
    shown = [baseline, baseline + AGAIN, *names[names.index(baseline) + 1 :]]
    return {name: times[name] for name in shown}


def network_of(problem: Mapping[str, Any]) -> nn.Module:
    return ConvNet() if problem["network"] == "ConvNet" else ResNet(problem["classes"])


def usual_order(network: nn.Module) -> nn.Module:
    """The article's network as it is published: ReLU, then pooling."""
    if not isinstance(network, ConvNet):
        return network
    layers = list(network)
    for place in (1, 4, 7):
        layers[place], layers[place + 1] = layers[place + 1], layers[place]
    return nn.Sequential(*layers)


def plain_loop(problem: Mapping[str, Any]) -> Callable[[], None]:
    """A case: what one would write by hand."""
    torch.manual_seed(0)
    network = usual_order(network_of(problem)).train()
    optimizer = torch.optim.SGD(network.parameters(), lr=problem["learning_rate"], momentum=problem["momentum"])
    images = Images(problem["steps"] * problem["batch"], problem["classes"]).train

    def learn() -> None:
        for some in torch.randperm(len(images)).split(problem["batch"]):
            optimizer.zero_grad()
            loss: Tensor = functional.cross_entropy(network(images.inputs[some]), images.labels[some])
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        network.eval()
        with torch.no_grad():
            network(images.inputs[:1])
        network.train()

    return learn


def study_loop(problem: Mapping[str, Any], method: Method) -> Callable[[], None]:
    """A case: the next task of a run."""
    spec = RunSpec("steps", "benchmark", method.name, (_plain(method),), 0, "plain", problem)
    course = Steps().course(spec)

    def learn() -> None:
        while course.advance().row is None:
            pass

    return learn


def per_step(row: Row, steps: int) -> Row:
    return Row(row.case, row.baseline, row.milliseconds / steps, row.ratio, row.low, row.high, row.rounds)


if __name__ == "__main__":
    main()
