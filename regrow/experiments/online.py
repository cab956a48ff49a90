"""Studies of online learners: each example is predicted, then learned, once."""

import time
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from regrow.experiments.course import Course, Pace, Piece
from regrow.experiments.fusible import fused_reason
from regrow.experiments.learner import build_learner
from regrow.experiments.spec import RunSpec
from regrow.experiments.study import Study, methods_of
from regrow.experiments.training import Training
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

    def why_plain(self, problem: Mapping[str, Any], methods: Sequence[Method]) -> str | None:
        """See `Study`."""
        network = self.network(problem, seed=0)
        return fused_reason(network, methods, problem.get("init"), Training.of(problem))


class OnlineCourse:
    """An online learner on its way through a stream. Implements `Course`.

    Before each task, once the methods that wait for it have been told of it, the network is measured on the examples to
    come; then it learns them in order, each predicted before it is learned.

    Args:
        study: the study.
        spec: the run.
    """

    def __init__(self, study: OnlineStudy, spec: RunSpec) -> None:
        problem = spec.problem
        self._problem = problem
        self._stream = study.stream(problem, spec.seed)
        self._training = Training.of(problem)
        network = study.network(problem, spec.seed)
        self._index = 0
        self._task: Task | None = self._stream.task(0)
        example = self._task.inputs[:2]
        self._graph = find_units(network, example)
        self._learner = build_learner(
            network,
            problem["learning_rate"],
            methods_of(spec),
            init=problem.get("init"),
            seed=spec.seed,
            engine=spec.engine,
            training=self._training,
            example=example,
        )
        self._position = 0
        self._judged: list[Tensor] = []
        self._symptoms: dict[str, float | None] = {}
        self._pace = Pace(1000)

    @property
    def progress(self) -> float:
        """See `Course`. All tasks are taken to be equally long."""
        part = self._position / len(self._task) if self._task is not None else 0.0
        return (self._index + part) / int(self._problem["tasks"])

    def advance(self) -> Piece:
        """See `Course`."""
        task = self._task = self._task or self._stream.task(self._index)
        if self._position == 0:
            self._begin(task)
        steps = max(1, self._pace.amount // self._training.batch)
        part = slice(self._position, self._position + steps * self._training.batch)
        began = time.perf_counter()
        self._judged.append(self._learner.learn(task.inputs[part], task.labels[part]))
        seconds = time.perf_counter() - began
        self._pace.passed(len(self._judged[-1]), seconds)
        self._position += len(self._judged[-1])
        return Piece(seconds, self._end() if self._position == len(task) else None)

    def _begin(self, task: Task) -> None:
        problem = self._problem
        if self._index:
            self._learner.task_changed(task.inputs, task.labels)
        images = problem["measured_images"]
        if images and self._index % problem.get("measure_every", 1) == 0:
            threshold = problem.get("dormant_threshold", 0.01)
            found = measure(self._learner.network(), task.inputs[:images], self._graph, dormant_threshold=threshold)
            self._symptoms = {**found.network}
        else:
            self._symptoms = dict.fromkeys(self._symptoms)

    def _end(self) -> dict[str, Any]:
        row = {
            "task": self._index,
            # Put together first: the parts of a sum over single pieces would be rounded by where they end.
            self._training.outcome.measure: torch.cat(self._judged).double().mean().item(),
            **dict(sorted(self._symptoms.items())),
            "replacements": sum(self._learner.replacements().values()),
        }
        self._index, self._task, self._position, self._judged = self._index + 1, None, 0, []
        return row

    def state_dict(self) -> dict[str, Any]:
        """See `Course`."""
        return {
            "task": self._index,
            "position": self._position,
            "judged": torch.cat(self._judged) if self._judged else None,
            "symptoms": self._symptoms,
            "learner": self._learner.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """See `Course`."""
        self._index, self._task, self._position = state["task"], None, state["position"]
        self._judged = [] if state["judged"] is None else [state["judged"]]
        self._symptoms = state["symptoms"]
        self._learner.load_state_dict(state["learner"])
