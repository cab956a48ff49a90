import math

import pytest
import torch
from torch import nn

from regrow.errors import ConfigError
from regrow.networks.layers.dropout import Dropout
from regrow.networks.mlp import MLP


def test_the_article_s_network() -> None:
    network = MLP(784, [2000, 2000, 2000], 10)
    weights = [layer.weight for layer in network if isinstance(layer, nn.Linear)]
    assert sum(weight.numel() for weight in weights) == 9_588_000
    assert [type(layer) for layer in network][:3] == [nn.Linear, nn.ReLU, nn.Linear]
    assert all(not bool(layer.bias.any()) for layer in network if isinstance(layer, nn.Linear))


def test_hidden_layers_have_the_gain_of_the_activation_and_the_output_layer_none() -> None:
    torch.manual_seed(0)
    network = MLP(600, [600], 600)
    for layer, bound in ((network[0], math.sqrt(6 / 600)), (network[2], math.sqrt(3 / 600))):
        largest = layer.weight.abs().max().item()
        assert 0.999 * bound < largest <= bound


def test_no_hidden_layer() -> None:
    assert MLP(4, [], 3)(torch.ones(2, 4)).shape == (2, 3)


def test_dropout_stands_behind_every_activation_with_a_seed_of_its_own() -> None:
    network = MLP(4, [8, 8], 3, dropout=0.5)
    assert [type(layer).__name__ for layer in network] == ["Linear", "ReLU", "Dropout"] * 2 + ["Linear"]
    masks = [layer.mask((8,)) for layer in network if isinstance(layer, Dropout)]
    masks += [layer.mask((8,)) for layer in MLP(4, [8, 8], 3, dropout=0.5, seed=1) if isinstance(layer, Dropout)]
    assert len({str(mask) for mask in masks}) == 4
    assert len(MLP(4, [8, 8], 3, dropout=0.0)) == 5


def test_an_unknown_activation() -> None:
    with pytest.raises(ConfigError, match=r"MLP knows no activation 'relo': did you mean 'relu'\? Known: crelu, deep"):
        MLP(4, [3], 2, "relo")
