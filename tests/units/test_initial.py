import math

import pytest
import torch
from torch import nn

from regrow.errors import RegrowError
from regrow.units.graph import Slice
from regrow.units.initial import law_for
from regrow.units.surgery import Region


def _law(module: nn.Module, name: str = "weight", init=None):
    tensor = module.get_parameter(name)
    rows = {0: torch.arange(len(tensor)).unsqueeze(1)}
    return law_for(module, Region(Slice(name, "incoming", tuple(tensor.shape), rows), tensor), init)


class Custom(nn.Module):
    def __init__(self, fill) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.linspace(-1, 1, 600).reshape(20, 30))
        self.fill = fill

    def reset_parameters(self) -> None:
        self.fill(self.weight)


def _drawn(law) -> torch.Tensor:
    return law.draw(None, torch.arange(200), (200, 100), torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("module", "bound"),
    [(nn.Linear(30, 20), 1 / math.sqrt(30)), (nn.Conv2d(8, 4, 3, groups=2), 1 / math.sqrt(36))],
)
def test_the_modules_own_uniform_law(module: nn.Module, bound: float) -> None:
    state, before = torch.get_rng_state(), module.weight.detach().clone()
    drawn = _drawn(_law(module))
    assert 0.99 * bound < drawn.abs().max() <= bound
    assert abs(drawn.mean()) < 0.02 * bound
    assert torch.equal(state, torch.get_rng_state()) and torch.equal(module.weight, before)


def test_a_modules_own_normal_law() -> None:
    law = _law(Custom(lambda weight: nn.init.normal_(weight, 1.0, 0.3)))
    assert law.description == "normal, mean 1, std 0.3"
    assert _drawn(law).mean().item() == pytest.approx(1.0, abs=0.01)


@pytest.mark.parametrize(
    "fill", [lambda weight: nn.init.normal_(weight).mul_(2), lambda weight: nn.init.orthogonal_(weight)]
)
def test_a_law_that_is_not_one_draw_falls_back_to_the_present_spread(fill) -> None:
    law = _law(Custom(fill))
    assert "as at attach" in law.description
    assert _drawn(law).std().item() == pytest.approx(torch.linspace(-1, 1, 600).std().item(), rel=0.02)


def test_named_laws_have_the_spread_of_their_names() -> None:
    module = nn.Linear(30, 20)
    for name, variance in [
        ("kaiming_uniform", 2 / 30),
        ("kaiming_normal", 2 / 30),
        ("lecun_uniform", 1 / 30),
        ("lecun_normal", 1 / 30),
    ]:
        assert _drawn(_law(module, init=name)).var().item() == pytest.approx(variance, rel=0.03)


def test_an_unknown_law_is_an_error() -> None:
    with pytest.raises(RegrowError, match="There is no initial law 'he' for init="):
        _law(nn.Linear(3, 4), init="he")
