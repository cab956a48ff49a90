import copy
import pickle
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import regrow
from regrow.errors import ConfigError
from regrow.networks.layers import RandomizedSmoothLeakyReLU, SmoothLeakyReLU


def by_hand(x: Any, slope: Any, p: float, c: float) -> Any:
    return slope * x + (1 - slope) * x / (1 + np.exp(-c * x / p))


@pytest.mark.parametrize("settings", [{}, {"alpha": 0.7, "p": 1.0, "c": 2.0}])
def test_the_equation_and_its_slope(settings: dict[str, float]) -> None:
    alpha, p, c = settings.get("alpha", 0.1), settings.get("p", 3.0), settings.get("c", 5.0)
    value = torch.linspace(-6, 6, 25, dtype=torch.float64, requires_grad=True)
    result = SmoothLeakyReLU(**settings)(value)
    result.sum().backward()
    x = value.detach().numpy()
    np.testing.assert_allclose(result.detach(), by_hand(x, alpha, p, c), rtol=1e-12, atol=1e-15)
    step = 1e-6
    slope = (by_hand(x + step, alpha, p, c) - by_hand(x - step, alpha, p, c)) / (2 * step)
    np.testing.assert_allclose(value.grad, slope, rtol=1e-7, atol=1e-8)


def test_far_from_0_it_is_a_leaky_relu() -> None:
    value = torch.tensor([-60.0, 60.0])
    torch.testing.assert_close(SmoothLeakyReLU(0.3)(value), torch.tensor([-18.0, 60.0]))


def test_in_training_each_element_draws_a_slope_and_in_evaluation_it_is_the_mean() -> None:
    layer = RandomizedSmoothLeakyReLU(0.2, 0.6)
    value = -torch.linspace(0.5, 3, 200, dtype=torch.float64)
    torch.manual_seed(3)
    result = layer(value)
    torch.manual_seed(3)
    slopes = torch.empty_like(value).uniform_(0.2, 0.6).numpy()
    np.testing.assert_allclose(result, by_hand(value.numpy(), slopes, 3.0, 5.0), rtol=1e-12)
    assert slopes.min() < 0.25 and slopes.max() > 0.55 and not torch.equal(layer(value), result)
    np.testing.assert_allclose(layer.eval()(value), by_hand(value.numpy(), 0.4, 3.0, 5.0), rtol=1e-12)


@pytest.mark.parametrize("layer", [SmoothLeakyReLU(0.2), RandomizedSmoothLeakyReLU(0.2, 0.6)])
def test_without_state_and_of_the_dtype_that_comes_in(layer: nn.Module) -> None:
    value, results = torch.randn(2, 3).bfloat16(), []
    for one in (layer, copy.deepcopy(layer), pickle.loads(pickle.dumps(layer)), copy.deepcopy(layer).bfloat16()):
        torch.manual_seed(0)
        results.append(one(value))
        assert results[-1].dtype == torch.bfloat16 and torch.equal(results[-1], results[0])
    assert not layer.state_dict()


@pytest.mark.parametrize("layer", [SmoothLeakyReLU(), RandomizedSmoothLeakyReLU(0.2, 0.6)])
def test_units_are_free(layer: nn.Module) -> None:
    model, example = nn.Sequential(nn.Linear(6, 4), layer, nn.Linear(4, 2)), torch.randn(4, 6)
    graph = regrow.find_units(model, example)
    assert graph["0"].status == "free" and regrow.verify(model, example, graph).ok


def test_settings_out_of_range() -> None:
    with pytest.raises(ConfigError, match="RandomizedSmoothLeakyReLU needs lower <= upper, but got 0.6 and 0.2."):
        RandomizedSmoothLeakyReLU(0.6, 0.2)
    with pytest.raises(ConfigError, match="SmoothLeakyReLU needs p > 0, but got 0."):
        SmoothLeakyReLU(p=0)
    with pytest.raises(ConfigError, match="RandomizedSmoothLeakyReLU needs c > 0, but got -1."):
        RandomizedSmoothLeakyReLU(0.2, 0.6, c=-1)
