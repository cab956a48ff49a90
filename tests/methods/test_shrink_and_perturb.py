import math

import torch
from torch import nn

import regrow


def _steps(method: regrow.ShrinkAndPerturb, steps: int, start: float = 1.0) -> torch.Tensor:
    model = nn.Linear(100, 100)
    nn.init.constant_(model.weight, start)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    regrow.attach(model, optimizer, method)
    for _ in range(steps):
        for parameter in model.parameters():
            parameter.grad = torch.zeros_like(parameter)
        optimizer.step()
    return model.weight.detach()


def test_shrinks_by_the_step_size() -> None:
    weight = _steps(regrow.ShrinkAndPerturb(weight_decay=0.2, noise_std=0.0), 3)
    torch.testing.assert_close(weight, torch.full_like(weight, (1 - 0.02) ** 3))


def test_noise_has_the_standard_deviation_asked_for() -> None:
    weight = _steps(regrow.ShrinkAndPerturb(weight_decay=0.0, noise_std=0.01), 4, start=0.0)
    assert abs(weight.std().item() / (0.01 * math.sqrt(4)) - 1) < 0.03
    assert abs(weight.mean().item()) < 0.001


def test_a_period_does_the_same_in_one_go() -> None:
    every = _steps(regrow.ShrinkAndPerturb(weight_decay=0.01, noise_std=0.01), 12)
    seldom = _steps(regrow.ShrinkAndPerturb(weight_decay=0.01, noise_std=0.01, period=6), 12)
    between = _steps(regrow.ShrinkAndPerturb(weight_decay=0.01, noise_std=0.01, period=6), 5)
    assert (between == 1).all()
    # Within a period noise is not shrunk: a difference of second order, here of less than 1 %.
    assert abs(every.mean() - seldom.mean()) < 0.002
    assert abs(seldom.std().item() / every.std().item() - 1) < 0.03
