from copy import deepcopy

import pytest
import torch

from regrow.errors import ConfigError
from regrow.networks.layers.dropout import Dropout
from regrow.networks.mlp import MLP
from regrow.units.trace import find_units


def test_what_is_dropped_is_told_by_the_numbers_drawn() -> None:
    layer, value = Dropout(0.25, seed=3), torch.rand(4, 5) + 1
    drawn = torch.rand(4, 5, generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(layer(value), torch.where(drawn < 0.25, 0.0, value / 0.75))
    share = (layer(torch.ones(10000)) == 0).float().mean().item()
    assert abs(share - 0.25) < 0.02


def test_examples_one_by_one_are_dropped_as_together() -> None:
    together, apart = Dropout(0.5), Dropout(0.5)
    value = torch.ones(7, 33)
    assert torch.equal(together(value), torch.cat([apart(row[None]) for row in value]))


def test_no_draw_in_evaluation_nor_without_a_probability() -> None:
    value = torch.rand(9)
    for layer in (Dropout(0.5).eval(), Dropout(0.0)):
        before = layer.generator.get_state()
        assert layer(value) is value
        assert torch.equal(layer.generator.get_state(), before)


def test_it_goes_on_from_what_was_saved_and_copied() -> None:
    network = MLP(3, [40], 2, dropout=0.5)
    network(torch.ones(2, 3))
    copy, other = deepcopy(network), MLP(3, [40], 2, dropout=0.5, seed=9)
    other.load_state_dict(network.state_dict())
    expected = network(torch.ones(2, 3))
    assert torch.equal(copy(torch.ones(2, 3)), expected)
    assert torch.equal(other(torch.ones(2, 3)), expected)


def test_finding_units_draws_nothing() -> None:
    network = MLP(3, [4, 5], 2, dropout=0.5)
    before = network.state_dict()
    graph = find_units(network, torch.ones(2, 3))
    assert [(group.size, group.status) for group in graph] == [(4, "free"), (5, "free"), (2, "output")]
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name])


@pytest.mark.parametrize("p", [-0.1, 1.0, float("nan")])
def test_a_probability_out_of_range(p: float) -> None:
    with pytest.raises(ConfigError, match=rf"^Dropout needs 0 <= p < 1, but got {p}\.$"):
        Dropout(p)
