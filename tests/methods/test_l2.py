"""L2 is its equation worked out by hand, and torch's own weight decay, bit for bit."""

import numpy as np
import pytest
import torch

import regrow
from tests.attachment.training import make_network, same, train
from tests.methods import by_hand


@pytest.mark.parametrize("coupled", [False, True])
def test_decays_weights_or_adds_to_gradients(coupled: bool) -> None:
    """Under momentum, which remembers the coupled form and not the decoupled one."""
    model = by_hand.make_network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    regrow.attach(model, optimizer, regrow.L2(0.5, coupled=coupled))
    w = by_hand.values(model)
    velocity = {name: np.zeros_like(value) for name, value in w.items()}
    for seed in range(4):
        g = by_hand.gradients(w, seed)
        for name, value in w.items():
            velocity[name] = 0.9 * velocity[name] + g[name] + (0.5 * value if coupled else 0.0)
            w[name] = (1.0 if coupled else 1 - 0.1 * 0.5) * value - 0.1 * velocity[name]
        by_hand.step(model, optimizer, seed)
        by_hand.assert_equal(model, w)


@pytest.mark.parametrize(
    ("coupled", "with_regrow", "with_torch"),
    [
        (False, torch.optim.AdamW, torch.optim.AdamW),
        (True, torch.optim.Adam, torch.optim.Adam),
        (True, torch.optim.SGD, torch.optim.SGD),
    ],
    ids=["decoupled-adamw", "coupled-adam", "coupled-sgd"],
)
def test_equals_torchs_weight_decay(coupled: bool, with_regrow, with_torch) -> None:
    model, twin = make_network(), make_network()
    optimizer = with_regrow(model.parameters(), lr=0.01, weight_decay=0.0)
    regrow.attach(model, optimizer, regrow.L2(0.05, coupled=coupled))
    train(model, optimizer, 100)
    train(twin, with_torch(twin.parameters(), lr=0.01, weight_decay=0.05), 100)
    assert same(model, twin)


def test_follows_the_step_size_of_each_parameter_group() -> None:
    model = make_network()
    optimizer = torch.optim.SGD(
        [{"params": model[0].parameters(), "lr": 0.1}, {"params": model[2].parameters(), "lr": 0.5}]
    )
    regrow.attach(model, optimizer, regrow.L2(1.0))
    before = [parameter.detach().clone() for parameter in model.parameters()]
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for parameter, old, factor in zip(model.parameters(), before, (0.9, 0.9, 0.5, 0.5, 1.0, 1.0), strict=True):
        torch.testing.assert_close(parameter.detach(), factor * old)
