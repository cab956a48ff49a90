import numpy as np
import pytest
import torch
from torch import nn

from regrow.errors import ConfigError, ModelError
from regrow.methods import L2ER
from tests.methods.by_hand import (
    LEARNING_RATE,
    Arrays,
    assert_equal,
    attached,
    batch,
    does_nothing,
    gradients,
    hidden,
    step,
    values,
)


def effective_rank(w: Arrays, inputs: torch.Tensor) -> float:
    sigma = np.linalg.svd(hidden(w, inputs), compute_uv=False)
    p = sigma / sigma.sum()
    p = p[p > 1e-12]
    return float(np.exp(-(p * np.log(p)).sum()))


def ascent(w: Arrays, inputs: torch.Tensor) -> Arrays:
    """The slope of the effective rank of the hidden layer, by central differences."""
    slopes = {n: np.zeros_like(v) for n, v in w.items()}
    for name in ("0.weight", "0.bias"):
        for place in np.ndindex(w[name].shape):
            ends = []
            for sign in (1, -1):
                moved = {n: v.copy() for n, v in w.items()}
                moved[name][place] += sign * 1e-6
                ends.append(effective_rank(moved, inputs))
            slopes[name][place] = (ends[0] - ends[1]) / 2e-6
    return slopes


def test_decays_and_climbs_every_so_often() -> None:
    model, optimizer, _ = attached(L2ER(0.2, 0.05, period=2, examples=8))
    w = values(model)
    for seed in range(4):
        g = gradients(w, seed)
        w = {n: (1 - LEARNING_RATE * 0.2) * w[n] - LEARNING_RATE * g[n] for n in w}
        if seed % 2:
            inputs = torch.cat([batch(seed - 1)[0], batch(seed)[0]])  # two batches of 5 make 8 examples
            slopes = ascent(w, inputs)
            assert max(np.abs(slope).max() for slope in slopes.values()) > 0.1
            w = {n: w[n] + 0.05 * slopes[n] for n in w}
        step(model, optimizer, seed)
        assert_equal(model, w, 2e-5)


def test_at_strength_and_rate_0_nothing_happens() -> None:
    assert does_nothing(L2ER(0.0, 0.0, period=1))


def test_a_network_without_hidden_units_has_no_rank_to_raise() -> None:
    torch.manual_seed(0)
    text = "L2ER works on the activations of hidden units, but no module of Linear sees any of units that are trained"
    with pytest.raises(ModelError, match=text):
        attached(L2ER(period=1), nn.Linear(3, 2))


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"strength": -1}, "strength must be a finite number ≥ 0, but is -1"),
        ({"rank_rate": float("nan")}, "rank_rate must be a finite number ≥ 0, but is nan"),
        ({"period": 0}, "period must be a whole number of at least 1, but is 0"),
        ({"examples": 0}, "examples must be a whole number of at least 1, but is 0"),
    ],
)
def test_bad_settings(settings: dict[str, object], text: str) -> None:
    with pytest.raises(ConfigError, match=f"L2ER.{text}"):
        L2ER(**settings)
