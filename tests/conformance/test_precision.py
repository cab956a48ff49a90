"""Numbers and layouts other than plain float32: autocast, half precision, channels-last."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

import regrow
from regrow.methods import Method, QuotaMethod
from tests.conformance.cases import OPTIMIZERS, PROBLEMS, Run, brisk, every_case, every_method, replaces, start
from tests.conformance.loops import begin, momentum, reads_gradients

BELOW = {"bfloat16": torch.bfloat16, "float16": torch.float16}


def floats(plastic: regrow.Attachment) -> dict[str, Tensor]:
    return {name: value for name, value in plastic.state_dict().items() if value.is_floating_point()}


def check_sound(run: Run, at_first: dict[str, Tensor]) -> None:
    """Nothing is NaN or infinite, and what moves is kept in float32 at least."""
    for name, value in {**run.state, **floats(run.plastic)}.items():
        assert value.isfinite().all(), name
    for name, value in floats(run.plastic).items():
        assert value.dtype in (torch.float32, torch.float64) or torch.equal(value, at_first[name]), name


def due(run: Run) -> list[tuple[int, str]]:
    return [(event.step, event.group) for event in run.plastic.events]


class Autocast:
    """A step under autocast."""

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype

    def __call__(self, run: Run) -> None:
        inputs, targets = run.problem.batch(run.steps)
        run.optimizer.zero_grad()
        with torch.autocast("cpu", self.dtype):
            loss = run.problem.loss(run.model(inputs), targets)
        loss.backward()
        run.optimizer.step()


@every_case()
def test_autocast(method: str, problem: str, optimizer: str) -> None:
    run, plain = (start(problem, optimizer, brisk(method)) for _ in range(2))
    at_first = floats(run.plastic)
    step = Autocast(torch.bfloat16)
    step(run)
    if reads_gradients(brisk(method)):
        # They are in float32, but made of rounded activations: where two places under a max-pool change
        # their order by that, the gradient of a layer is another one by a third. So both runs get the same gradients.
        for mine, others in zip(plain.model.parameters(), run.model.parameters(), strict=True):
            mine.grad = others.grad.clone()
        plain.optimizer.step()
        plain.steps += 1
    else:
        plain.train(1)
    for group in run.plastic.groups:
        for name, value in run.plastic.state_of(group).items():
            expected = plain.plastic.state_of(group)[name].float()
            assert name == "utility" or (value - expected).norm() <= 0.2 * expected.norm(), name
    run.steps = 1
    for _ in range(14):
        if run.steps == 10:
            run.change_task()
        step(run)
        run.steps += 1
    check_sound(run, at_first)
    assert all(parameter.dtype == torch.float32 for parameter in run.model.parameters())
    if isinstance(brisk(method), QuotaMethod):
        assert due(run) == due(plain.train(14)) != []
    if problem == "mlp":
        assert bool(run.plastic.events) == replaces(brisk(method))


@every_method()
def test_units_are_found_under_autocast(method: str) -> None:
    given = start("mlp", "sgd", brisk(method))
    lazy = begin(replace(PROBLEMS["mlp"]), momentum, None)
    lazy.plastic = regrow.attach(lazy.model, lazy.optimizer, brisk(method))
    for run in (given, lazy):
        for _ in range(9):
            Autocast(torch.bfloat16)(run)
            run.steps += 1
    if replaces(brisk(method)):
        assert [group.name for group in lazy.plastic.groups] == ["0", "2"]
        assert lazy.plastic.events == given.plastic.events != []
    assert all(torch.equal(lazy.state[name], value) for name, value in given.state.items())


def narrow(problem: str, dtype: torch.dtype) -> Any:
    kind = PROBLEMS[problem]

    def draw(draws: torch.Generator, size: int) -> tuple[Tensor, Tensor]:
        inputs, targets = (part.to(dtype) if part.is_floating_point() else part for part in kind.draw(draws, size))
        return inputs, targets

    return replace(kind, build=lambda: kind.build().to(dtype), draw=draw)


@every_case()
def test_weights_in_bfloat16(method: str, problem: str, optimizer: str) -> None:
    check_narrow(brisk(method), problem, optimizer, torch.bfloat16)


@every_method()
def test_weights_in_float16(method: str) -> None:
    check_narrow(brisk(method), "mlp", "sgd", torch.float16)


def check_narrow(method: Method, problem: str, optimizer: str, dtype: torch.dtype) -> None:
    run = begin(narrow(problem, dtype), OPTIMIZERS[optimizer], method)
    at_first = floats(run.plastic)
    run.train(15)
    check_sound(run, at_first)
    assert all(parameter.dtype == dtype for parameter in run.model.parameters())
    for group in run.plastic.groups:
        for name, value in run.plastic.state_of(group).items():
            assert value.dtype == (torch.int64 if name == "age" else torch.float32)
    if isinstance(method, QuotaMethod):
        assert due(run) == due(start(problem, optimizer, method).train(15)) != []
    if problem == "mlp":
        assert bool(run.plastic.events) == replaces(method)


@every_method()
@pytest.mark.parametrize("problem", ["convnet", "resnet"])
def test_channels_last(method: str, problem: str) -> None:
    """The same replacements, and the layout stays. In double precision, so that the order of sums decides nothing."""
    wide = narrow(problem, torch.float64)
    last = torch.channels_last

    def draw(draws: torch.Generator, size: int) -> tuple[Tensor, Tensor]:
        inputs, targets = wide.draw(draws, size)
        return inputs.to(memory_format=last), targets

    plain = begin(wide, OPTIMIZERS["adam"], brisk(method)).train(15)
    run = begin(
        replace(wide, build=lambda: wide.build().to(memory_format=last), draw=draw), OPTIMIZERS["adam"], brisk(method)
    )
    strides = {name: value.stride() for name, value in run.model.named_parameters()}
    run.train(15)
    assert {name: value.stride() for name, value in run.model.named_parameters()} == strides
    assert any(not value.is_contiguous() for value in run.model.parameters())
    assert due(run) == due(plain)
    for event, expected in zip(run.plastic.events, plain.plastic.events, strict=True):
        assert event.unit == expected.unit
        assert event.share == pytest.approx(expected.share, rel=1e-4)
    inputs = wide.batch(99)[0]
    torch.testing.assert_close(run.model(inputs.to(memory_format=last)), plain.model(inputs), atol=1e-5, rtol=1e-5)
