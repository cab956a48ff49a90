import numpy as np
import pytest
import torch
from torch import nn

from regrow.errors import ConfigError
from regrow.methods import WeightClipping
from tests.methods.by_hand import assert_equal, attached, descended, does_nothing, gradients, step, values


@pytest.mark.parametrize("skip_output", [False, True])
def test_clips_to_the_bound_of_the_fan_in(skip_output: bool) -> None:
    model, optimizer, _ = attached(WeightClipping(0.5, skip_output))
    w = values(model)
    stepped = descended(w, gradients(w))
    expected = {n: np.clip(v, -0.5 / 3**0.5, 0.5 / 3**0.5) for n, v in stepped.items() if n.startswith("0")}
    for name in ("2.weight", "2.bias"):
        expected[name] = stepped[name] if skip_output else np.clip(stepped[name], -0.25, 0.25)
    step(model, optimizer)
    assert_equal(model, expected)
    assert (np.abs(stepped["0.weight"]) > 0.5 / 3**0.5).any() and (np.abs(stepped["2.weight"]) > 0.25).any()


def test_convolutions_count_their_places_and_norms_and_tables_are_left_alone() -> None:
    torch.manual_seed(0)
    conv = nn.Sequential(nn.Conv2d(4, 6, 3, groups=2), nn.BatchNorm2d(6), nn.ReLU(), nn.ConvTranspose2d(6, 2, 2))
    with torch.no_grad():
        for parameter in conv.parameters():
            parameter.add_(5.0)
    model, optimizer, _ = attached(WeightClipping(), conv, example=torch.zeros(2, 4, 5, 5))
    optimizer.step()
    assert model[0].weight.max().item() == pytest.approx(1 / (2 * 9) ** 0.5)
    assert model[3].weight.max().item() == pytest.approx(1 / (2 * 4) ** 0.5)  # where torch begins
    assert (model[1].weight == 6).all() and (model[1].bias == 5).all()

    model = nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    table = model[0].weight.detach().clone()
    model, optimizer, _ = attached(WeightClipping(0.01), model, example=torch.tensor([[1, 2]]))
    optimizer.step()
    assert torch.equal(model[0].weight, table) and model[1].weight.abs().max().item() == pytest.approx(0.005)


def test_bound_0_turns_it_off() -> None:
    assert does_nothing(WeightClipping(0.0))


def test_bad_settings() -> None:
    with pytest.raises(ConfigError, match=r"WeightClipping.bound must be a finite number ≥ 0, but is -1"):
        WeightClipping(-1)
