import numpy as np
import pytest
import torch

import regrow
from regrow.errors import ConfigError
from regrow.methods import ContinuousContinualBackprop
from tests.methods.by_hand import (
    LEARNING_RATE,
    assert_equal,
    attached,
    batch,
    descended,
    does_nothing,
    gradients,
    make_network,
    step,
    values,
)

FRESH = np.array([0.5, -0.25, 1.0])


def fixed(group: object, units: torch.Tensor, shape: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
    return torch.tensor(FRESH, dtype=torch.float32).expand(shape)


def test_all_units_move_by_their_share_every_period() -> None:
    method = ContinuousContinualBackprop(period=2, rate=0.4, sharpness=3.0, decay_rate=0.6)
    model, optimizer, plastic = attached(method, init=fixed)
    w, mean = values(model), np.zeros(4)
    for seed in range(4):
        g = gradients(w, seed)
        mean = 0.6 * mean + 0.4 * np.abs(g["0.weight"]).mean(axis=1)
        w = descended(w, g)
        if seed % 2:
            u = mean / mean.mean()
            r = 0.4 * np.minimum(2 / (1 + np.exp(3.0 * (u - 1))), 1)
            assert (r == 0.4).any() and (r < 0.3).any()
            w["0.weight"] = (1 - r)[:, None] * w["0.weight"] + r[:, None] * FRESH
            w["0.bias"] = (1 - r) * w["0.bias"]
            w["2.weight"] = (1 - r) * w["2.weight"]
        step(model, optimizer, seed)
        assert_equal(model, w, 1e-5)
    assert [event.unit for event in plastic.events] == [0, 1, 2, 3] * 2
    np.testing.assert_allclose([event.share for event in plastic.events][4:], r, rtol=1e-4)


def test_the_optimizers_memory_and_ages_stay() -> None:
    model = make_network()
    optimizer = torch.optim.SGD(model.parameters(), lr=LEARNING_RATE, momentum=0.9)
    plastic = regrow.attach(model, optimizer, ContinuousContinualBackprop(period=1, rate=1.0), example=batch()[0])
    for seed in range(3):
        step(model, optimizer, seed)
    assert optimizer.state[model[0].weight]["momentum_buffer"].any(dim=1).sum() >= 3
    assert plastic.state_of("0")["age"].tolist() == [3] * 4


def test_a_rate_of_0_is_nothing() -> None:
    assert does_nothing(ContinuousContinualBackprop(period=1, rate=0.0))


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"period": 0}, "period must be a whole number of at least 1, but is 0"),
        ({"rate": 1.5}, r"rate is a share and must lie in \[0, 1\], but is 1.5"),
        ({"sharpness": -1}, "sharpness must be a finite number ≥ 0, but is -1"),
        ({"decay_rate": 1.0}, "decay_rate must be less than 1"),
    ],
)
def test_bad_settings(settings: dict[str, object], text: str) -> None:
    with pytest.raises(ConfigError, match=f"ContinuousContinualBackprop.{text}"):
        ContinuousContinualBackprop(**settings)
