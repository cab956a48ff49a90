"""Copies of a model or an optimizer do nothing, and what is detached has never been there, for every method."""

import copy
import gc
import io
import pickle
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.optim.swa_utils import AveragedModel
from torch.utils.hooks import RemovableHandle

import regrow
from regrow.units.taps import inert, sweep
from tests.conformance.cases import OPTIMIZERS, Run, brisk, every_case, every_method, same, start
from tests.conformance.test_resume import flat


def pickled(pair: Any) -> Any:
    return pickle.loads(pickle.dumps(pair))


def saved_whole(pair: Any) -> Any:
    file = io.BytesIO()
    torch.save(pair, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


WAYS: tuple[Callable[[Any], Any], ...] = (copy.deepcopy, pickled, saved_whole)


def plain_after(run: Run, optimizer: str) -> Run:
    """A run without regrow that stands where this one does."""
    model = run.problem.network()
    model.load_state_dict(run.state)
    made = OPTIMIZERS[optimizer](model.parameters())
    made.load_state_dict(copy.deepcopy(run.optimizer.state_dict()))
    return Run(run.problem, model, made, None, run.task, run.steps)


@every_case()
def test_a_copy_is_inert_and_the_original_notices_nothing(method: str, problem: str, optimizer: str) -> None:
    steps = 7 if len(method) % 2 else 0
    run = start(problem, optimizer, brisk(method)).train(steps)
    events, state, kept = list(run.plastic.events), run.state, copy.deepcopy(run.optimizer.state_dict())
    plain, way = plain_after(run, optimizer), WAYS[(len(method) + len(problem)) % 3]
    twin, plain = (Run(run.problem, *way((one.model, one.optimizer)), None, run.task, steps) for one in (run, plain))
    assert same(twin.train(6).state, plain.train(6).state)
    sweep(twin.model)
    assert traces_of(twin) == traces_of(plain)
    assert run.plastic.events == events and same(run.state, state)
    assert same(flat(run.optimizer.state_dict()), flat(kept))


@every_method()
def test_copies_made_at_every_step_change_nothing(method: str) -> None:
    """An average of the weights, a target network, and a copy that is trained with an optimizer of its own."""
    run, expected = start("mlp", "adam", brisk(method)), start("mlp", "adam", brisk(method)).train(15)
    average = AveragedModel(run.model)
    for step in range(15):
        run.train(1)
        average.update_parameters(run.model)
        target = copy.deepcopy(run.model)
        other = torch.optim.SGD(target.parameters(), lr=0.1)
        run.problem.loss(target(run.problem.batch(step)[0]), run.problem.batch(step)[1]).backward()
        other.step()
        average(run.problem.batch(step)[0]).sum().backward()
    assert same(run.state, expected.state)
    assert run.plastic.events == expected.plastic.events


@every_method()
def test_a_method_can_be_attached_to_a_copy(method: str) -> None:
    run = start("mlp", "adam", brisk(method)).train(12)
    model, optimizer = copy.deepcopy((run.model, run.optimizer))
    plastic = regrow.attach(model, optimizer, brisk(method), example=run.problem.batch(0)[0])
    optimizer.load_state_dict(copy.deepcopy(run.optimizer.state_dict()))
    twin = Run(run.problem, model, optimizer, plastic, run.task, run.steps).train(10)
    assert same(twin.state, run.train(10).state)
    assert twin.plastic.events == [event for event in run.plastic.events if event.step > 12]


def attached(run: Run, method: str, example: bool) -> Run:
    """The run, with a method from here on."""
    seen = run.problem.batch(0)[0] if example else None
    run.plastic = regrow.attach(run.model, run.optimizer, brisk(method), example=seen)
    return run


@every_case()
def test_what_is_detached_has_never_been_there(method: str, problem: str, optimizer: str) -> None:
    for steps, example in ((0, False), (6, len(method) % 2 == 0)):
        untouched = start(problem, optimizer, None).train(steps)
        run = attached(start(problem, optimizer, None), method, example).train(steps)
        run.plastic.detach()
        run.plastic.detach()
        expected, found = traces_of(untouched), traces_of(run)
        assert {name: value for name, value in found.items() if value != expected.get(name)} == {}
        assert found.keys() == expected.keys()
        plain, run.plastic = plain_after(run, optimizer), None
    assert same(run.train(3).state, plain.train(3).state)


@every_method()
def test_an_attachment_is_kept_alive_by_nobody(method: str) -> None:
    """Not by the model and the optimizer once it is detached, nor by anything else once those are gone."""
    run, other = (start("mlp", "adam", brisk(method)).train(6) for _ in range(2))
    run.plastic.detach()
    gone = weakref.ref(run.plastic), weakref.ref(other.plastic)
    run.plastic = None
    del other
    gc.collect()
    assert [reference() for reference in gone] == [None, None]


@every_method()
def test_another_method_may_follow_the_one_that_was_detached(method: str) -> None:
    run = start("mlp", "adam", brisk(method))
    run.plastic.detach()
    with attached(run, method, example=False).plastic:
        run.train(5)
    run = attached(run, "backprop", example=True).train(5)
    assert run.plastic.metrics()["steps"] == 5 and list(run.optimizer.state_dict()["regrow"]) == ["0:backprop"]


def traces_of(run: Run) -> dict[str, Any]:
    """All that a method could leave behind: attributes, hooks, buffers, keys."""
    found: dict[str, Any] = {}
    for path, module in run.model.named_modules():
        for name, value in vars(module).items():
            found[f"{path}.{name}"] = acting(value) if "_hooks" in name else list(value or ()) if name[:1] == "_" else 0
    for name, parameter in run.model.named_parameters():
        hooks = (parameter._backward_hooks, getattr(parameter, "_post_accumulate_grad_hooks", None))
        found[name] = (type(parameter), list(vars(parameter)), *map(acting, hooks))
        found[f"state of {name}"] = set(run.optimizer.state.get(parameter, {}))
    for name, value in vars(run.optimizer).items():
        found[f"optimizer.{name}"] = acting(value) if "_hooks" in name else type(value)
    found["state"] = len(run.optimizer.state)
    found["state dict"] = set(run.optimizer.state_dict())
    found["groups"] = [set(group) for group in run.optimizer.param_groups]
    return found


def acting(hooks: Any) -> list[Any]:
    """Hooks that do anything."""
    return [hook for hook in (hooks or {}).values() if hook is not inert]


def test_a_hook_of_another_process_cannot_take_the_place_of_an_inert_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Torch numbers hooks from 0 in each process, and remembers by the number how to call them."""
    run = start("mlp", "sgd", brisk("cbp"))
    keys = [key for module in run.model.modules() for key in module._forward_pre_hooks]
    assert len(keys) == 2 and min(keys) > 2**32
    model, seen = pickled(run.model), []
    monkeypatch.setattr(RemovableHandle, "next_id", 0)
    for layer in model:
        layer.register_forward_pre_hook(lambda module, args: seen.append(len(args)))
    model(run.problem.batch(0)[0])
    assert seen == [1] * 5


def test_a_line_of_copies_of_copies_does_not_gather_hooks() -> None:
    run = start("mlp", "sgd", brisk("cbp"))
    for _ in range(3):
        run = attached(Run(run.problem, *copy.deepcopy((run.model, run.optimizer)), None), "cbp", example=True)
        assert [len(module._forward_pre_hooks) for module in run.model] == [0, 0, 1, 0, 1]
