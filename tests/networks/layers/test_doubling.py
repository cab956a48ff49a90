import copy
import pickle
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import regrow
from regrow.errors import ConfigError
from regrow.networks.layers import CReLU, DeepFourierFeatures, halved
from regrow.networks.mlp import MLP

BY_HAND: dict[type[nn.Module], Any] = {
    CReLU: lambda z, dim: np.concatenate([np.maximum(z, 0), np.maximum(-z, 0)], dim),
    DeepFourierFeatures: lambda z, dim: np.concatenate([np.sin(z), np.cos(z)], dim),
}
KINDS = pytest.mark.parametrize("kind", list(BY_HAND))


@KINDS
@pytest.mark.parametrize(("shape", "dim"), [((2, 3), 1), ((2, 3, 4, 4), 1), ((2, 5, 3), -1)])
def test_two_features_of_each_unit(kind: Any, shape: tuple[int, ...], dim: int) -> None:
    value = torch.randn(shape, dtype=torch.float64)
    np.testing.assert_allclose(kind(dim)(value), BY_HAND[kind](value.numpy(), dim), rtol=1e-14)


@pytest.mark.parametrize(
    ("kind", "slope"),
    [
        (CReLU, lambda z, up, down: (z > 0) * up - (z < 0) * down),
        (DeepFourierFeatures, lambda z, up, down: np.cos(z) * up - np.sin(z) * down),
    ],
)
def test_the_gradient(kind: Any, slope: Any) -> None:
    value = torch.randn(2, 3, dtype=torch.float64, requires_grad=True)
    gradient = torch.randn(2, 6, dtype=torch.float64)
    kind()(value).backward(gradient)
    up, down = np.split(gradient.numpy(), 2, 1)
    np.testing.assert_allclose(value.grad, slope(value.detach().numpy(), up, down))


@KINDS
def test_without_state_and_of_the_dtype_that_comes_in(kind: Any) -> None:
    layer = kind(-1)
    assert not layer.state_dict() and repr(layer) == f"{kind.__name__}(dim=-1)"
    value = torch.randn(2, 3).bfloat16()
    for one in (layer, copy.deepcopy(layer), pickle.loads(pickle.dumps(layer)), copy.deepcopy(layer).bfloat16()):
        assert one(value).dtype == torch.bfloat16 and torch.equal(one(value), layer(value))


@KINDS
def test_units_are_free_and_each_is_read_by_two_columns(kind: Any) -> None:
    linear = nn.Sequential(nn.Linear(6, 4), kind(), nn.Linear(8, 4), kind(), nn.Linear(8, 2))
    convolutions = nn.Sequential(nn.Conv2d(3, 4, 3), kind(), nn.Conv2d(8, 4, 3), kind(), nn.Flatten(), nn.Linear(32, 2))
    for model, example in ((linear, torch.randn(4, 6)), (convolutions, torch.randn(2, 3, 6, 6))):
        graph = regrow.find_units(model, example)
        for name in ("0", "2"):
            assert graph[name].status == "free" and graph[name].size == 4
        (outgoing,) = graph["0"].having("outgoing")
        assert outgoing.parameter == "2.weight" and outgoing.rows[1].tolist() == [[0, 4], [1, 5], [2, 6], [3, 7]]
        verification = regrow.verify(model, example, graph)
        assert verification.ok and len(verification.checks) == 2


@pytest.mark.parametrize(("width", "other"), [(7, 8), (1, 2), (0, 2), (-3, 2)])
def test_a_width_that_cannot_be_halved(width: int, other: int) -> None:
    with pytest.raises(ConfigError) as error:
        halved(width)
    assert str(error.value) == (
        f"A layer of width {width} cannot have half of its units, which an activation with two features of each "
        f"(CReLU, DeepFourierFeatures) needs. Take an even width, such as {other}."
    )


@pytest.mark.parametrize(("activation", "kind"), [("crelu", CReLU), ("deep_fourier", DeepFourierFeatures)])
def test_an_mlp_keeps_its_widths_with_half_of_the_units(activation: str, kind: Any) -> None:
    network = MLP(5, [8, 6], 3, activation)
    assert [layer.weight.shape for layer in network if isinstance(layer, nn.Linear)] == [(4, 5), (3, 8), (3, 6)]
    assert isinstance(network[1], kind) and network(torch.randn(2, 5)).shape == (2, 3)
    with pytest.raises(ConfigError, match="A layer of width 7 cannot have half of its units"):
        MLP(5, [7], 3, activation)


def test_half_of_a_width() -> None:
    assert halved(8) == 4 and halved(2) == 1
