import hashlib
import itertools

import numpy as np
import pytest
import torch

from regrow.errors import ConfigError
from regrow.streams.bit_flipping import BitFlipping


def test_slow_bits_stand_still_and_the_others_are_coins():
    task = BitFlipping(seed=3).task(2)
    assert task.inputs.shape == (10_000, 20) and task.labels.shape == (10_000, 1)
    assert task.inputs.dtype == task.labels.dtype == torch.float32
    assert set(task.inputs.unique().tolist()) == {0.0, 1.0}
    assert torch.equal(task.inputs[:, :15], task.inputs[:1, :15].expand(10_000, 15))
    assert ((task.inputs[:, 15:].mean(0) - 0.5).abs() < 0.03).all()


def test_one_bit_flips_between_periods():
    stream = BitFlipping(seed=1, period=5)
    bits = np.stack([stream.slow_bits(index) for index in range(200)])
    changed = bits[1:] != bits[:-1]
    assert (changed.sum(1) == 1).all()
    assert changed.any(0).all(), "every slow bit is flipped some time"
    assert np.array_equal(stream.task(150).inputs[0, :15].numpy(), bits[150])


def test_all_bits_are_redrawn():
    stream = BitFlipping(seed=1, flip="all", period=5)
    bits = np.stack([stream.slow_bits(index) for index in range(400)])
    assert 0.45 < (bits[1:] != bits[:-1]).mean() < 0.55


@pytest.mark.parametrize("target", ["article", "code"])
def test_the_target_is_the_threshold_network_example_by_example(target):
    stream = BitFlipping(seed=5, target=target, period=50)
    task = stream.task(1)
    random = np.random.default_rng([5, 0])
    signs = random.choice([-1, 1], size=100 * 22 + 1)
    weights, biases, outputs = signs[:2000].reshape(100, 20), signs[2000:2100], signs[2100:2200]
    for x, y in zip(task.inputs.numpy(), task.labels.numpy(), strict=True):
        value = signs[2200]
        for w, b, v in zip(weights, biases, outputs, strict=True):
            if target == "article":
                negatives = sum(w < 0) + (b < 0)
            else:
                negatives = (20 - sum(w) + b) / 2
            value += v * (w @ x + b > 21 * 0.7 - negatives)
        assert y == value


@pytest.mark.parametrize(("period", "bits", "slow"), [(50, 20, 2), (600, 9, 9), (600, 9, 1), (3, 20, 15)])
def test_the_target_is_the_same_whether_inputs_are_few_or_many(period, bits, slow):
    """Where there are few, each is worked out once."""
    stream = BitFlipping(seed=5, period=period, bits=bits, slow=slow, units=30)
    task = stream.task(2)
    signs = np.random.default_rng([5, 0]).choice([-1, 1], size=30 * (bits + 2) + 1)
    weights, biases, outputs = np.split(signs[:-1], [30 * bits, 30 * (bits + 1)])
    weights = weights.reshape(30, bits)
    negatives = (weights < 0).sum(axis=1) + (biases < 0)
    fires = task.inputs.numpy() @ weights.T + biases > (bits + 1) * 0.7 - negatives
    assert np.array_equal(task.labels[:, 0].numpy(), fires @ outputs + signs[-1])


@pytest.mark.parametrize(
    ("flip", "target", "digest"), [("one", "article", "d061016c3463e5b1"), ("all", "code", "df8ed9ddbbbe3d64")]
)
def test_the_bits_of_a_period_stay_what_they_are(flip, target, digest):
    """Published figures depend on them."""
    task = BitFlipping(seed=3, flip=flip, target=target).task(12)
    assert hashlib.sha256(task.inputs.numpy().tobytes() + task.labels.numpy().tobytes()).hexdigest()[:16] == digest


def test_laws_over_many_streams():
    streams = [BitFlipping(seed=seed, period=2) for seed in range(600)]
    starts = np.stack([stream.slow_bits(0) for stream in streams])
    assert (abs(starts.mean(axis=0) - 0.5) < 0.1).all()
    flips = np.stack([abs(stream.slow_bits(8) - stream.slow_bits(7)).argmax() for stream in streams])
    counts = np.bincount(flips, minlength=15)
    assert len(counts) == 15 and (abs(counts - 40) < 32).all(), "each bit is as likely to flip"
    signs = np.concatenate([stream._weight.ravel() for stream in streams[:50]])
    assert set(signs) == {-1, 1} and abs(signs.mean()) < 0.02


def test_the_article_has_300_periods_of_10_000():
    stream = BitFlipping()
    assert len(stream.task(299)) * 300 == 3_000_000
    assert stream.task(0).inputs.shape[1] == 20 and stream.slow == 15


def test_the_two_targets_differ():
    labels = [BitFlipping(seed=5, target=target).task(0).labels for target in ("article", "code")]
    assert not torch.equal(*labels)


@pytest.mark.parametrize("flip", ["one", "all"])
def test_a_period_is_the_same_however_it_is_reached(flip):
    by_iteration = list(itertools.islice(BitFlipping(seed=2, flip=flip, period=20), 30))
    again = BitFlipping(seed=2, flip=flip, period=20).task(29)
    assert torch.equal(by_iteration[29].inputs, again.inputs) and torch.equal(by_iteration[29].labels, again.labels)


def test_the_target_stays_while_the_bits_change():
    stream = BitFlipping(seed=4, period=2000, bits=6, slow=2)
    seen: dict[tuple[float, ...], float] = {}
    for task in itertools.islice(stream, 8):
        for x, y in zip(task.inputs.tolist(), task.labels[:, 0].tolist(), strict=True):
            assert seen.setdefault(tuple(x), y) == y
    assert len(seen) > 16, "more than one setting of the slow bits was seen"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"flip": "al"}, "flip='al' is not a way to flip: did you mean 'all'"),
        ({"target": "paper"}, "target='paper' is not a target: .*article, code"),
        ({"slow": 21}, "slow=21 is more than bits=20"),
        ({"period": 0}, "period=0 is too small"),
        ({"seed": "x"}, "seed='x' is not a whole number"),
    ],
)
def test_arguments_out_of_range(changes, message):
    with pytest.raises(ConfigError, match=message):
        BitFlipping(**changes)
