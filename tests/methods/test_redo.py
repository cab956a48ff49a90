import numpy as np
import pytest
import torch
from torch import nn

from regrow.errors import ConfigError
from regrow.methods import ReDo
from tests.methods.by_hand import (
    attached,
    batch,
    descended,
    does_nothing,
    gradients,
    hidden,
    make_network,
    step,
    values,
)


def network() -> nn.Sequential:
    """Units that are about as active as 1, 0, .01 and .3 of the first."""
    model = make_network()
    with torch.no_grad():
        model[0].weight.copy_(model[0].weight[0] * torch.tensor([1.0, 0.0, 0.01, 0.3])[:, None])
        model[0].bias.zero_()
    return model


def expected_scores(w: dict[str, np.ndarray], seed: int) -> np.ndarray:
    activity = np.abs(hidden(w, batch(seed)[0])).mean(axis=0)
    return activity / (activity.mean() + 1e-9)


def test_units_below_the_threshold_are_redrawn_every_period() -> None:
    model, optimizer, plastic = attached(ReDo(period=3, threshold=0.1), network())
    w = values(model)
    for seed in range(3):
        before, w = w, descended(w, gradients(w, seed))
        step(model, optimizer, seed)
        assert bool(plastic.events) == (seed == 2)
    low = set(np.flatnonzero(expected_scores(before, 2) <= 0.1))  # read in the forward of that step
    assert {event.unit for event in plastic.events} == low == {1, 2}
    after = values(model)
    for unit in range(4):
        row, column, bias = after["0.weight"][unit], after["2.weight"][:, unit], after["0.bias"][unit]
        if unit in low:
            assert not column.any() and not bias and np.abs(row).max() <= 3**-0.5 and np.abs(row).min() > 0
        else:
            np.testing.assert_allclose(row, w["0.weight"][unit], atol=1e-6)
            np.testing.assert_allclose(column, w["2.weight"][:, unit], atol=1e-6)
    np.testing.assert_allclose(after["2.bias"], w["2.bias"], atol=1e-6)


def test_the_score_is_the_one_of_the_equation() -> None:
    model, optimizer, plastic = attached(ReDo(period=1, threshold=0.0, largest_share=0.0), network())
    w = values(model)
    step(model, optimizer)
    np.testing.assert_allclose(plastic.state_of("0")["utility"].numpy(), expected_scores(w, 0), rtol=1e-5)


def test_no_more_than_the_largest_share_lowest_first() -> None:
    model, optimizer, plastic = attached(ReDo(period=1, threshold=0.1, largest_share=0.25), network())
    step(model, optimizer)
    assert [event.unit for event in plastic.events] == [1]


def test_a_channel_counts_all_its_places() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 3, 2), nn.ReLU(), nn.Flatten(), nn.Linear(12, 2))
    images = torch.randn(4, 1, 3, 3)
    model, optimizer, plastic = attached(ReDo(period=1, largest_share=0.0), model, example=images)
    maps = model[:2](images).detach()
    model(images).sum().backward()
    optimizer.step()
    activity = maps.mean(dim=(0, 2, 3))
    torch.testing.assert_close(plastic.state_of("0")["utility"], activity / activity.mean())


def test_a_reading_that_is_not_finite_spoils_its_own_score_only() -> None:
    model, optimizer, plastic = attached(ReDo(period=1, threshold=0.1), network())
    with torch.no_grad():
        model[0].bias[3] = float("nan")
        model[2].weight[:, 3] = 0.0
    model(batch()[0])
    with pytest.warns(RuntimeWarning, match="NaN or infinity in the activations or weights of 1 of 4 units"):
        optimizer.step()
    assert sorted(event.unit for event in plastic.events) == [1, 2]


def test_a_largest_share_of_0_is_nothing() -> None:
    assert does_nothing(ReDo(period=1, threshold=10.0, largest_share=0.0))


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"period": 0}, "period must be a whole number of at least 1, but is 0"),
        ({"threshold": -0.1}, "threshold must be a finite number ≥ 0, but is -0.1"),
        ({"largest_share": 1.1}, r"largest_share is a share and must lie in \[0, 1\], but is 1.1"),
    ],
)
def test_bad_settings(settings: dict[str, object], text: str) -> None:
    with pytest.raises(ConfigError, match=f"ReDo.{text}"):
        ReDo(**settings)
