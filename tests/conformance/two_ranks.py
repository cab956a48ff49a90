"""One of two processes that train together: `python -m tests.conformance.two_ranks <rank> <folder>`.

It makes all runs, one after the other, since a process takes seconds to start, and saves what came of them.
"""

import copy
import sys
from contextlib import nullcontext
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

import regrow
from regrow.methods import Method, UnitMethod
from tests.conformance.cases import METHODS, OPTIMIZERS, PROBLEMS, Problem, Run, brisk, start
from tests.golden.trace import PROBLEM as IN_DOUBLE

STEPS, TASK = 500, 50
SHORT = 20
HALVES = 40


def optimizer_for(method: str, problem: str = "mlp") -> str:
    """Optimizers take turns."""
    return [*OPTIMIZERS][(METHODS.index(method) + [*PROBLEMS].index(problem)) % len(OPTIMIZERS)]


class _Counted:
    """Counts calls of `all_reduce`, which DistributedDataParallel itself does not go through."""

    def __init__(self) -> None:
        self.calls = 0
        self._all_reduce = dist.all_reduce

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.calls += 1
        return self._all_reduce(*args, **kwargs)


def learn(
    wrapper: nn.Module, optimizer: torch.optim.Optimizer, problem: Problem, number: int, rank: int, parts: int = 1
) -> None:
    """One step, on data of this rank's own, in so many parts of which the last alone synchronises."""
    optimizer.zero_grad()
    for part in range(parts):
        quiet = wrapper.no_sync() if part < parts - 1 else nullcontext()
        with quiet:
            inputs, targets = problem.batch((number * parts + part) * 2 + rank)
            (problem.loss(wrapper(inputs), targets) / parts).backward()
    optimizer.step()


def tell(plastic: regrow.Attachment, wrapper: nn.Module, problem: Problem, number: int, rank: int) -> None:
    """A task change, with losses of this rank's own."""
    new = [problem.batch(1_000_000 + number * 4 + rank + 2 * each) for each in range(2)]
    plastic.task_changed(problem.loss(wrapper(inputs), targets) for inputs, targets in new)


def long_run(method: str, rank: int) -> dict[str, Any]:
    """Many steps of accumulation with task changes; how often ranks talked, and when something was due."""
    problem = PROBLEMS["mlp"]
    wrapper = DistributedDataParallel(problem.network())
    optimizer = OPTIMIZERS[optimizer_for(method)](wrapper.parameters())
    plastic = regrow.attach(wrapper, optimizer, brisk(method), example=problem.batch(0)[0])
    talked: dict[int, int] = {}
    dist.all_reduce = counted = _Counted()
    try:
        for number in range(1, STEPS + 1):
            if number % TASK == 0:
                tell(plastic, wrapper, problem, number, rank)
            before = counted.calls
            learn(wrapper, optimizer, problem, number, rank, parts=2)
            if counted.calls > before:
                talked[number] = counted.calls - before
    finally:
        dist.all_reduce = counted._all_reduce
    return {**outcome(wrapper.module, optimizer, plastic), "talked": talked}


def short_run(method: str, problem: str, rank: int) -> dict[str, Any]:
    """Few steps of another network, which is wrapped only after `attach`."""
    kind = PROBLEMS[problem]
    model = kind.network()
    optimizer = OPTIMIZERS[optimizer_for(method, problem)](model.parameters())
    plastic = regrow.attach(model, optimizer, brisk(method), example=kind.batch(0)[0])
    wrapper = DistributedDataParallel(model)
    for number in range(1, SHORT + 1):
        learn(wrapper, optimizer, kind, number, rank)
        if number == SHORT // 2:
            tell(plastic, wrapper, kind, number, rank)
    return outcome(model, optimizer, plastic)


def has_memory_of_its_own(method: Method) -> bool:
    """Whether what each rank remembers is its own, between the steps at which something is due."""
    return method.reads_activations if isinstance(method, UnitMethod) else bool(method.feature_examples)


def resumed_run(method: str, rank: int) -> dict[str, Any]:
    """A run that goes on from what one rank saved, on both."""
    problem = PROBLEMS["mlp"]
    saved: list[Any] = [None]
    for first in (1, SHORT + 1):
        wrapper = DistributedDataParallel(problem.network())
        optimizer = OPTIMIZERS["adam"](wrapper.parameters())
        plastic = regrow.attach(wrapper, optimizer, brisk(method), example=problem.batch(0)[0])
        if saved[0] is not None:
            wrapper.load_state_dict(saved[0]["model"])
            optimizer.load_state_dict(saved[0]["optimizer"])
        for number in range(first, first + SHORT):
            learn(wrapper, optimizer, problem, number, rank)
        saved = [{"model": wrapper.state_dict(), "optimizer": optimizer.state_dict()}]
        dist.broadcast_object_list(saved, src=0)
    return outcome(wrapper.module, optimizer, plastic)


def half_run(method: str, rank: int) -> dict[str, Any]:
    """A run in double precision on half of each batch."""
    model = IN_DOUBLE.network()
    optimizer = OPTIMIZERS["sgd"](model.parameters())
    wrapper = DistributedDataParallel(model)
    plastic = regrow.attach(wrapper, optimizer, brisk(method), example=IN_DOUBLE.batch(0)[0])
    for number in range(HALVES):
        inputs, targets = (whole.chunk(2)[rank] for whole in IN_DOUBLE.batch(number, 8))
        optimizer.zero_grad()
        IN_DOUBLE.loss(wrapper(inputs), targets).backward()
        optimizer.step()
    return outcome(model, optimizer, plastic)


def averaged_by_hand(rank: int) -> dict[str, Any]:
    """A run in which gradients are averaged by the loop itself."""
    problem = PROBLEMS["mlp"]
    model = problem.network()
    optimizer = OPTIMIZERS["adam"](model.parameters())
    example = problem.batch(0)[0]
    plastic = regrow.attach(model, optimizer, brisk("cbp"), example=example, process_group=dist.group.WORLD)
    for number in range(1, SHORT + 1):
        inputs, targets = problem.batch(number * 2 + rank)
        optimizer.zero_grad()
        problem.loss(model(inputs), targets).backward()
        for parameter in model.parameters():
            dist.all_reduce(parameter.grad)
            parameter.grad /= 2
        optimizer.step()
    return outcome(model, optimizer, plastic)


def sharded(method: str, rank: int) -> dict[str, dict[str, Tensor]]:
    """Parameters after a run with Adam, and after one with an Adam that has its state in shards over ranks."""
    from torch.distributed.optim import ZeroRedundancyOptimizer  # torch warns of itself at this import

    problem = PROBLEMS["mlp"]
    found = {}
    for how in ("whole", "shards"):
        wrapper = DistributedDataParallel(problem.network())
        optimizer = (
            torch.optim.Adam(wrapper.parameters(), lr=0.01)
            if how == "whole"
            else ZeroRedundancyOptimizer(wrapper.parameters(), torch.optim.Adam, lr=0.01)
        )
        plastic = regrow.attach(wrapper, optimizer, brisk(method), example=problem.batch(0)[0])
        for number in range(1, SHORT + 1):
            learn(wrapper, optimizer, problem, number, rank)
            if number == SHORT // 2:
                tell(plastic, wrapper, problem, number, rank)
        found[how] = {name: value.detach() for name, value in wrapper.named_parameters()}
    return found


def wrapped_later(run: Run, rank: int) -> dict[str, Any]:
    """A run that was attached to before there were ranks."""
    wrapper = DistributedDataParallel(run.model)
    for number in range(1, SHORT + 1):
        learn(wrapper, run.optimizer, run.problem, number, rank)
    return outcome(run.model, run.optimizer, run.plastic)


def outcome(model: nn.Module, optimizer: torch.optim.Optimizer, plastic: regrow.Attachment) -> dict[str, Any]:
    """What is to be alike on both ranks. Buffers are left to DistributedDataParallel, and what a method that reads
    activations has seen since it last chose is each rank's own.
    """
    remembered = {key: value for key, value in plastic.state_dict().items() if not key.endswith("inputs")}
    if any(has_memory_of_its_own(method) and isinstance(method, UnitMethod) for method in plastic.methods):
        known = ("identity", "progress", "generator", "schedule", "born")
        remembered = {key: value for key, value in remembered.items() if key.endswith(known)}
    state = {
        f"optimizer {name}.{key}": value
        for name, parameter in model.named_parameters()
        for key, value in optimizer.state.get(parameter, {}).items()
        if isinstance(value, Tensor)
    }
    return {
        "parameters": {name: value.detach() for name, value in model.named_parameters()},
        "state": state | remembered,
        "events": [(event.step, event.group, event.unit, event.share) for event in plastic.events],
    }


def complaints(rank: int) -> dict[str, str]:
    """What is said when ranks are not alike."""
    problem = PROBLEMS["mlp"]
    said = {}
    wrapper = DistributedDataParallel(problem.network())
    for what, method, seed in (("seeds", "cbp", rank), ("methods", ["cbp", "redo"][rank], 0)):
        optimizer = OPTIMIZERS["sgd"](wrapper.parameters())
        with regrow.attach(wrapper, optimizer, method, seed=seed, example=problem.batch(0)[0]):
            try:
                learn(wrapper, optimizer, problem, 0, rank)
            except regrow.RegrowError as error:
                said[what] = str(error)
    optimizer = OPTIMIZERS["sgd"](wrapper.parameters())
    plastic = regrow.attach(wrapper, optimizer, brisk("cbp"), example=problem.batch(0)[0])
    early = copy.deepcopy(optimizer.state_dict())
    for number in range(20):
        learn(wrapper, optimizer, problem, number, rank)
    optimizer.load_state_dict(early if rank else optimizer.state_dict())
    try:
        learn(wrapper, optimizer, problem, 20, rank)
    except regrow.RegrowError as error:
        said["checkpoints"] = str(error)
    assert plastic.events
    return said


def main(rank: int, folder: Path) -> None:
    """Make all runs."""
    torch.set_num_threads(1)
    early = start("mlp", "adam", brisk("cbp"))
    store = dist.FileStore(str(folder / "store"), 2)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=2, timeout=timedelta(seconds=60))
    found: dict[str, Any] = {"complaints": complaints(rank), "by hand": averaged_by_hand(rank)}
    found["early"] = wrapped_later(early, rank)
    for method in ("cbp", "full-reset"):
        found["sharded", method] = sharded(method, rank)
    for method in METHODS:
        found["long", method] = long_run(method, rank)
        found["half", method] = half_run(method, rank)
        if has_memory_of_its_own(brisk(method)):
            found["resumed", method] = resumed_run(method, rank)
        for problem in PROBLEMS:
            if problem != "mlp":
                found[problem, method] = short_run(method, problem, rank)
    torch.save(found, folder / f"{rank}.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
