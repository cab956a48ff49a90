"""What several groups, methods or attachments read at one place is worked out once."""

from collections import Counter

import pytest
import torch
from torch import Tensor, nn

import regrow
from regrow.attachment import places
from regrow.methods import ContinualBackprop, Method, ReDo, SelfNormalizedReset
from regrow.units.graph import UnitGroup


class Beside(nn.Module):
    """Two hidden layers side by side, read by one."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.left, self.right, self.output = nn.Linear(3, 4), nn.Linear(3, 5), nn.Linear(9, 2)

    def forward(self, value: Tensor) -> Tensor:
        """[batch, 3] to [batch, 2]."""
        result: Tensor = self.output(torch.cat((self.left(value), self.right(value)), dim=1).relu())
        return result


@pytest.fixture
def reductions(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each statistic was worked out."""
    counted: Counter[str] = Counter()
    reduce = places._reduce

    def count(statistic: str, value: Tensor, dim: int) -> Tensor:
        counted[statistic] += 1
        return reduce(statistic, value, dim)

    monkeypatch.setattr(places, "_reduce", count)
    return counted


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int = 1) -> None:
    for _ in range(steps):
        optimizer.zero_grad()
        model(torch.ones(6, 3)).square().sum().backward()
        optimizer.step()


def put(model: nn.Module, optimizer: torch.optim.Optimizer, method: Method, group: str) -> regrow.Attachment:
    def is_it(found: UnitGroup) -> bool:
        return found.name == group

    return regrow.attach(model, optimizer, method, example=torch.ones(6, 3), include=is_it)


def test_groups_side_by_side_share_a_sum(reductions: Counter[str]) -> None:
    model = Beside()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    regrow.attach(model, optimizer, ContinualBackprop(), example=torch.ones(6, 3))
    train(model, optimizer, steps=3)
    assert reductions == {"mean_abs": 3}
    assert len(model.output._forward_pre_hooks) == 1


def test_attachments_share_a_sum_and_read_what_they_read_alone(reductions: Counter[str]) -> None:
    model, alone = Beside(), Beside()
    optimizer, other = (torch.optim.SGD(network.parameters(), lr=0.01) for network in (model, alone))
    left, right = put(model, optimizer, ContinualBackprop(), "left"), put(model, optimizer, ReDo(period=1), "right")
    train(model, optimizer)
    assert reductions == {"mean_abs": 1}
    put(alone, other, ReDo(period=1), "right")
    alone_left = put(alone, other, ContinualBackprop(), "left")
    train(alone, other)
    assert torch.equal(left.state_of("left")["activation"], alone_left.state_of("left")["activation"])
    with torch.no_grad():
        hidden = Beside().right(torch.ones(6, 3)).relu()
    torch.testing.assert_close(right.state_of("right")["activity"], hidden.abs().mean(dim=0))


def test_each_statistic_is_worked_out_for_those_who_want_it(reductions: Counter[str]) -> None:
    model = Beside()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    put(model, optimizer, ReDo(period=2), "left")
    put(model, optimizer, SelfNormalizedReset(), "right")
    train(model, optimizer, steps=3)
    assert reductions == {"mean_abs": 1, "fired": 3}


def test_the_hook_stays_until_the_last_reader_has_gone(reductions: Counter[str]) -> None:
    model = Beside()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    left = put(model, optimizer, ContinualBackprop(), "left")
    right = put(model, optimizer, SelfNormalizedReset(), "right")
    left.detach()
    train(model, optimizer)
    assert reductions == {"fired": 1}
    right.detach()
    right.detach()
    train(model, optimizer)
    assert reductions == {"fired": 1}
    assert not model.output._forward_pre_hooks
