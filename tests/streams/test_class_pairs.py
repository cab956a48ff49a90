import numpy as np
import pytest
import torch

from regrow.errors import ConfigError, DataError
from regrow.streams.class_pairs import ClassPairs


def images(classes=7, each=6):
    """Images [n, 2, 2, 3] whose pixels tell class and number of the image, with the classes mixed."""
    labels = np.tile(np.arange(classes), each)
    pixels = np.empty((len(labels), 2, 2, 3), np.uint8)
    pixels[..., 0], pixels[..., 1], pixels[..., 2] = (
        labels[:, None, None],
        np.repeat(np.arange(each), classes)[:, None, None],
        0,
    )
    return pixels, labels


def stream(seed=3, **changes):
    return ClassPairs(*images(), **{"train": 4, "test": 2, "seed": seed, "white": 1, **changes})


def told(inputs):
    """Class and number of each image."""
    return inputs[:, 0, 0, 0].int().tolist(), inputs[:, 1, 0, 0].int().tolist()


def test_the_first_images_are_learned_and_the_last_are_tested():
    task = stream().task(5)
    first, second = stream().pair(5)
    assert told(task.train.inputs) == ([first] * 4 + [second] * 4, [0, 1, 2, 3] * 2)
    assert told(task.test.inputs) == ([first] * 2 + [second] * 2, [4, 5] * 2)
    assert task.train.labels.tolist() == [0] * 4 + [1] * 4 and task.test.labels.tolist() == [0, 0, 1, 1]
    assert task.classes == 2 and task.validation is None


def test_it_is_measured_on_the_test_images_in_random_order():
    task = ClassPairs(*images(each=40), train=10, test=30, white=1).task(2)
    assert not torch.equal(task.probe, task.test.inputs)
    assert sorted(zip(*told(task.probe), strict=True)) == sorted(zip(*told(task.test.inputs), strict=True))
    assert len(set(told(task.probe[:20])[0])) == 2


def test_pixels_are_normalised_by_colour():
    mean, std = (0.5, 0.25, 0.1), (0.2, 0.5, 1.0)
    raw, normal = (stream(white=255, **changes).task(1).test.inputs for changes in ({}, {"mean": mean, "std": std}))
    expected = (raw - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
    torch.testing.assert_close(normal, expected)


@pytest.mark.parametrize("classes", [6, 7])
def test_every_round_has_every_class_once(classes):
    each = ClassPairs(*images(classes), train=4, test=2, seed=3)
    rounds = [[each.pair(3 * turn + place) for place in range(3)] for turn in range(4)]
    for pairs in rounds:
        seen = [name for pair in pairs for name in pair]
        assert len(set(seen)) == 6 and set(seen) <= set(range(classes))
    assert len({tuple(pairs) for pairs in rounds}) == 4
    if classes == 7:  # the one that is left out is not always the same
        assert len({next(iter(set(range(7)) - {name for pair in pairs for name in pair})) for pairs in rounds}) > 1


def test_a_task_depends_on_its_seed_and_number_alone():
    one, two = stream(), stream()
    for _ in range(4):
        next(iter(one))
    assert torch.equal(one.task(9).train.inputs, two.task(9).train.inputs)
    assert [stream(4).pair(index) for index in range(9)] != [one.pair(index) for index in range(9)]


def test_counts_at_the_size_of_the_article():
    pixels, labels = np.zeros((2 * 700, 1, 1), np.uint8), np.repeat([0, 1], 700)
    task = ClassPairs(pixels, labels).task(0)
    assert (len(task.train), len(task.test)) == (1200, 200)
    assert len(task.train) // 100 * 250 == 3000  # updates of a task


def test_a_test_part_of_its_own():
    train, test = images(each=5), images(each=3)
    task = ClassPairs(*train, 5, 2, 0, *test, white=1).task(0)
    assert told(task.train.inputs)[1] == [0, 1, 2, 3, 4] * 2 and told(task.test.inputs)[1] == [0, 1] * 2


def test_too_few_images_are_named():
    pixels, labels = images()
    with pytest.raises(DataError, match=r"^Class 0 has 6 images, and 8 of each class are needed: take fewer"):
        ClassPairs(pixels, labels, 6, 2)
    some = labels != 3
    with pytest.raises(DataError, match=r"^Class 3 has 0 images, and 6 of each class are needed"):
        ClassPairs(pixels[some], labels[some], 4, 2)
    with pytest.raises(DataError, match=r"^There are test images of 5 classes and training images of 7"):
        ClassPairs(*images(7), 4, 2, 0, *images(5))


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.zeros(3, np.int64), r"^labels is int64 \[3\]: there must be integers \[42\], one an image"),
        (np.zeros(42, np.float32), r"^labels is float32 \[42\]: there must be integers"),
        (np.full(42, -1), r"^labels has -1: classes count from 0"),
    ],
)
def test_labels_that_do_not_fit(labels, message):
    with pytest.raises(DataError, match=message):
        ClassPairs(images()[0], labels, 4, 2)


def test_bad_settings():
    with pytest.raises(DataError, match=r"^images is float64 \[42\], but must be \[n, height, width\]"):
        ClassPairs(np.zeros(42), np.zeros(42, np.int64))
    with pytest.raises(ConfigError, match=r"^train=0 is too small"):
        stream(train=0)
