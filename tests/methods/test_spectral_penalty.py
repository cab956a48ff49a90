import numpy as np
import pytest
import torch
from torch import nn

from regrow.errors import ConfigError
from regrow.methods import SpectralPenalty
from tests.methods.by_hand import LEARNING_RATE, assert_equal, attached, does_nothing, gradients, step, values


@pytest.mark.parametrize(("power", "target"), [(2, 1.0), (2, 2.0), (1, 1.0), (3, 0.5)])
def test_gradient_of_each_term(power: int, target: float) -> None:
    """Many iterations find the singular vectors; the slopes are (σᵏ − t)² and ‖b‖ᵏ, differentiated by hand."""
    model, optimizer, _ = attached(SpectralPenalty(0.05, power, target, iterations=400))
    w = values(model)
    expected = {}
    for name, value in w.items():
        if value.ndim == 2:
            left, sigma, right = np.linalg.svd(value)
            s = sigma[0]
            penalty = 2 * (s**power - target) * power * s ** (power - 1) * np.outer(left[:, 0], right[0])
        else:
            norm = np.sqrt((value**2).sum())
            penalty = power * norm ** (power - 1) * value / norm
        expected[name] = value - LEARNING_RATE * (gradients(w)[name] + 0.05 * penalty)
    step(model, optimizer)
    assert_equal(model, expected, 1e-5)


def test_one_iteration_a_step_follows_the_largest_singular_value_to_its_target() -> None:
    model, optimizer, _ = attached(SpectralPenalty(0.3))
    for _ in range(300):
        optimizer.zero_grad()
        for parameter in model.parameters():
            parameter.grad = torch.zeros_like(parameter)
        optimizer.step()
    for layer in (model[0], model[2]):
        assert abs(torch.linalg.matrix_norm(layer.weight, 2).item() - 1) < 0.01
        assert layer.bias.norm() < 1e-3


def test_a_convolution_is_one_matrix_and_gains_go_to_1() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3))
    with torch.no_grad():
        model[1].weight.copy_(torch.tensor([0.5, 1.0, 2.0]))
    model, optimizer, _ = attached(SpectralPenalty(0.1, iterations=200), model, example=torch.zeros(2, 2, 5, 5))
    w = values(model)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    left, sigma, right = np.linalg.svd(w["0.weight"].reshape(3, 18))
    penalty = (4 * (sigma[0] ** 2 - 1) * sigma[0] * np.outer(left[:, 0], right[0])).reshape(3, 2, 3, 3)
    np.testing.assert_allclose(values(model)["0.weight"], w["0.weight"] - 0.01 * penalty, atol=1e-5)
    np.testing.assert_allclose(values(model)["1.weight"], [0.51, 1.0, 1.98], atol=1e-6)  # though not all ones


def test_without_strength_nothing_happens() -> None:
    assert does_nothing(SpectralPenalty(0.0))


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"strength": -1}, "SpectralPenalty.strength must be a finite number ≥ 0, but is -1"),
        ({"target": float("nan")}, "SpectralPenalty.target must be a finite number ≥ 0, but is nan"),
        ({"power": 0}, "SpectralPenalty.power must be a whole number of at least 1, but is 0"),
        ({"iterations": "2"}, "SpectralPenalty.iterations must be a whole number of at least 1, but is '2'"),
    ],
)
def test_bad_settings(settings: dict[str, object], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        SpectralPenalty(**settings)
