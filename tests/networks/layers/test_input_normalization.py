import copy
import io
import pickle
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import regrow
from regrow.errors import ConfigError, ModelError
from regrow.networks.layers import RunningInputNormalization


def batches(places: tuple[int, ...] = ()) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [2 + 3 * torch.randn(size, 3, *places, generator=generator, dtype=torch.float64) for size in (1, 4, 1, 7)]


@pytest.mark.parametrize("places", [(), (2, 2)])
def test_without_decay_the_statistics_are_those_of_all_numbers_so_far(places: tuple[int, ...]) -> None:
    layer = RunningInputNormalization(3).double()
    seen = np.empty((3, 0))
    for batch in batches(places):
        seen = np.concatenate([seen, batch.numpy().swapaxes(0, 1).reshape(3, -1)], 1)
        result = layer(batch)
        np.testing.assert_allclose(layer.mean, seen.mean(1), rtol=1e-12)
        np.testing.assert_allclose(layer.var, seen.var(1), rtol=1e-12, atol=1e-15)
        wide = (3, *[1] * len(places))
        expected = (batch.numpy() - seen.mean(1).reshape(wide)) / np.sqrt(seen.var(1).reshape(wide) + 1e-5)
        np.testing.assert_allclose(result, expected, rtol=1e-9, atol=1e-12)
        assert layer.count == seen.shape[1]


def test_with_a_decay_the_first_batch_counts_whole_and_each_later_one_the_same_share() -> None:
    layer = RunningInputNormalization(3, decay=0.9).double()
    first, *later = [batch.numpy() for batch in batches()]
    mean, second = first.mean(0), (first**2).mean(0)
    layer(torch.from_numpy(first))
    for batch in later:
        layer(torch.from_numpy(batch))
        mean, second = 0.9 * mean + 0.1 * batch.mean(0), 0.9 * second + 0.1 * (batch**2).mean(0)
        np.testing.assert_allclose(layer.mean, mean, rtol=1e-12)
        np.testing.assert_allclose(layer.var, second - mean**2, rtol=1e-9)


def test_it_moves_in_training_mode_only_with_grad_or_without() -> None:
    layer = RunningInputNormalization(3)
    with torch.no_grad():
        layer(torch.randn(4, 3))
    assert layer.count == 4
    before = copy.deepcopy(layer.eval().state_dict())
    layer(torch.randn(4, 3))
    assert all(torch.equal(one, before[name]) for name, one in layer.state_dict().items())
    layer.train()(torch.empty(0, 3))
    assert all(torch.equal(one, before[name]) for name, one in layer.state_dict().items())


def test_the_gradient_takes_the_statistics_for_constants_also_after_another_forward() -> None:
    layer = RunningInputNormalization(3, decay=0.5)
    value = torch.randn(4, 3, requires_grad=True)
    result = layer(value)
    deviation = (layer.var + 1e-5).sqrt()
    layer(5 * torch.randn(4, 3))
    result.sum().backward()
    torch.testing.assert_close(value.grad, (1 / deviation).expand(4, 3))


@pytest.mark.parametrize("decay", [None, 0.99])
def test_bfloat16_and_autocast_keep_float32_statistics(decay: float | None) -> None:
    values = [torch.randn(4, 3).bfloat16() for _ in range(3)]
    low, cast, full = (RunningInputNormalization(3, decay) for _ in range(3))
    low.bfloat16()
    for value in values:
        expected = full(value.float())
        assert torch.equal(low(value), expected.bfloat16())
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(cast(value.float()), expected)
    for other in (low, cast):
        assert torch.equal(other.mean, full.mean) and torch.equal(other.var, full.var)
        assert other.mean.dtype == torch.float32 and other.count == 12


@pytest.mark.parametrize("how", ["deepcopy", "pickle", "state_dict"])
def test_copies_go_on_bit_for_bit(how: str) -> None:
    layer = RunningInputNormalization(3)
    layer(torch.randn(5, 3))
    if how == "deepcopy":
        other = copy.deepcopy(layer)
    elif how == "pickle":
        other = pickle.loads(pickle.dumps(layer))
    else:
        file = io.BytesIO()
        torch.save(layer.state_dict(), file)
        file.seek(0)
        other = RunningInputNormalization(3)
        other.load_state_dict(torch.load(file, weights_only=True))
    value = torch.randn(2, 3)
    assert torch.equal(layer(value), other(value))
    assert all(torch.equal(one, other.state_dict()[name]) for name, one in layer.state_dict().items())


def test_units_behind_it_are_free_and_in_front_of_it_blocked() -> None:
    behind = nn.Sequential(RunningInputNormalization(6), nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 2))
    example = torch.randn(4, 6)
    graph = regrow.find_units(behind, example)
    assert graph["1"].status == "free" and regrow.verify(behind, example, graph).ok
    front = nn.Sequential(nn.Linear(6, 4), RunningInputNormalization(4), nn.Linear(4, 2))
    group = regrow.find_units(front, example)["0"]
    assert group.status == "blocked" and "1.mean is used as a value" in " ".join(group.reasons)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"features": 0}, "RunningInputNormalization needs at least 1 feature, but got 0."),
        ({"decay": 1.0}, "RunningInputNormalization needs 0 <= decay < 1, or None, but got 1.0."),
        ({"eps": -1.0}, "RunningInputNormalization needs eps > 0, but got -1.0."),
    ],
)
def test_settings_out_of_range(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        RunningInputNormalization(**{"features": 3, **settings})
    assert str(error.value) == message


def test_another_shape() -> None:
    with pytest.raises(ModelError, match=r"needs a value of shape \[batch, 3, ...\], but got \[2, 4\]. A single"):
        RunningInputNormalization(3)(torch.randn(2, 4))
