"""What training loops do beside a plain step: accumulate, clip, scale, schedule, freeze, call closures, fail."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_
from torch.optim import SGD, Optimizer

import regrow
from regrow.errors import ConfigError
from regrow.methods import PeriodicMethod, QuotaMethod, WeightMethod
from regrow.methods.weight_method import Moment
from tests.conformance.cases import (
    METHODS,
    OPTIMIZERS,
    PROBLEMS,
    Run,
    brisk,
    every_case,
    every_method,
    replaces,
    same,
    start,
)  # fmt: skip
from tests.conformance.loops import (
    Make,
    backward,
    begin,
    edits_gradients,
    momentum,
    reads_gradients,
    settled,
    train,
)  # fmt: skip


@every_case()
def test_parts_of_a_batch_are_the_batch(method: str, problem: str, optimizer: str) -> None:
    """In double precision, so that rounding decides nothing, and with norms that do not depend on the batch."""
    kind = PROBLEMS[problem]
    wide = replace(kind, build=lambda: settled(kind.build().double()), draw=lambda *size: _wide(kind.draw(*size)))
    whole, parts = (begin(wide, OPTIMIZERS[optimizer], brisk(method)) for _ in range(2))
    train(whole, 15, lambda run: _accumulate(run, (16,)))
    train(parts, 15, lambda run: _accumulate(run, (6, 5, 4, 1)))
    assert parts.plastic.events == whole.plastic.events
    found = parts.plastic.state_dict()
    for name, value in whole.plastic.state_dict().items():
        if not name.endswith("inputs"):  # kept in parts
            torch.testing.assert_close(found[name], value, atol=1e-4, rtol=1e-4, msg=name)
    inputs = wide.batch(99)[0]
    torch.testing.assert_close(parts.model(inputs), whole.model(inputs), atol=1e-4, rtol=1e-4)


def _accumulate(run: Run, sizes: Sequence[int]) -> None:
    backward(run, sizes)
    run.optimizer.step()


def _wide(batch: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    inputs, targets = (part.double() if part.is_floating_point() else part for part in batch)
    return inputs, targets


class Watch:
    """At which steps a method edits gradients, and weights. `before` attach, and `after` it."""

    def __init__(self) -> None:
        self.gradients: list[int] = []
        self.weights: list[int] = []

    def before(self, run: Run) -> None:
        self._run = run
        run.optimizer.register_step_pre_hook(self._note)
        run.optimizer.register_step_post_hook(self._note)

    def after(self) -> None:
        self._run.optimizer.register_step_pre_hook(self._compare)
        self._run.optimizer.register_step_post_hook(self._compare)

    def _tensors(self) -> Iterator[tuple[Tensor, Tensor | None]]:
        return ((one.detach().clone(), None if one.grad is None else one.grad.clone()) for one in self._parameters())

    def _parameters(self) -> list[Tensor]:
        return list(self._run.model.parameters())

    def _note(self, *args: Any) -> None:
        self._seen = list(self._tensors())

    def _compare(self, *args: Any) -> None:
        now = list(self._tensors())
        if any(not torch.equal(old, new) for (old, _), (new, _) in zip(self._seen, now, strict=True)):
            self.weights.append(self._run.steps)
        gradients = [(old, new) for (_, old), (_, new) in zip(self._seen, now, strict=True) if old is not None]
        if any(not torch.equal(old, new) for old, new in gradients):
            self.gradients.append(self._run.steps)


def watched(method: str, sizes: Sequence[int]) -> Watch:
    watch = Watch()
    run = begin(PROBLEMS["mlp"], momentum, brisk(method), watch.before)
    watch.after()
    for size in sizes:
        train(run, 1, lambda run, size=size: _accumulate(run, (size,)))
    assert run.plastic.metrics()["steps"] == len(sizes)
    return watch


@every_method()
def test_a_smaller_last_batch_counts_as_a_step(method: str) -> None:
    ragged, even = watched(method, (4, 4, 2, 4, 4, 1) * 3), watched(method, (4,) * 18)
    if isinstance(kind := brisk(method), PeriodicMethod):  # which units, and if any, is up to the data
        assert not [step for step in ragged.weights if (step + 1) % kind.period]
    else:
        assert (ragged.weights, ragged.gradients) == (even.weights, even.gradients)


@every_method()
def test_methods_say_whether_they_edit_gradients(method: str) -> None:
    assert bool(watched(method, (4,) * 15).gradients) == edits_gradients(brisk(method))


def closing(run: Run) -> None:
    run.optimizer.step(torch.enable_grad()(lambda: backward(run)))


def closing_by_name(run: Run) -> None:
    run.optimizer.step(closure=torch.enable_grad()(lambda: backward(run)))


@every_case()
def test_a_step_with_a_closure_is_a_step(method: str, problem: str, optimizer: str) -> None:
    bare = start(problem, optimizer, brisk(method)).train(12)
    for step in (closing, closing_by_name):
        run = train(start(problem, optimizer, brisk(method)), 12, step)
        assert same(run.state, bare.state)
        assert run.plastic.events == bare.plastic.events


@every_method()
@pytest.mark.parametrize("problem", PROBLEMS)
def test_closures_that_are_called_again_are_one_step_or_refused(method: str, problem: str) -> None:
    search = None if (METHODS.index(method) + [*PROBLEMS].index(problem)) % 2 else "strong_wolfe"

    def make(parameters: Any) -> Optimizer:
        return torch.optim.LBFGS(parameters, lr=0.1, max_iter=3, line_search_fn=search)

    run = begin(PROBLEMS[problem], make, brisk(method))
    if edits_gradients(brisk(method)):
        text = f"{type(brisk(method)).__name__} edits the gradients of a step, but LBFGS computes them several times"
        with pytest.raises(ConfigError, match=text):
            train(run, 1, closing)
        return
    train(run, 12, closing)
    assert run.plastic.metrics()["steps"] == 12
    assert all(bool(value.isfinite().all()) for value in run.state.values())
    if isinstance(brisk(method), QuotaMethod):  # how many are due, and when, no data decide
        usual = start(problem, "sgd", brisk(method)).train(12)
        assert [(event.step, event.group) for event in run.plastic.events] == [
            (event.step, event.group) for event in usual.plastic.events
        ]
    elif problem == "mlp":
        assert bool(run.plastic.events) == replaces(brisk(method))


@every_method(lambda method: not edits_gradients(method))
def test_what_lbfgs_found_on_its_way_is_forgotten_with_a_unit_or_a_task(method: str) -> None:
    run = begin(PROBLEMS["mlp"], lambda parameters: torch.optim.LBFGS(parameters, lr=0.1), brisk(method))
    [first, *_] = run.model.parameters()
    for _ in range(9):
        train(run, 1, closing)
        new = [event for event in run.plastic.events if event.step == run.steps and event.share == 1]
        if not isinstance(brisk(method), WeightMethod):
            assert ("old_dirs" in run.optimizer.state[first]) != bool(new)
    run.change_task()
    if isinstance(kind := brisk(method), WeightMethod):
        assert ("old_dirs" in run.optimizer.state[first]) != kind.acts_at_task_changes


@every_method(edits_gradients)
def test_a_closure_that_is_called_once_is_served_under_lbfgs_too(method: str) -> None:
    run = begin(PROBLEMS["mlp"], lambda parameters: torch.optim.LBFGS(parameters, lr=0.1, max_iter=1), brisk(method))
    assert train(run, 12, closing).plastic.metrics()["steps"] == 12


class Scaled:
    """A loop with a GradScaler, every third step of which is skipped for its loss."""

    def __init__(self, clip: bool) -> None:
        self.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**8)
        self.clip = clip

    def __call__(self, run: Run) -> None:
        if run.steps % 3 == 1:
            self._step(run, float("inf"))
        self._step(run, 1.0)

    def _step(self, run: Run, factor: float) -> None:
        inputs, targets = run.problem.batch(run.steps)
        run.optimizer.zero_grad()
        self.scaler.scale(factor * run.problem.loss(run.model(inputs), targets)).backward()
        if self.clip:
            self.scaler.unscale_(run.optimizer)
            clip_grad_norm_(run.model.parameters(), 0.5)
        self.scaler.step(run.optimizer)
        self.scaler.update()


def unscaled(clip: bool) -> Callable[[Run], None]:
    """The same, without a scaler: what is skipped is a forward without a step."""

    def step(run: Run) -> None:
        if run.steps % 3 == 1:
            backward(run)
        backward(run)
        if clip:
            clip_grad_norm_(run.model.parameters(), 0.5)
        run.optimizer.step()

    return step


@every_case()
def test_a_step_that_a_scaler_skips_is_no_step(method: str, problem: str, optimizer: str) -> None:
    _check_scaled(method, problem, OPTIMIZERS[optimizer], clip=False)


@every_method()
@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize("make", [torch.optim.AdamW, torch.optim.SGD], ids=["adamw", "sgd"])
def test_a_fused_step_that_a_scaler_skips_is_no_step(method: str, make: Any, clip: bool) -> None:
    _check_scaled(method, "mlp", lambda parameters: make(parameters, lr=0.01, fused=True), clip)


@every_method()
def test_clipping_comes_between_scaler_and_method(method: str) -> None:
    _check_scaled(method, "mlp", momentum, clip=True)


def _check_scaled(method: str, problem: str, make: Make, clip: bool) -> None:
    scaled, bare = (begin(PROBLEMS[problem], make, brisk(method)) for _ in range(2))
    train(scaled, 12, Scaled(clip))
    train(bare, 12, unscaled(clip))
    assert scaled.plastic.metrics()["steps"] == 12
    assert scaled.plastic.events == bare.plastic.events
    assert same(scaled.state, bare.state)


@every_method(reads_gradients)
def test_gradients_are_read_as_clipped(method: str) -> None:
    """What is remembered is what would be of a loss that is smaller by as much."""
    largest, norm, remembered = 0.001, 1.0, []
    for clip in (True, False):
        run = begin(PROBLEMS["mlp"], lambda parameters: SGD(parameters, lr=0.0), brisk(method))
        for _ in range(4):  # of one batch, so that the norm is the same at each
            backward(run, factor=1.0 if clip else largest / norm)
            if clip:
                norm = float(clip_grad_norm_(run.model.parameters(), largest))
            run.optimizer.step()
        remembered.append({group.name: run.plastic.state_of(group) for group in run.plastic.groups})
    assert norm > 10 * largest
    torch.testing.assert_close(*remembered, rtol=1e-3, atol=0)
    assert any(
        bool(value.any()) for state in remembered[0].values() for value in state.values() if value.is_floating_point()
    )


@every_method(edits_gradients)
def test_what_is_added_to_gradients_is_not_clipped(method: str) -> None:
    run = begin(PROBLEMS["mlp"], lambda parameters: SGD(parameters, lr=0.1), brisk(method))
    with torch.no_grad():
        run.model[0].weight.add_(1.0)
    before = run.state
    backward(run)
    clip_grad_norm_(run.model.parameters(), 1e-12)
    run.optimizer.step()
    moved = max((run.state[name] - value).abs().max().item() for name, value in before.items())
    assert moved > 1e-8


class Failing(SGD):
    """A subclass that calls its parent's step, or fails when it is told to."""

    failing = False

    def step(self, closure: Any = None) -> Any:
        if self.failing:
            raise ZeroDivisionError
        return super().step(closure)


@every_method()
def test_a_subclass_that_calls_its_parents_step_steps_once(method: str) -> None:
    run = begin(PROBLEMS["mlp"], momentum, brisk(method)).train(15)
    nested = begin(PROBLEMS["mlp"], lambda ps: Failing(ps, lr=0.05, momentum=0.9), brisk(method)).train(15)
    assert same(run.state, nested.state)
    assert run.plastic.events == nested.plastic.events


@every_method()
@pytest.mark.parametrize("nested", [False, True])
def test_a_closure_that_raises_leaves_no_trace(method: str, nested: bool) -> None:
    def make(parameters: Any) -> Optimizer:
        return (Failing if nested else SGD)(parameters, lr=0.05, momentum=0.9)

    def explode() -> None:
        raise ZeroDivisionError

    run, undisturbed = (begin(PROBLEMS["mlp"], make, brisk(method)) for _ in range(2))
    for _ in range(15):
        with pytest.raises(ZeroDivisionError):
            run.optimizer.step(explode)
        run.train(1)
        undisturbed.train(1)
    assert same(run.state, undisturbed.state)
    assert run.plastic.events == undisturbed.plastic.events


@every_method()
def test_an_optimizer_that_raises_makes_no_step(method: str) -> None:
    run, undisturbed = (
        begin(PROBLEMS["mlp"], lambda ps: Failing(ps, lr=0.05, momentum=0.9), brisk(method)) for _ in range(2)
    )
    for step in range(15):
        if step % 4 == 2:
            run.optimizer.failing = True
            with pytest.raises(ZeroDivisionError):
                run.optimizer.step()
            run.optimizer.failing = False
        run.train(1)
        undisturbed.train(1)
    assert run.plastic.metrics()["steps"] == 15
    assert [(event.step, event.group) for event in run.plastic.events] == [
        (event.step, event.group) for event in undisturbed.plastic.events
    ]
    kind = brisk(method)
    if not isinstance(kind, WeightMethod) or type(kind).before_step is WeightMethod.before_step:
        assert same(run.state, undisturbed.state)
        return
    # What acts before the step has acted, whatever became of that: weights are decayed once more, or a mean moved on.
    if not edits_gradients(kind):
        for name, value in undisturbed.state.items():
            torch.testing.assert_close(run.state[name], value, atol=1e-3, rtol=1e-3, msg=name)


@every_method()
def test_a_scheduler_made_before_or_after_attach(method: str) -> None:
    runs = []
    for early in (True, False):
        schedulers: list[Any] = []

        def schedule(run: Run, schedulers: list[Any] = schedulers) -> None:
            schedulers.append(torch.optim.lr_scheduler.OneCycleLR(run.optimizer, max_lr=0.1, total_steps=20))

        run = begin(PROBLEMS["mlp"], momentum, brisk(method), schedule if early else lambda run: None)
        if not early:
            schedule(run)
        for _ in range(15):
            run.train(1)
            schedulers[0].step()
        runs.append(run)
    assert same(runs[0].state, runs[1].state)
    assert runs[0].plastic.events == runs[1].plastic.events


class Noting(WeightMethod):
    """Notes the step sizes that a method gets to see."""

    def __init__(self) -> None:
        object.__setattr__(self, "seen", [])

    def after_step(self, moment: Moment) -> None:
        self.seen.append({weight.name: weight.learning_rate for weight in moment.weights})


@pytest.mark.parametrize("as_tensor", [False, True])
def test_step_sizes_are_those_of_the_moment_and_of_the_parameters_group(as_tensor: bool) -> None:
    def rate(value: float) -> Any:
        return torch.tensor(value, dtype=torch.float64) if as_tensor else value

    model = PROBLEMS["mlp"].network()
    groups = [{"params": model[0].parameters(), "lr": rate(0.5)}, {"params": model[2].parameters(), "lr": rate(0.25)}]
    optimizer = torch.optim.AdamW(groups)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=2, gamma=0.5)
    method = Noting()
    run = Run(PROBLEMS["mlp"], model, optimizer, regrow.attach(model, optimizer, method))
    for _ in range(6):
        run.train(1)
        scheduler.step()
    assert [seen["0.weight"] for seen in method.seen] == [0.5, 0.5, 0.25, 0.25, 0.125, 0.125]
    assert [seen["2.bias"] for seen in method.seen] == [0.25, 0.25, 0.125, 0.125, 0.0625, 0.0625]
    assert "4.weight" not in method.seen[0]
