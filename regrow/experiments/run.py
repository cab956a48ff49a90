"""One run, from its spec to its curve."""

import time
from collections.abc import Callable

import torch

from regrow.experiments.learner import build_learner
from regrow.experiments.store import Row, RunFolder
from regrow.experiments.study import methods_of, study_named
from regrow.experiments.training import Training
from regrow.measures import measure
from regrow.units.trace import find_units


def run(folder: RunFolder, report_progress: Callable[[Row], None] = lambda row: None) -> None:
    """Go through the tasks of a run, from its last checkpoint on, and write its curve.

    Before each task, once the methods that wait for it have been told of it, the network is measured on the examples to
    come; then it learns them in order, each predicted before it is learned. The run may be killed at any moment and
    taken up again, with the same bytes in the end.

    Args:
        folder: made by `RunFolder.create` and locked.
        report_progress: receives the row of each task that was done.

    Raises:
        StoreError: the folder is damaged or cannot be written.
    """
    if folder.is_done():
        return
    # One thread a process: several would wait for each other, and the order of their sums would change the bits.
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    spec = folder.spec()
    study, problem = study_named(spec.study), spec.problem
    stream = study.stream(problem, spec.seed)
    network = study.network(problem, spec.seed)
    training = Training.of(problem)
    example = stream.task(0).inputs[:2]
    graph = find_units(network, example)
    learner = build_learner(
        network,
        problem["learning_rate"],
        methods_of(spec),
        init=problem.get("init"),
        seed=spec.seed,
        engine=spec.engine,
        training=training,
        example=example,
    )
    first, state = folder.resume()
    if state is not None:
        learner.load_state_dict(state)
    saved, cost = time.monotonic(), 0.0
    for index in range(first, spec.tasks):
        task = stream.task(index)
        if index:
            learner.task_changed(task.inputs, task.labels)
        symptoms = measure(learner.network(), task.inputs[: problem["measured_images"]], graph).network
        began = time.perf_counter()
        judged = learner.learn(task.inputs, task.labels)
        seconds = time.perf_counter() - began
        row = {
            "task": index,
            training.outcome.measure: judged.double().mean().item(),
            **dict(sorted(symptoms.items())),
            "replacements": sum(learner.replacements().values()),
        }
        folder.append(row, {"task": index, "seconds": seconds})
        report_progress(row)
        now = time.monotonic()
        if _checkpoint_due(index + 1, now - saved, cost):
            folder.save(index + 1, learner.state_dict())
            saved = time.monotonic()
            cost = saved - now
    folder.save(spec.tasks, learner.state_dict())
    folder.finish()


def _checkpoint_due(task: int, passed: float, cost: float) -> bool:
    """Whether to save before a task, `passed` seconds after the last time, when that took `cost` seconds."""
    return passed >= max(2.0, 100 * cost)  # at most 1 % of the time goes there
