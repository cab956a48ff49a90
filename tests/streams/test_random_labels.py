import numpy as np
import pytest
import torch

from regrow.errors import ConfigError, DataError
from regrow.streams import RandomLabels
from regrow.streams.sources import load


@pytest.fixture(scope="module")
def digits():
    return load("optical-digits")


def test_the_same_images_under_ever_new_labels(digits):
    stream = RandomLabels(digits.images, digits.labels, white=16)
    first, later = stream.task(0), stream.task(7)
    assert first.train.inputs.shape == (1200, 1, 8, 8) and first.train.labels.dtype == torch.int64
    assert torch.equal(first.train.inputs, later.train.inputs)
    assert 0.05 < (first.train.labels == later.train.labels).float().mean() < 0.15
    counts = torch.bincount(torch.cat([stream.task(index).train.labels for index in range(20)]))
    assert len(counts) == 10 and (counts - 2400).abs().max() < 5 * 2400**0.5
    assert first.test is first.train and first.validation is None and first.classes == 10
    assert first.probe is first.train.inputs


def test_labels_have_nothing_to_do_with_the_image(digits):
    labels = RandomLabels(digits.images, digits.labels, count=1797, white=16).task(3).train.labels
    rows = np.random.default_rng([0, 0]).choice(1797, size=1797, replace=False)
    assert 0.07 < (labels.numpy() == digits.labels[rows]).mean() < 0.13


def test_images_are_chosen_once_without_repeats(digits):
    numbers = np.arange(50, dtype=np.uint8)[:, None, None]
    chosen = RandomLabels(numbers, np.zeros(50, int), count=30, white=1, seed=5).task(0).train.inputs.flatten()
    assert len(chosen.unique()) == 30
    other = RandomLabels(numbers, np.zeros(50, int), count=30, white=1, seed=6).task(0).train.inputs.flatten()
    assert not torch.equal(chosen, other)


def test_counts_at_the_size_of_the_source(digits):
    assert len(RandomLabels(digits.images, digits.labels, white=16).task(0).train) // 16 * 400 == 30_000


def test_bad_settings(digits):
    with pytest.raises(DataError, match="^There are 1797 images, and count=1800 are needed: take fewer"):
        RandomLabels(digits.images, digits.labels, count=1800)
    with pytest.raises(ConfigError, match="classes=1 is too small: it must be at least 2"):
        RandomLabels(digits.images, digits.labels, classes=1)
