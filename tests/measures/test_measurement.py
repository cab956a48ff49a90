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


def test_ranks_of_fewer_samples_than_units_are_warned_of() -> None:
    model = make_network()
    with pytest.warns(RuntimeWarning) as caught:
        found = measure(model, batch(0, 12)[0])
    assert [str(warning.message) for warning in caught] == [
        "Ranks cannot be higher than the number of samples, which is less than that of units in 1 of 2 groups: group "
        "'0' has 16 units and 12 samples. Give a larger batch, or do not use the ranks."
    ]
    assert found.groups["0"]["article_rank"] <= 12
    measure(model, batch(0, 16)[0])  # warnings are errors


def test_dormant_units_are_a_symptom_and_no_verdict() -> None:
    """Two networks that learn alike, one with three quarters of its units dormant."""
    torch.manual_seed(0)
    inputs, labels = batch(0, 32)
    small = nn.Sequential(nn.Linear(20, 4), nn.ReLU(), nn.Linear(4, 5))
    large = nn.Sequential(nn.Linear(20, 16), nn.ReLU(), nn.Linear(16, 5))
    with torch.no_grad():
        small[0].bias.fill_(5.0)
        large[0].bias.fill_(-100.0)
        for part, whole in ((small[0].weight, large[0].weight[:4]), (small[0].bias, large[0].bias[:4])):
            whole.copy_(part)
        large[2].weight[:, :4] = small[2].weight
        large[2].bias.copy_(small[2].bias)
    assert measure(small, inputs).network["dormant"] == 0.0 and measure(large, inputs).network["dormant"] == 0.75
    losses = []
    for model in (small, large):
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
        for _ in range(60):
            loss = nn.functional.cross_entropy(model(inputs), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        losses.append(loss.item())
    assert losses[0] == pytest.approx(losses[1], rel=1e-3) and losses[0] < 1.3
    figures = {"dormant", "effective_rank", "article_rank", "stable_rank", "weight_magnitude"}
    assert set(measure(large, inputs).network) == figures, "nothing in it says whether the network can learn"


@pytest.mark.parametrize("activation", [nn.Tanh(), nn.Identity()])
def test_a_unit_that_is_always_negative_is_not_dormant(activation: nn.Module) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), activation, nn.Linear(4, 2))
    with torch.no_grad():
        model[0].bias[1] = -9.0
    assert measure(model, torch.randn(40, 3)).network["dormant"] == 0.0
