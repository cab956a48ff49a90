"""L2 is torch's own weight decay, bit for bit."""

import pytest
import torch

import regrow
from tests.attachment.training import make_network, same, train


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
