import numpy as np
import pytest
import torch
from torch import nn

from regrow.errors import ConfigError
from regrow.methods import NormalizeAndProject
from tests.methods.by_hand import assert_equal, attached, batch, descended, does_nothing, gradients, step, values


@pytest.mark.parametrize("period", [1, 3])
def test_hidden_weights_get_their_first_norm_back(period: int) -> None:
    model, optimizer, _ = attached(NormalizeAndProject(period))
    w = values(model)
    norm = np.sqrt((w["0.weight"] ** 2).sum())
    for seed in range(7):
        w = descended(w, gradients(w, seed))
        if (seed + 1) % period == 0:
            w["0.weight"] *= norm / np.sqrt((w["0.weight"] ** 2).sum())
        step(model, optimizer, seed)
        assert_equal(model, w)


def test_a_layer_that_starts_at_0_may_grow() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
    nn.init.zeros_(model[2].weight)
    model, optimizer, _ = attached(NormalizeAndProject(), model)
    model[2].weight.grad = torch.ones(4, 4)
    optimizer.step()
    torch.testing.assert_close(model[2].weight.detach(), torch.full((4, 4), -0.1))


def test_double_precision_is_kept() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)).double()
    model, optimizer, _ = attached(NormalizeAndProject(), model, example=batch()[0].double())
    norm = model[0].weight.detach().norm()
    model[0].weight.grad = torch.ones_like(model[0].weight)
    optimizer.step()
    torch.testing.assert_close(model[0].weight.detach().norm(), norm, rtol=1e-14, atol=0)


def test_period_0_is_never() -> None:
    assert does_nothing(NormalizeAndProject(0))


def test_bad_settings() -> None:
    with pytest.raises(
        ConfigError, match=r"NormalizeAndProject.period must be a whole number of at least 0, but is -1"
    ):
        NormalizeAndProject(-1)
