import numpy as np
import pytest
import torch
from torch import nn

from regrow.errors import ConfigError
from regrow.methods import ParsevalPenalty
from tests.methods.by_hand import LEARNING_RATE, assert_equal, attached, does_nothing, gradients, step, values


def penalty(w: torch.Tensor, scale: float) -> torch.Tensor:
    """Of a wide matrix, from the equation."""
    return (w @ w.T - scale * torch.eye(len(w), dtype=w.dtype)).square().sum()


@pytest.mark.parametrize("scale", [1.0, 2.0])
def test_descends_the_penalty_of_hidden_layers_only(scale: float) -> None:
    model, optimizer, _ = attached(ParsevalPenalty(0.02, scale))
    w = values(model)
    expected = {n: v - LEARNING_RATE * gradients(w)[n] for n, v in w.items()}
    v = w["0.weight"].T  # 4 units from 3 inputs: columns
    expected["0.weight"] -= LEARNING_RATE * 0.02 * (4 * (v @ v.T - scale * np.eye(3)) @ v).T
    step(model, optimizer)
    assert_equal(model, expected)


def test_the_gradient_is_that_of_the_equation() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 3, 2), nn.ReLU(), nn.Flatten(), nn.Linear(12, 2))
    model, optimizer, _ = attached(ParsevalPenalty(0.5), model, example=torch.zeros(1, 2, 3, 3))
    leaf = model[0].weight.detach().clone().requires_grad_()
    (0.5 * penalty(leaf.flatten(1), 2.0)).backward()
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    torch.testing.assert_close(model[0].weight.grad, leaf.grad)
    assert not model[3].weight.grad.any()


def test_rows_become_orthogonal_with_the_length_asked_for() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 2))
    model, optimizer, _ = attached(ParsevalPenalty(0.1), model, example=torch.zeros(1, 6))
    for _ in range(400):
        for parameter in model.parameters():
            parameter.grad = torch.zeros_like(parameter)
        optimizer.step()
    torch.testing.assert_close(model[0].weight @ model[0].weight.T, 2 * torch.eye(4), atol=1e-3, rtol=0)


def test_without_strength_nothing_happens() -> None:
    assert does_nothing(ParsevalPenalty(0.0))


@pytest.mark.parametrize("setting", ["strength", "scale"])
def test_bad_settings(setting: str) -> None:
    with pytest.raises(ConfigError, match=f"ParsevalPenalty.{setting} must be a finite number ≥ 0, but is -0.1"):
        ParsevalPenalty(**{setting: -0.1})
