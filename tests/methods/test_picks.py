"""How much a method picks again of what it picked last."""

import torch
from torch import nn

import regrow
from regrow.methods import ReDo, SelectiveWeightReinit
from regrow.methods.picks import Picks, pick_figures
from tests.methods.by_hand import attached, batch, make_network, step


def test_share_and_overlap() -> None:
    picks = Picks(10)
    assert pick_figures([picks]) == {}
    picks.take(torch.tensor([3, 1]))
    assert pick_figures([picks]) == {"last_share": 0.2}
    picks.take(torch.tensor([1, 7, 8, 9]))
    assert pick_figures([picks]) == {"last_share": 0.4, "overlap": 0.25}
    picks.take(torch.tensor([], dtype=torch.int64))
    assert pick_figures([picks]) == {"last_share": 0.0, "overlap": 0.25}, "nothing has been picked again"
    picks.take(torch.tensor([1, 7]))
    assert pick_figures([picks]) == {"last_share": 0.2, "overlap": 1.0}
    other = Picks(30)
    assert pick_figures([picks, other]) == {"last_share": 0.2, "overlap": 1.0}
    other.take(torch.arange(6))
    assert pick_figures([picks, other]) == {"last_share": 0.2, "overlap": 1.0}
    other.take(torch.arange(10, 12))
    assert pick_figures([picks, other]) == {"last_share": 0.1, "overlap": 0.5}


def test_weights_that_are_picked_again_and_again_are_told() -> None:
    """Here a third of the first layer's weights are useless, whatever they are re-drawn to: their input is always 0."""
    model = make_network()
    with torch.no_grad():
        model[0].bias.fill_(10.0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    plastic = regrow.attach(model, optimizer, SelectiveWeightReinit(1 / 3, 1), include="0", example=batch()[0])
    model[0].bias.requires_grad_(False)
    overlaps = []
    for seed in range(3):
        inputs = batch(seed)[0]
        inputs[:, 0] = 0.0
        optimizer.zero_grad()
        model(inputs).square().sum().backward()
        optimizer.step()
        overlaps.append(plastic.metrics().get("swr/overlap"))
    assert overlaps == [None, 1.0, 1.0]
    assert plastic.metrics()["swr/last_share"] == 4 / 12


def test_units_that_are_picked_again_and_again_are_told() -> None:
    model = make_network()
    with torch.no_grad():
        model[0].weight[:2] = 0.0
        model[0].bias[:2] = -1.0
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    plastic = regrow.attach(
        model,
        optimizer,
        ReDo(1, 0.0),
        init=lambda group, units, shape, generator: torch.zeros(shape),  # which leaves them silent
        example=batch()[0],
    )
    step(model, optimizer)
    assert plastic.metrics()["0/last_share"] == 0.5 and "0/overlap" not in plastic.metrics()
    step(model, optimizer)
    assert plastic.metrics()["0/last_share"] == 0.5 and plastic.metrics()["0/overlap"] == 1.0


def test_a_method_that_finds_nothing_for_ever_is_told() -> None:
    model, optimizer, plastic = attached(ReDo(1, 0.0), nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)))
    step(model, optimizer)
    assert plastic.metrics()["0/last_share"] == 0.0 and not plastic.events
