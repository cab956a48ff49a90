import math

import pytest
import torch
from torch import nn

from regrow.errors import RegrowError
from regrow.units.graph import Slice
from regrow.units.initial import law_for, starting_law
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


# The law of a whole parameter of a fresh network.


@pytest.mark.parametrize(
    ("fill", "kind", "first", "second"),
    [
        (lambda weight: None, "uniform", -1 / math.sqrt(30), 1 / math.sqrt(30)),  # the layer's own, exactly
        (lambda weight: nn.init.uniform_(weight, -2.0, 2.0), "uniform", -2.0, 2.0),
        (lambda weight: nn.init.normal_(weight, 0.0, 2.0), "normal", 0.0, 2.0),
        (lambda weight: nn.init.constant_(weight, 3.0), "constant", 3.0, 0.0),
        (nn.init.orthogonal_, "normal", 0.0, 1 / math.sqrt(200)),
    ],
    ids=["own", "uniform", "normal", "constant", "orthogonal"],
)
def test_the_starting_law_is_the_one_that_gave_the_weights(fill, kind: str, first: float, second: float) -> None:
    torch.manual_seed(0)
    layer = nn.Linear(30, 200)
    fill(layer.weight)
    law = starting_law(layer, "weight")
    assert law.kind == kind
    assert abs(law.first - first) < 0.1 and abs(law.second - second) < 0.1
    if kind == "uniform" and first > -1:
        assert (law.first, law.second) == pytest.approx((first, second), abs=1e-6)
    drawn = law.sample((400, 50), torch.Generator().manual_seed(0))
    assert abs(drawn.std(correction=0).item() - layer.weight.std(correction=0).item()) < 0.03 * (1 + second)


def test_small_tensors_keep_their_layers_law_and_constants_are_constants() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 2), nn.LayerNorm(2), nn.Linear(2, 1))
    assert starting_law(model, "0.bias").second == pytest.approx(3**-0.5)
    assert starting_law(model, "2.bias").second == pytest.approx(2**-0.5)  # one element is no constant
    assert (starting_law(model, "1.weight").kind, starting_law(model, "1.weight").first) == ("constant", 1.0)
    nn.init.zeros_(model[0].bias)
    assert (starting_law(model, "0.bias").kind, starting_law(model, "0.bias").first) == ("constant", 0.0)
