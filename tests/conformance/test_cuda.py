"""On a GPU: no waiting on quiet steps, as torch itself sees it, and the same replacements as on the host."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch

import regrow
from regrow.methods import Method, QuotaMethod, UnitMethod
from tests.conformance.cases import OPTIMIZERS, PROBLEMS, Run, brisk, every_method

pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"),
    # Of torch, which says that it does not see all that waits.
    pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype:UserWarning"),
]

STEPS = 15


@contextmanager
def _no_waiting() -> Iterator[None]:
    """Whatever makes the host wait for the device raises."""
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def _start(problem: str, optimizer: str, method: Method | None, device: str, moved_late: bool = False) -> Run:
    kind = PROBLEMS[problem]
    model = kind.network()
    if not moved_late:
        model.to(device)
    made = OPTIMIZERS[optimizer](model.parameters())
    plastic = None
    if method is not None:
        example = kind.batch(0)[0] if moved_late else kind.batch(0)[0].to(device)
        plastic = regrow.attach(model, made, method, example=example)
    model.to(device)
    return Run(kind, model, made, plastic)


def _train(run: Run, steps: int, device: str) -> Run:
    for _ in range(steps):
        inputs, targets = (value.to(device) for value in run.problem.batch(run.steps))
        run.optimizer.zero_grad()
        run.problem.loss(run.model(inputs), targets).backward()
        run.optimizer.step()
        run.steps += 1
    return run


def _quiet(method: Method, step: int) -> bool:
    """Whether it is known that nothing is due."""
    if isinstance(method, QuotaMethod):
        return step <= method.maturity_threshold
    period = getattr(method, "period", 0)
    return period <= 1 or step % period != 0


@pytest.mark.parametrize("moved_late", [False, True])
@pytest.mark.parametrize("problem", ["mlp", "resnet", "transformer"])
@every_method()
def test_quiet_steps_do_not_wait(method: str, problem: str, moved_late: bool) -> None:
    kind = brisk(method)
    run = _start(problem, "sgd", kind, "cuda", moved_late)
    data = [tuple(value.to("cuda") for value in run.problem.batch(step)) for step in range(STEPS)]
    _train(run, 1, "cuda")  # state goes where the model is
    for step in range(2, STEPS):
        inputs, targets = data[step]
        run.optimizer.zero_grad()
        if _quiet(kind, step):
            with _no_waiting():
                run.problem.loss(run.model(inputs), targets).backward()
                run.optimizer.step()
        else:
            run.problem.loss(run.model(inputs), targets).backward()
            run.optimizer.step()


def test_waiting_is_an_error() -> None:
    with _no_waiting(), pytest.raises(RuntimeError, match="called a synchronizing CUDA operation"):
        torch.ones(2, device="cuda").sum().item()


@pytest.mark.parametrize("moved_late", [False, True])
# The keys' biases of attention have a gradient of rounding errors, by which some methods would choose.
@pytest.mark.parametrize("problem", [name for name in PROBLEMS if name != "transformer"])
@every_method()
def test_devices_agree(method: str, problem: str, moved_late: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is drawn is drawn on the host, so that only rounding differs."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    runs = []
    for device in ("cpu", "cuda"):
        run = _start(problem, "sgd", brisk(method), device, moved_late)
        runs.append(_train(run, 8, device))
    host, there = runs
    assert [(event.step, event.group, event.unit) for event in there.plastic.events] == [
        (event.step, event.group, event.unit) for event in host.plastic.events
    ]
    state = there.model.state_dict()
    for name, value in host.model.state_dict().items():
        torch.testing.assert_close(state[name].cpu(), value, rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "fused-adamw"])
@every_method()
def test_a_step_that_the_scaler_skips_is_none(method: str, optimizer: str) -> None:
    run = _start("mlp", optimizer, brisk(method), "cuda")
    scaler = torch.amp.GradScaler("cuda", init_scale=2.0**10, growth_interval=1000)
    for step in range(STEPS):
        inputs, targets = (value.to("cuda") for value in run.problem.batch(step))
        run.optimizer.zero_grad()
        with torch.autocast("cuda", dtype=torch.float16):
            loss = run.problem.loss(run.model(inputs), targets)
        scaler.scale(loss * (float("inf") if step % 5 == 2 else 1.0)).backward()
        scaler.step(run.optimizer)
        scaler.update()
    skipped = len(range(2, STEPS, 5))
    assert run.plastic.metrics()["steps"] == STEPS - skipped
    assert all(value.isfinite().all() for value in run.model.parameters())
    if isinstance(brisk(method), UnitMethod):
        assert run.plastic.events
    for group in run.plastic.groups:
        assert all(value.device.type == "cuda" for value in run.plastic.state_of(group).values())


@every_method()
def test_state_moves_between_devices(method: str) -> None:
    """What a GPU saved, the host goes on from, and the other way round."""
    for first, second in (("cuda", "cpu"), ("cpu", "cuda")):
        whole = _train(_start("mlp", "adam", brisk(method), first), 12, first)
        half = _train(_start("mlp", "adam", brisk(method), first), 6, first)
        other = _start("mlp", "adam", brisk(method), second)
        other.model.load_state_dict(half.model.state_dict())
        other.optimizer.load_state_dict(half.optimizer.state_dict())
        other.steps = 6
        _train(other, 6, second)
        later = [(event.step, event.unit) for event in whole.plastic.events if event.step > 6]
        assert [(event.step, event.unit) for event in other.plastic.events] == later


@pytest.mark.parametrize("settings", [{}, {"mode": "reduce-overhead"}])
@every_method(lambda method: isinstance(method, UnitMethod))
def test_compiled(method: str, settings: dict[str, str]) -> None:
    torch.compiler.reset()
    run = _start("mlp", "sgd", brisk(method), "cuda")
    expected = _train(_start("mlp", "sgd", brisk(method), "cuda"), 10, "cuda")
    run.model = torch.compile(run.model, **settings)
    _train(run, 10, "cuda")
    assert [(event.step, event.unit) for event in run.plastic.events] == [
        (event.step, event.unit) for event in expected.plastic.events
    ]
