import copy

import pytest
import torch
from torch import nn

import regrow
from regrow.measures import measure
from tests.attachment.training import batch, make_network


def test_measures_every_hidden_group_and_the_network() -> None:
    model = make_network()
    with torch.no_grad():
        model[0].bias[:4] = -100.0
    before = copy.deepcopy(model.state_dict())
    inputs = torch.randn(500, 20, generator=torch.Generator().manual_seed(1))
    found = measure(model, inputs)
    assert set(found.groups) == {"0", "2"}
    assert found.groups["0"]["dormant"] == 0.25 and found.groups["0"]["units"] == 16
    assert found.network["dormant"] == pytest.approx((4 + 12 * found.groups["2"]["dormant"]) / 28)
    hidden = torch.relu(model[0](inputs)).detach()
    assert found.groups["0"]["effective_rank"] == pytest.approx(regrow.measures.effective_rank(hidden), rel=1e-5)
    assert found.groups["0"]["weight_magnitude"] == pytest.approx(model[0].weight.abs().mean().item(), rel=1e-6)
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert model.training


def test_measuring_is_invisible_to_an_attachment() -> None:
    model = make_network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    plastic = regrow.attach(model, optimizer, regrow.ContinualBackprop(), example=batch(0)[0])
    measure(model, batch(0, 16)[0], plastic.graph)
    state = plastic.state_of("0")
    assert not state["activation"].any()
    optimizer.step()
    assert not plastic.state_of("0")["activation"].any()


def test_channels_count_at_every_place_for_dormancy_and_as_a_mean_for_ranks() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 3), nn.Flatten(), nn.Linear(32, 3))
    images = torch.randn(30, 1, 8, 8)
    with torch.no_grad():
        model[0].bias[0] = -50.0
    found = measure(model, images)
    hidden = torch.relu(model[0](images)).detach()
    assert found.groups["0"]["dormant"] == 0.25
    assert found.groups["0"]["stable_rank"] == pytest.approx(regrow.measures.stable_rank(hidden.mean((2, 3))), rel=1e-4)


def test_bad_input() -> None:
    model, inputs = make_network(), batch(0)[0]
    graph = regrow.find_units(model, inputs)
    with pytest.raises(regrow.RegrowError, match=r"dormant_threshold is a share and must lie in \[0, 1\], but is 7"):
        measure(model, inputs, dormant_threshold=7)
    with pytest.raises(regrow.RegrowError, match=r"Sequential cannot take the example, a tensor of shape \(4, 7\)"):
        measure(model, torch.zeros(4, 7), graph)
    assert model.training
