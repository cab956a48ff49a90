"""On a step at which nothing is due the host does not wait for the device; at others it does so a few times.

There need be no accelerator: `remote` stands in for one. `test_cuda` asks torch itself on one.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

import regrow
from regrow.methods import Method, QuotaMethod, UnitMethod
from regrow.units import optimizer_state
from tests.conformance.cases import OPTIMIZERS, PROBLEMS, Run, brisk, every_method, same, start
from tests.conformance.remote import RemoteTensor, Watch, move

STEPS = 15
PER_GROUP = 8  # so often, at most, does it wait at a step at which something is due

WHERE = [("mlp", "adam"), ("resnet", "sgd"), ("transformer", "sgd")]


@pytest.fixture(autouse=True)
def _numbers_are_plain(monkeypatch: pytest.MonkeyPatch) -> None:
    # The tensors of the device that stands in are of a subclass, as quantised ones are.
    monkeypatch.setattr(optimizer_state, "has_own_form", lambda tensor: False)


def _on_device(problem: str, optimizer: str, method: Method | None) -> Run:
    """A run whose model was moved after attach()."""
    run = start(problem, optimizer, method)
    move(run.model)
    return run


def _steps(run: Run, count: int) -> Iterator[Watch]:
    """Make some steps. What is noted is what happens between the forward and the end of the step, both included."""
    for _ in range(count):
        inputs, targets = run.problem.batch(run.steps)
        if isinstance(next(run.model.parameters()), RemoteTensor):
            inputs, targets = RemoteTensor(inputs), RemoteTensor(targets)
        run.optimizer.zero_grad()
        with Watch() as watch:
            run.problem.loss(run.model(inputs), targets).backward()
            run.optimizer.step()
        run.steps += 1
        yield watch


def _is_due(run: Run, method: Method, replaced_before: int) -> bool:
    if isinstance(method, QuotaMethod):
        return len(run.plastic.events) > replaced_before
    period = getattr(method, "period", 0)
    return period > 1 and run.steps % period == 0


@pytest.mark.parametrize(("problem", "optimizer"), WHERE)
@every_method()
def test_the_host_waits_only_when_something_is_due(method: str, problem: str, optimizer: str) -> None:
    kind = brisk(method)
    run, twin = _on_device(problem, optimizer, kind), start(problem, optimizer, kind)
    parameters = len(list(run.model.parameters()))
    bound = PER_GROUP * len(run.plastic.groups) if isinstance(kind, UnitMethod) else 0
    if getattr(kind, "feature_examples", 0):  # L2-ER looks at what it adds to each parameter
        bound = parameters
    replaced = 0
    moved: set[bool] = set()
    for watch in _steps(run, STEPS):
        is_due = _is_due(run, kind, replaced)
        replaced = len(run.plastic.events)
        # State goes where the model is at the first step, and places of units when they are first needed.
        if run.steps > 1 and (not is_due or is_due in moved):
            assert len(watch.waits) <= (bound if is_due else 0), (run.steps, watch.waits)
        moved.add(is_due)
        assert not watch.draws
    # Both compute the same numbers, if attention is computed in the same way.
    with sdpa_kernel(SDPBackend.MATH):
        for _ in _steps(twin, STEPS):
            pass
    assert run.plastic.events == twin.plastic.events
    state = run.model.state_dict().items()
    assert same({name: value.held for name, value in state}, twin.state)


@every_method(lambda method: isinstance(method, UnitMethod))
def test_several_forwards_and_taps_that_none_reaches(method: str) -> None:
    class Branching(torch.nn.Module):
        """Two heads, of which one is used at every other step only."""

        def __init__(self) -> None:
            super().__init__()
            self.body = torch.nn.Linear(8, 16)
            self.heads = torch.nn.ModuleList([torch.nn.Linear(16, 4), torch.nn.Linear(16, 4)])

        def forward(self, x: torch.Tensor, both: bool = False) -> torch.Tensor:
            h = torch.relu(self.body(x))
            return self.heads[0](h) + (self.heads[1](h) if both else 0.0)

    kind = brisk(method)
    model = Branching()
    optimizer = OPTIMIZERS["sgd"](model.parameters())
    inputs, targets = (RemoteTensor(value) for value in PROBLEMS["mlp"].batch(0))
    plastic = regrow.attach(model, optimizer, kind, example=(inputs.held, True))
    move(model)
    replaced = 0
    for step in range(1, STEPS):
        optimizer.zero_grad()
        with Watch() as watch:
            for _ in range(2):
                PROBLEMS["mlp"].loss(model(inputs, step % 3 == 2), targets).backward()
            optimizer.step()
        period = getattr(kind, "period", 0)
        is_due = step % period == 0 if period else len(plastic.events) > replaced
        replaced = len(plastic.events)
        assert step < 3 or is_due or not watch.waits, (step, watch.waits)


@every_method(lambda method: isinstance(method, QuotaMethod))
def test_a_drawn_budget_is_drawn_on_the_host(method: str) -> None:
    kind = replace(brisk(method), budget="bernoulli")
    run = _on_device("mlp", "sgd", kind)
    replaced = 0
    for watch in _steps(run, 30):
        is_due, replaced = len(run.plastic.events) > replaced, len(run.plastic.events)
        assert run.steps == 1 or is_due or not watch.waits
        assert not watch.draws
    assert replaced


@pytest.mark.parametrize(
    "wait",
    [
        lambda there, here: there.sum().item(),
        lambda there, here: bool((there > 0).any()),
        lambda there, here: there.tolist(),
        lambda there, here: there.cpu(),
        lambda there, here: (there > 0).nonzero(),
        lambda there, here: there[there > 0],
        lambda there, here: there[torch.tensor([0, 1])],
        lambda there, here: there.masked_select(there > 0),
        lambda there, here: torch.equal(there, there),
        lambda there, here: there.copy_(here),
        lambda there, here: here.copy_(there),
        lambda there, here: here.to(there),
        lambda there, here: here.copy_(there, non_blocking=True),
        lambda there, here: torch.where(there > 0, there, torch.tensor(1.0)),
    ],
)
def test_what_waits_is_noticed(wait: Callable[[torch.Tensor, torch.Tensor], object]) -> None:
    there, here = RemoteTensor(torch.arange(4.0)), torch.ones(4)
    with Watch() as watch:
        wait(there, here)
    assert watch.waits


def test_what_does_not_wait_is_not() -> None:
    there, here = RemoteTensor(torch.arange(4.0)), torch.ones(4)
    with Watch() as watch:
        there.add_(there.abs()[there.long() % 2]).mul_(torch.zeros_like(there) + 1)
        there.lerp_(torch.where(there > 0, there, 0.0), 0.5)
        there.add_(here.to(there, non_blocking=True))
        here.sum().item()
    assert not watch.waits and not watch.draws
    with Watch() as watch:
        torch.rand_like(there)
    assert watch.draws
    with pytest.raises(RuntimeError, match="Expected all tensors to be on the same device"):
        there + here
