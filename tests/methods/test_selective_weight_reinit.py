import numpy as np
import pytest
import torch
from torch import nn

from regrow.errors import ConfigError
from regrow.methods import SelectiveWeightReinit
from tests.methods.by_hand import attached, descended, does_nothing, gradients, step, values


def changed_of(method: SelectiveWeightReinit, seed: int = 0) -> tuple[dict, dict]:
    """After two steps of period 2: what differs from plain descent, and |w·g| of the second step."""
    model, optimizer, _ = attached(method, seed=seed)
    w = values(model)
    w = descended(w, gradients(w, 0))
    step(model, optimizer, 0)
    for name, value in values(model).items():
        np.testing.assert_allclose(value, w[name], atol=2e-6)  # not due
    g = gradients(w, 1)
    w = descended(w, g)
    step(model, optimizer, 1)
    return {n: np.abs(v - w[n]) > 1e-5 for n, v in values(model).items()}, {n: np.abs(w[n] * g[n]) for n in w}


def test_the_lowest_share_of_each_tensor_is_drawn_anew() -> None:
    changed, utility = changed_of(SelectiveWeightReinit(0.25, 2))
    for name, count in (("0.weight", 3), ("0.bias", 1), ("2.weight", 2)):
        lowest = np.argsort(utility[name].ravel(), kind="stable")[:count]
        assert set(np.flatnonzero(changed[name])) == set(lowest)


def test_the_threshold_is_a_share_of_the_mean() -> None:
    changed, utility = changed_of(SelectiveWeightReinit(0.5, 2, "threshold"))
    for name in changed:
        assert (changed[name] == (utility[name] <= 0.5 * utility[name].mean())).all()
    assert 0 < sum(part.sum() for part in changed.values()) < 26


def test_a_fraction_of_a_weight_is_a_chance() -> None:
    counts = [changed_of(SelectiveWeightReinit(0.05, 2), seed)[0]["0.weight"].sum() for seed in range(60)]
    assert set(counts) == {0, 1} and 0.4 < np.mean(counts) < 0.8  # 12 weights: 0.6 of one


def test_new_values_have_the_law_of_their_layer_and_constants_come_back() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(50, 40), nn.LayerNorm(40), nn.Linear(40, 2))
    nn.init.normal_(model[0].weight, std=3.0)  # not the law of nn.Linear
    nn.init.zeros_(model[0].bias)
    model, optimizer, _ = attached(SelectiveWeightReinit(1.0, 1), model, example=torch.zeros(2, 50))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(7.0)
            parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    assert abs(model[0].weight.std().item() / 3 - 1) < 0.05 and abs(model[0].weight.mean().item()) < 0.3
    assert not model[0].bias.any() and (model[1].weight == 1).all() and not model[1].bias.any()
    assert 0.14 < model[2].weight.abs().max().item() <= 40**-0.5


def test_the_optimizers_memory_stays() -> None:
    model, _, plastic = attached(SelectiveWeightReinit(1.0, 1))
    plastic.detach()
    import regrow

    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    regrow.attach(model, optimizer, SelectiveWeightReinit(1.0, 1))
    step(model, optimizer)
    assert optimizer.state[model[0].weight]["momentum_buffer"].any()


def test_a_share_of_0_is_none() -> None:
    assert does_nothing(SelectiveWeightReinit(0.0, 1))


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"share": 2.0}, r"share is a share and must lie in \[0, 1\], but is 2.0"),
        ({"period": 0}, "period must be a whole number of at least 1, but is 0"),
        ({"selection": "lowest"}, "selection cannot be 'lowest'; Known: share, threshold"),
    ],
)
def test_bad_settings(settings: dict[str, object], text: str) -> None:
    with pytest.raises(ConfigError, match=f"SelectiveWeightReinit.{text}"):
        SelectiveWeightReinit(**settings)
