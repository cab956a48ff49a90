import hashlib
import itertools

import numpy as np
import pytest
import torch

from regrow.errors import ConfigError
from regrow.streams.permuted_images import PermutedImages
from regrow.streams.sources import load


@pytest.fixture(scope="module")
def digits():
    return load("optical-digits")


def stream_of(digits, **changes):
    return PermutedImages(digits.images, digits.labels, **{"passes": 3, "seed": 7, "white": digits.white, **changes})


def test_a_task_shows_every_image_once_a_pass(digits):
    task = stream_of(digits).task(4)
    assert task.inputs.shape == (3 * 1797, 64) and task.inputs.dtype == torch.float32
    assert task.labels.shape == (3 * 1797,) and task.labels.dtype == torch.int64
    assert len(task) == 3 * 1797 and task.index == 4
    passes = task.inputs.view(3, 1797, 64).sum(2).sort(1).values
    assert torch.equal(passes[0], passes[1]) and torch.equal(passes[0], passes[2])


def test_images_keep_their_label_and_pixels_are_permuted_alike_in_all_of_them(digits):
    stream = stream_of(digits)
    task = stream.task(2)
    draws = np.random.default_rng([7, 2])
    permutation = draws.permutation(64)
    order = np.concatenate([draws.permutation(1797) for _ in range(3)])
    expected = digits.images.reshape(1797, 64)[order][:, permutation] / np.float32(16)
    assert np.array_equal(task.inputs.numpy(), expected)
    assert np.array_equal(task.labels.numpy(), digits.labels[order])


def test_pixels_lie_between_0_and_1_and_reach_both(digits):
    inputs = stream_of(digits).task(0).inputs
    assert inputs.min() == 0 and inputs.max() == 1


def test_passes_and_tasks_differ(digits):
    stream = stream_of(digits)
    first, second = stream.task(0), stream.task(1)
    assert not torch.equal(first.labels[:1797], first.labels[1797 : 2 * 1797])
    assert not torch.equal(first.inputs.mean(0), second.inputs.mean(0))


def test_a_task_is_the_same_however_it_is_reached(digits):
    by_iteration = list(itertools.islice(stream_of(digits), 4))
    assert [task.index for task in by_iteration] == [0, 1, 2, 3]
    again = stream_of(digits).task(3)
    assert torch.equal(by_iteration[3].inputs, again.inputs) and torch.equal(by_iteration[3].labels, again.labels)


def test_the_bits_of_a_task_stay_what_they_are(digits):
    """The published figure of permuted digits depends on them."""
    task = stream_of(digits).task(4)
    digest = hashlib.sha256(task.inputs.numpy().tobytes() + task.labels.numpy().tobytes()).hexdigest()
    assert digest[:16] == "f0a55aeae4752df0"


def test_the_size_of_a_task_of_the_article():
    stream = PermutedImages(np.full((60_000, 1, 2), 255, np.uint8), np.zeros(60_000, int))
    assert len(stream.task(3)) == 60_000


@pytest.mark.parametrize("every", [500, 1797, 4000])
def test_examples_drawn_with_replacement(digits, every):
    stream = stream_of(digits, passes=1, every=every)
    task = stream.task(2)
    draws = np.random.default_rng([7, 2])
    permutation, order = draws.permutation(64), draws.integers(1797, size=every)
    expected = digits.images.reshape(1797, 64)[order][:, permutation] / np.float32(16)
    assert len(task) == every and np.array_equal(task.inputs.numpy(), expected)
    assert np.array_equal(task.labels.numpy(), digits.labels[order])
    repeated = every - len(np.unique(order))
    assert abs(repeated - (every - 1797 * (1 - np.exp(-every / 1797)))) < 60


def test_examples_drawn_as_in_the_published_code(digits):
    numbers = np.arange(20, dtype=np.uint8)[:, None]
    few, many = (
        PermutedImages(numbers, np.zeros(20, int), white=19, seed=3, every=every, drawn="shuffled").task(5)
        for every in (8, 50)
    )
    few, many = ((task.inputs[:, 0] * 19).round().int().tolist() for task in (few, many))
    assert len(set(few)) == 8 and few == many[:8], "the first of a shuffle"
    assert sorted(many[:20]) == list(range(20)) and many[20:40] == many[:20] and many[40:] == many[:10], "cycled"


@pytest.mark.parametrize("drawn", ["with_replacement", "shuffled"])
def test_a_new_permutation_comes_with_each_task_at_every_rate(digits, drawn):
    stream = stream_of(digits, passes=1, every=600, drawn=drawn)
    first, second = stream.task(0), stream.task(1)
    assert not torch.equal(first.labels, second.labels)
    ink = [task.inputs.mean(0).sort().values for task in (first, second)]
    assert (ink[0] - ink[1]).abs().max() < 0.06 and not torch.allclose(first.inputs.mean(0), second.inputs.mean(0))
    assert torch.equal(stream_of(digits, passes=1, every=600, drawn=drawn).task(1).inputs, second.inputs)


def test_another_seed_gives_another_stream(digits):
    assert not torch.equal(stream_of(digits).task(1).labels, stream_of(digits, seed=8).task(1).labels)


def test_sizes(digits):
    stream = stream_of(digits)
    assert stream.features == 64 and stream.classes == 10


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"passes": 0}, "passes=0 is too small: it must be at least 1"),
        ({"passes": 1.5}, "passes=1.5 is not a whole number"),
        ({"seed": -1}, "seed=-1 is too small"),
        ({"passes": 1, "every": 0}, "every=0 is too small"),
        ({"every": 100}, "passes=3 and every=100 are two lengths of a task: pass one of them"),
        ({"drawn": "shuffle"}, "drawn='shuffle' is not a way to draw: did you mean 'shuffled'"),
        ({"white": 15}, "pixels from 0 to 16, but white=15: pass white=16"),
        ({"white": 255}, "brightest pixel is 16 of white=255.*pass white=16"),
    ],
)
def test_arguments_out_of_range(digits, changes, message):
    with pytest.raises(ConfigError, match=message):
        stream_of(digits, **changes)


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (np.zeros((3, 4)), np.zeros(3, int), r"images is float64 \[3, 4\]: pass integers"),
        (np.zeros((0, 4), int), np.zeros(0, int), "one image or more"),
        (np.ones((3, 4), int), np.zeros(2, int), r"labels is int64 \[2\]: pass integers \[3\]"),
        (np.ones((3, 4), int), np.array([0, -1, 2]), "labels has -1: classes count from 0"),
    ],
)
def test_images_and_labels_that_do_not_fit(images, labels, message):
    with pytest.raises(ConfigError, match=message):
        PermutedImages(images, labels, white=1)


def test_a_negative_task_index(digits):
    with pytest.raises(ConfigError, match="index=-1 is too small"):
        stream_of(digits).task(-1)


@pytest.mark.parametrize("drawn", ["with_replacement", "shuffled"])
def test_a_long_task_in_stretches_keeps_its_permutation(drawn):
    pixels = np.arange(1, 10).reshape(3, 3)  # every pixel tells where it was
    images = np.stack([pixels, pixels + 10, pixels + 20, pixels + 30])
    stream = PermutedImages(images, np.arange(4), seed=3, white=39, every=6, drawn=drawn, stretches=3)
    tasks = [(39 * stream.task(index).inputs).round().int().numpy() for index in range(6)]
    places = [np.unique(task % 10, axis=0) for task in tasks]
    assert all(len(place) == 1 for place in places)
    assert [np.array_equal(place, places[0]) for place in places] == [True] * 3 + [False] * 3
    once = PermutedImages(images, np.arange(4), seed=3, white=39, every=6, drawn=drawn)
    assert torch.equal(once.task(0).inputs, stream.task(0).inputs)
    shown = np.concatenate([stream.task(index).labels for index in range(3)])
    if drawn == "shuffled":  # goes on where the stretch before has ended
        assert shown.tolist() == [*shown[:4], *shown[:4], *shown[:4], *shown[:4], *shown[:2]]
        assert sorted(shown[:4]) == [0, 1, 2, 3]
    else:
        assert len({tuple(stream.task(index).labels.tolist()) for index in range(3)}) == 3


def test_black_may_be_another_value(digits):
    plain, centred = (stream_of(digits, black=black).task(1).inputs for black in (0.0, -1.0))
    torch.testing.assert_close(centred, 2 * plain - 1)
    with pytest.raises(ConfigError, match="^black=1 must be less than 1, which is white"):
        stream_of(digits, black=1)
