"""Studies of learners that see each task for epochs, and are judged on images that they did not learn."""

import time
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import torch
from torch import Generator, Tensor, nn
from torch.optim import Optimizer

from regrow.attachment.attach import attach
from regrow.engines.training import TEST_ACCURACY, Training
from regrow.errors import ConfigError
from regrow.experiments.course import Course, Pace, Piece
from regrow.experiments.regime import Regime
from regrow.experiments.spec import RunSpec
from regrow.experiments.study import Study, methods_of
from regrow.measures import measure
from regrow.streams.augmentation import augment
from regrow.streams.seeds import generator
from regrow.streams.task import Examples, SplitTask
from regrow.units.graph import UnitGraph
from regrow.units.trace import find_units

# What a generator is for; far from the numbers of the streams, which have the same seed.
_ORDER, _IMAGES, _TEST_IMAGES, _OUTPUTS = range(1000, 1004)
_EVALUATED = 500  # images at once


class SplitStream(Protocol):
    """Tasks with a training and a test part."""

    def task(self, index: int) -> SplitTask:
        """Return task `index`, the same whenever it is asked for."""


class Companion(Protocol):
    """What else acts after the steps of an optimizer, beside attached methods.

    Attributes:
        replacements: units that it has replaced so far.
    """

    replacements: int

    def state_dict(self) -> dict[str, Any]:
        """Everything that `load_state_dict` needs for going on with the same bits."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` returned."""


class EpochStudy(Study):
    """A study of learners that go through each task for epochs.

    Of a problem, "learning_rate" is always there; those of `Training` and `Regime`; "init" is the law of new incoming
    weights; before a task the network is measured on at most "measured_images" of its probe images; "channels_last" and
    "device" say how it is computed, which changes the rounding.
    """

    @abstractmethod
    def stream(self, problem: Mapping[str, Any], seed: int) -> SplitStream:
        """Make the data of a run."""

    @abstractmethod
    def network(self, problem: Mapping[str, Any], seed: int) -> nn.Module:
        """Make the network of a run as it is before the first task; its last linear layer is the output."""

    def symptoms(
        self, network: nn.Module, probe: Tensor, graph: UnitGraph, problem: Mapping[str, Any]
    ) -> dict[str, float]:
        """Measure the network before a task, on probe images that are ready for it. Nothing about it changes."""
        return measure(network, probe, graph).network

    def companion(
        self, network: nn.Module, optimizer: Optimizer, problem: Mapping[str, Any], seed: int
    ) -> Companion | None:
        """Put to work what acts beside the methods; None if nothing does."""
        return None

    def classes(self, problem: Mapping[str, Any], index: int) -> int:
        """How many classes task `index` has."""
        return 2

    def course(self, spec: RunSpec) -> Course:
        """See `Study`."""
        return EpochCourse(self, spec)


class EpochCourse:
    """A learner on its way through tasks, each for some epochs. Implements `Course`.

    Args:
        study: the study.
        spec: the run.
    """

    def __init__(self, study: EpochStudy, spec: RunSpec) -> None:
        self._study, self._problem = study, spec.problem
        problem = spec.problem
        self._seed = spec.seed
        self._device = torch.device(problem.get("device", "cpu"))
        self._format = torch.channels_last if problem.get("channels_last") else torch.contiguous_format
        self._stream = study.stream(problem, spec.seed)
        self._training, self._regime = Training.of(problem), Regime.of(problem)
        network = study.network(problem, spec.seed).to(self._device)
        self._network = network.to(memory_format=self._format).train()  # type: ignore[call-overload]
        self._head = [module for module in network.modules() if isinstance(module, nn.Linear)][-1]
        self._optimizer = self._training.make_optimizer(network, problem["learning_rate"])
        self._index = self._epoch = self._position = 0
        self._task: SplitTask | None = self._take_task()
        example = self._task.train.inputs[:2]
        self._graph = find_units(network, example)
        self._plastic = attach(
            network, self._optimizer, methods_of(spec), example=example, init=problem.get("init"), seed=spec.seed
        )
        self._companion = study.companion(network, self._optimizer, problem, spec.seed)
        self._classes = 0  # of the task that was begun last
        self._right: int | Tensor = 0  # of the training images of this epoch, when they were learned
        self._right_before = 0  # in the epochs before it
        self._tested: list[float] = []
        self._best: dict[str, Any] | None = None
        self._symptoms: dict[str, float | None] = {}
        self._pace = Pace(self._training.batch)

    @property
    def progress(self) -> float:
        """See `Course`. A task is taken to be as long as it has classes."""
        part = 0.0
        if self._task is not None:
            part = (self._epoch + self._position / len(self._task.train)) / self._regime.epochs_of(self._index)
        sizes = [self._study.classes(self._problem, index) for index in range(self._problem["tasks"])]
        done = sum(sizes[: self._index])
        return (done + part * sum(sizes[self._index : self._index + 1])) / sum(sizes)

    def advance(self) -> Piece:
        """See `Course`."""
        task = self._task = self._task or self._take_task()
        if self._epoch == self._position == 0:
            self._begin(task)
        began = time.perf_counter()
        learned = self._learn(task)
        seconds = time.perf_counter() - began
        self._pace.passed(learned, seconds)
        if self._position < len(task.train):
            return Piece(seconds, None)
        ended = self._end_epoch(task)
        return Piece(time.perf_counter() - began, self._end_task(task) if ended else None)

    def _take_task(self) -> SplitTask:
        """The task that is due, laid out as the network reads it: once, and not batch by batch."""
        task = self._stream.task(self._index)
        if self._regime.selection == "best_validation" and task.validation is None:
            raise ConfigError(
                f"Task {self._index} has no validation images, so no epoch can be chosen by them: use selection='last'."
            )
        return SplitTask(
            task.index,
            train=self._laid_out(task.train),
            test=self._laid_out(task.test),
            validation=task.validation and self._laid_out(task.validation),
            classes=task.classes,
            probe=self._ready(task.probe),
        )

    def _laid_out(self, examples: Examples) -> Examples:
        return Examples(self._ready(examples.inputs), examples.labels.to(self._device))

    def _begin(self, task: SplitTask) -> None:
        if self._index:
            self._plastic.task_changed(
                self._training.loss_of(self._outputs(task, task.train.inputs[some]), task.train.labels[some])
                for some in _parts(len(task.train), self._training.batch)
            )
        self._renew_head(task)
        images = self._problem["measured_images"]
        if images:
            probe = task.probe[:images]
            self._symptoms = {**self._study.symptoms(self._network, probe, self._graph, self._problem)}

    def _renew_head(self, task: SplitTask) -> None:
        with torch.no_grad():
            if self._regime.head == "zeroed":
                self._head.weight.zero_()
                self._head.bias.zero_()
            elif self._regime.head == "grown":
                if self._index:
                    self._draw_outputs(slice(self._classes, task.classes))
                # What is not in use must not add to the utility of any unit.
                self._head.weight[task.classes :] = 0
                self._head.bias[task.classes :] = 0
        self._classes = task.classes

    def _draw_outputs(self, rows: slice) -> None:
        """Draw some outputs from the law of the layer at first, which is normal with gain 1, and clear their momentum:
        they are new.
        """
        weight, bias = self._head.weight, self._head.bias
        random = self._random(_OUTPUTS, self._index)
        weight[rows] = torch.randn(weight[rows].shape, generator=random, device=self._device) / weight.shape[1] ** 0.5
        bias[rows] = 0
        for parameter in (weight, bias):
            for value in self._optimizer.state[parameter].values():
                if isinstance(value, Tensor) and value.shape == parameter.shape:
                    value[rows] = 0

    def _learn(self, task: SplitTask) -> int:
        """Learn some more batches of this epoch, and say how many images that were."""
        for group in self._optimizer.param_groups:
            group["lr"] = self._problem["learning_rate"] * self._regime.factor(self._epoch)
        order = generator(self._seed, _ORDER, self._index, self._epoch).permutation(len(task.train))
        chosen = torch.from_numpy(order).to(self._device)
        first, batch = self._position, self._training.batch
        last = min(len(order), first + max(1, self._pace.amount // batch) * batch)
        for start in range(first, last, batch):
            some = chosen[start : min(start + batch, last)]
            images, labels = task.train.inputs[some], task.train.labels[some]
            if self._regime.augmentation != "none":
                images = self._augmented(images, _IMAGES, start)
            outputs = self._outputs(task, images)
            self._right = self._right + self._training.judge(outputs.detach(), labels).sum()
            self._optimizer.zero_grad()
            torch.autograd.backward(self._training.loss_of(outputs, labels))
            self._optimizer.step()
        self._position = last
        return last - first

    def _end_epoch(self, task: SplitTask) -> bool:
        """Test the network as far as that is asked for. Says whether this was the last epoch of the task."""
        ended = self._epoch + 1 == self._regime.epochs_of(self._index)
        if ended or self._regime.reported == "best":
            augmented = self._regime.augmentation == "train_and_test"
            self._tested.append(self._accuracy(task, task.test, augmented))
        if self._regime.selection == "best_validation":
            self._keep_the_best(task)
        if not ended:
            self._right_before += int(self._right)
            self._epoch, self._position, self._right = self._epoch + 1, 0, 0
        return ended

    def _keep_the_best(self, task: SplitTask) -> None:
        assert task.validation is not None  # see `_take_task`
        accuracy = self._accuracy(task, task.validation)
        if self._best is None or accuracy > self._best["accuracy"]:
            state = {name: value.clone() for name, value in self._network.state_dict().items()}
            self._best = {"accuracy": accuracy, "network": state}

    def _end_task(self, task: SplitTask) -> dict[str, Any]:
        if self._best is not None:
            self._network.load_state_dict(self._best["network"])
            if self._regime.memory == "cleared":
                self._optimizer.state.clear()
        epochs = self._regime.epochs_of(self._index)
        row = {
            "task": self._index,
            "classes": task.classes,
            TEST_ACCURACY.measure: max(self._tested),
            "train_accuracy": int(self._right) / len(task.train),
            "online_accuracy": (self._right_before + int(self._right)) / (epochs * len(task.train)),
            **dict(sorted(self._symptoms.items())),
            "replacements": self._replacements(),
        }
        self._index, self._task = self._index + 1, None
        self._epoch = self._position = self._right = self._right_before = 0
        self._tested, self._best = [], None
        return row

    def _replacements(self) -> int:
        beside = 0 if self._companion is None else self._companion.replacements
        return int(self._plastic.metrics()["replacements"]) + beside

    def _accuracy(self, task: SplitTask, examples: Examples, augmented: bool = False) -> float:
        right: int | Tensor = 0
        self._network.eval()
        with torch.no_grad(), self._plastic.evaluation_weights():
            for some in _parts(len(examples), _EVALUATED):
                images = examples.inputs[some]
                if augmented:
                    images = self._augmented(images, _TEST_IMAGES, some.start)
                right = right + self._training.judge(self._outputs(task, images), examples.labels[some]).sum()
        self._network.train()
        return int(right) / len(examples)

    def _outputs(self, task: SplitTask, images: Tensor) -> Tensor:
        outputs: Tensor = self._network(images)[:, : task.classes]
        return outputs

    def _augmented(self, images: Tensor, purpose: int, start: int) -> Tensor:
        return self._ready(augment(images, self._random(purpose, self._index, self._epoch, start)))

    def _ready(self, images: Tensor) -> Tensor:
        return images.to(self._device).contiguous(memory_format=self._format)

    def _random(self, *key: int) -> Generator:
        """A generator of its own for each draw, so that nothing depends on what was drawn before."""
        return Generator(self._device).manual_seed(int(generator(self._seed, *key).integers(2**63)))

    def state_dict(self) -> dict[str, Any]:
        """See `Course`."""
        optimizer = self._optimizer.state_dict()
        return {
            "task": self._index,
            "classes": self._classes,
            "epoch": self._epoch,
            "position": self._position,
            "right": int(self._right),
            "right_before": self._right_before,
            "tested": list(self._tested),
            "best": self._best,
            "symptoms": self._symptoms,
            "network": {name: value.clone() for name, value in self._network.state_dict().items()},
            "optimizer": {name: optimizer[name] for name in ("state", "param_groups")},
            "attachment": self._plastic.state_dict(),
            "companion": None if self._companion is None else self._companion.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """See `Course`."""
        self._index, self._task, self._classes = state["task"], None, state["classes"]
        self._epoch, self._position, self._right = state["epoch"], state["position"], state["right"]
        self._right_before = state["right_before"]
        self._tested, self._best, self._symptoms = state["tested"], state["best"], state["symptoms"]
        self._network.load_state_dict(state["network"])
        self._optimizer.load_state_dict(state["optimizer"])
        for parameter, memory in self._optimizer.state.items():
            for name, value in memory.items():
                if isinstance(value, Tensor) and value.shape == parameter.shape:
                    # Laid out as the parameter is, which a checkpoint does not keep: steps would be slower, and round
                    # otherwise.
                    memory[name] = torch.empty_like(parameter, requires_grad=False).copy_(value)
        self._plastic.load_state_dict(state["attachment"])
        if self._companion is not None:
            self._companion.load_state_dict(state["companion"])


def _parts(count: int, size: int) -> Iterator[slice]:
    return (slice(start, min(start + size, count)) for start in range(0, count, size))
