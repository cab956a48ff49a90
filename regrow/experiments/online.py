"""Studies of online learners: each example is predicted, then learned, once."""

import time
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from regrow.engines.batched_learner import BatchedLearner, batched_reason
from regrow.engines.fusible import fused_reason
from regrow.engines.learner import Alone, build_learner
from regrow.engines.training import Training
from regrow.experiments.course import Course, Pace, Piece
from regrow.experiments.spec import Engine, RunSpec
from regrow.experiments.study import Study, methods_of
from regrow.measures import measure
from regrow.methods import Method
from regrow.streams.task import Task
from regrow.units.trace import find_units


class Stream(Protocol):
    """Data whose law changes from task to task."""

    def task(self, index: int) -> Task:
        """Return task `index`, the same whenever it is asked for."""


class OnlineStudy(Study):
    """A study of online learners.

    Of a problem, "learning_rate" is always there; "init" is the law of new incoming weights; those of `Training`; and
    "measured_images": before a task, the network is measured on so many of its first examples (0: never). It is
    measured before every task, or with "measure_every" before one in so many; "dormant_threshold" is that of `measure`.
    """

    @abstractmethod
    def stream(self, problem: Mapping[str, Any], seed: int) -> Stream:
        """Make the data of a run."""

    @abstractmethod
    def network(self, problem: Mapping[str, Any], seed: int) -> nn.Module:
        """Make the network of a run as it is before the first task."""

    def course(self, spec: RunSpec) -> Course:
        """See `Study`."""
        return OnlineCourse(self, spec)

    def obstacle(self, engine: Engine, problem: Mapping[str, Any], methods: Sequence[Method]) -> str | None:
        """See `Study`."""
        if engine == "plain":
            return None
        network = self.network(problem, seed=0)
        rest = (methods, problem.get("init"), Training.of(problem))
        return fused_reason(network, *rest) if engine == "fused" else batched_reason([network], *rest)


class OnlineCourse:
    """An online learner on its way through a stream, or many, each through its own. Implements `Course`.

    Before each task, once the methods that wait for it have been told of it, the network is measured on the examples to
    come; then it learns them in order, each predicted before it is learned.

    Args:
        study: the study.
        spec: the run.
    """

    def __init__(self, study: OnlineStudy, spec: RunSpec) -> None:
        problem = spec.problem
        self._problem = problem
        self._streams = [study.stream(problem, seed) for seed in spec.seeds]
        self._training = Training.of(problem)
        networks = [study.network(problem, seed) for seed in spec.seeds]
        self._index = 0
        self._tasks = [stream.task(0) for stream in self._streams]
        example = self._tasks[0].inputs[:2]
        self._graph = find_units(networks[0], example)
        self._learner = _learner(spec, networks, self._training, example)
        self._position = 0
        self._judged: list[Tensor] = []
        self._symptoms: list[dict[str, float | None]] = [{} for _ in networks]
        self._pace = Pace(1000)

    @property
    def progress(self) -> float:
        """See `Course`. All tasks are taken to be equally long."""
        part = self._position / len(self._tasks[0]) if self._tasks else 0.0
        return (self._index + part) / int(self._problem["tasks"])

    def advance(self) -> Piece:
        """See `Course`."""
        tasks = self._tasks = self._tasks or [stream.task(self._index) for stream in self._streams]
        if self._position == 0:
            self._begin(tasks)
        steps = max(1, self._pace.amount // self._training.batch)
        part = slice(self._position, self._position + steps * self._training.batch)
        began = time.perf_counter()
        inputs, labels = [task.inputs[part] for task in tasks], [task.labels[part] for task in tasks]
        self._judged.append(self._learner.learn(_side_by_side(inputs), _side_by_side(labels)))
        seconds = time.perf_counter() - began
        learned = self._judged[-1].shape[1]
        self._pace.passed(learned, seconds)
        self._position += learned
        return Piece(seconds, self._end() if self._position == len(tasks[0]) else None)

    def _begin(self, tasks: Sequence[Task]) -> None:
        problem = self._problem
        if self._index:
            inputs, labels = [task.inputs for task in tasks], [task.labels for task in tasks]
            self._learner.task_changed(_side_by_side(inputs), _side_by_side(labels))
        images = problem["measured_images"]
        if images and self._index % problem.get("measure_every", 1) == 0:
            threshold = problem.get("dormant_threshold", 0.01)
            self._symptoms = []
            for network, task in zip(self._learner.networks(), tasks, strict=True):
                shown = task.inputs[:images].to(next(network.parameters()).device)
                found = measure(network, shown, self._graph, dormant_threshold=threshold)
                self._symptoms.append({**found.network})
        else:
            self._symptoms = [dict.fromkeys(each) for each in self._symptoms]

    def _end(self) -> dict[str, Any]:
        # Put together first: the parts of a sum over single pieces would be rounded by where they end.
        judged = torch.cat(self._judged, dim=1).double()
        results = [
            {
                self._training.outcome.measure: mine.mean().item(),
                **dict(sorted(symptoms.items())),
                "replacements": sum(replacements.values()),
            }
            for mine, symptoms, replacements in zip(judged, self._symptoms, self._learner.replacements(), strict=True)
        ]
        row = {name: [each[name] for each in results] for name in results[0]} if len(results) > 1 else results[0]
        row = {"task": self._index, **row}
        self._index, self._tasks, self._position, self._judged = self._index + 1, [], 0, []
        return row

    def state_dict(self) -> dict[str, Any]:
        """See `Course`."""
        return {
            "task": self._index,
            "position": self._position,
            "judged": torch.cat(self._judged, dim=1) if self._judged else None,
            "symptoms": self._symptoms,
            "learner": self._learner.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """See `Course`."""
        self._index, self._tasks, self._position = state["task"], [], state["position"]
        self._judged = [] if state["judged"] is None else [state["judged"]]
        self._symptoms = state["symptoms"]
        self._learner.load_state_dict(state["learner"])


def _learner(
    spec: RunSpec, networks: Sequence[nn.Module], training: Training, example: Tensor
) -> Alone | BatchedLearner:
    problem = spec.problem
    step, methods, init = problem["learning_rate"], methods_of(spec), problem.get("init")
    if spec.engine == "batched":
        learner = BatchedLearner(networks, step, methods, init, spec.seeds, training, problem["device"])
        for network in networks:
            network.to(problem["device"])  # so that they are measured there
        return learner
    return Alone(build_learner(networks[0], step, methods, init, spec.seed, spec.engine, training, example))


def _side_by_side(values: Sequence[Tensor]) -> Tensor:
    """Of each seed, one after another; of a single one, without a copy."""
    return torch.stack(tuple(values)) if len(values) > 1 else values[0][None]
