"""Training code may have another default device or dtype: what regrow makes for itself does not follow it."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import pytest
import torch

import regrow
from tests.conformance.cases import PROBLEMS, Run, brisk, every_method, same
from tests.conformance.loops import momentum

STEPS = 14
CHANGE = 10

Defaults = Callable[[], AbstractContextManager[object]]


@contextmanager
def dtype(which: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(which)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def trained(method: str, problem: str, defaults: Defaults) -> Run:
    """After some steps and a task change; network and data are made before, as they are without such defaults."""
    kind = PROBLEMS[problem]
    model = kind.network()
    run = Run(kind, model, momentum(model.parameters()), None)
    batches, new = [kind.batch(step) for step in range(STEPS)], [kind.batch(100), kind.batch(101)]
    with defaults():
        run.plastic = regrow.attach(model, run.optimizer, brisk(method), example=batches[0][0])
        for step, (inputs, targets) in enumerate(batches):
            if step == CHANGE:
                run.plastic.task_changed(kind.loss(model(seen), wanted) for seen, wanted in new)
            run.optimizer.zero_grad()
            kind.loss(model(inputs), targets).backward()
            run.optimizer.step()
        run.plastic.metrics()
        run.plastic.load_state_dict(run.plastic.state_dict())
    return run


@pytest.mark.parametrize(
    ("problem", "defaults"),
    [
        ("mlp", lambda: dtype(torch.float64)),
        ("mlp", lambda: dtype(torch.bfloat16)),
        ("mlp", lambda: torch.device("meta")),  # as "cuda" would be, where there is none
        ("transformer", lambda: torch.device("meta")),
    ],
    ids=["float64", "bfloat16", "device", "device-transformer"],
)
@every_method()
def test_defaults_of_the_training_code_change_nothing(method: str, problem: str, defaults: Defaults) -> None:
    usual, other = trained(method, problem, nullcontext), trained(method, problem, defaults)
    assert same(usual.state, other.state)
    assert usual.plastic.events == other.plastic.events
    before, after = usual.plastic.state_dict(), other.plastic.state_dict()
    assert before.keys() == after.keys()
    for name, value in before.items():
        assert (value.dtype, value.device) == (after[name].dtype, after[name].device), name
        assert torch.equal(value, after[name]), name


@pytest.mark.parametrize("problem", PROBLEMS)
def test_nor_does_what_is_found_proved_and_measured(problem: str) -> None:
    kind = PROBLEMS[problem]
    inputs, _ = kind.batch(0, 32)  # no fewer than units, for ranks

    def said(defaults: Defaults) -> list[str]:
        model = kind.network()
        with defaults():
            found = [regrow.find_units(model, inputs), regrow.verify(model, inputs), regrow.measure(model, inputs)]
        return [str(one) for one in found]

    usual = said(nullcontext)
    assert said(lambda: dtype(torch.bfloat16)) == usual
    assert said(lambda: torch.device("meta")) == usual
