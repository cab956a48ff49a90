"""What tests of training loops share: a run with a problem, an optimizer and a step of one's own."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import SGD, Optimizer

import regrow
from regrow.methods import Method, UnitMethod, WeightMethod
from tests.conformance.cases import SIZE, Problem, Run

Make = Callable[[Any], Optimizer]


def momentum(parameters: Any) -> SGD:
    """An optimizer to make."""
    return SGD(parameters, lr=0.05, momentum=0.9)


def edits_gradients(method: Method) -> bool:
    """Whether it is one of the weight methods that do."""
    return isinstance(method, WeightMethod) and method.edits_gradients


def reads_gradients(method: Method) -> bool:
    """Whether it ranks units by gradients."""
    return isinstance(method, UnitMethod) and method.needs in ("first_order", "incoming_gradient")


def begin(kind: Problem, make: Make, method: Method | None, before: Callable[[Run], None] = lambda run: None) -> Run:
    """As `start`, with a problem and an optimizer of one's own; `before` is called before `attach`."""
    run = Run(kind, model := kind.network(), make(model.parameters()), None)
    before(run)
    if method is not None:
        run.plastic = regrow.attach(model, run.optimizer, method, example=kind.batch(0)[0])
    return run


def backward(run: Run, sizes: Sequence[int] = (SIZE,), factor: float = 1.0) -> Tensor:
    """Gradients of one batch that comes in parts of some sizes."""
    inputs, targets = run.problem.batch(run.steps, sum(sizes))
    run.optimizer.zero_grad()
    losses = [
        run.problem.loss(run.model(part), wanted) * (factor * len(part) / len(inputs))
        for part, wanted in zip(inputs.split(list(sizes)), targets.split(list(sizes)), strict=True)
    ]
    for loss in losses:
        loss.backward()
    return torch.stack(losses).sum().detach()


def train(run: Run, steps: int, step: Callable[[Run], None]) -> Run:
    """As `Run.train`, with a step of one's own."""
    for _ in range(steps):
        if run.task and run.steps and run.steps % run.task == 0:
            run.change_task()
        step(run)
        run.steps += 1
    return run


def settled(model: nn.Module) -> nn.Module:
    """Take batch statistics out of training: what one example does depends on no other then."""
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            module.eval()
    return model
