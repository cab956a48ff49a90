import numpy as np
import pytest
import torch

from regrow.errors import ConfigError, DataError
from regrow.streams.class_incremental import CIFAR_MEAN, CIFAR_STD, ClassIncremental
from tests.streams.test_class_pairs import images, told


def stream(seed=3, classes=7, **changes):
    settings = {"increment": 2, "validation": 2, "seed": seed, "mean": None, "std": None, "white": 1, **changes}
    return ClassIncremental(*images(classes, each=6), *images(classes, each=3), **settings)


def test_a_task_has_all_classes_so_far():
    each = stream()
    assert each.tasks == 3 and sorted(each.order) == list(range(7))
    for index in range(3):
        task, known = each.task(index), each.order[: 2 * index + 2].tolist()
        assert task.classes == len(known)
        assert told(task.train.inputs) == ([name for name in known for _ in range(4)], [2, 3, 4, 5] * len(known))
        assert task.validation is not None
        assert told(task.validation.inputs) == ([name for name in known for _ in range(2)], [0, 1] * len(known))
        assert told(task.test.inputs) == ([name for name in known for _ in range(3)], [0, 1, 2] * len(known))
        for part in (task.train, task.validation, task.test):  # a class has the label of its place in the order
            assert [known[label] for label in part.labels] == told(part.inputs)[0]


def test_it_is_measured_on_the_new_classes_in_random_order():
    each = stream()
    names, numbers = told(each.task(1).probe)
    assert sorted(zip(names, numbers, strict=True)) == sorted(
        (name, number) for name in each.order[2:4] for number in (2, 3, 4, 5)
    )
    assert names != sorted(names) and names != sorted(names, reverse=True)


def test_it_can_be_measured_on_validation_images_too_as_in_the_published_code():
    names, numbers = told(stream(probed="train_and_validation").task(1).probe)
    assert sorted(zip(names, numbers, strict=True)) == sorted(
        (name, number) for name in stream().order[2:4] for number in range(6)
    )


def test_a_task_depends_on_its_seed_and_number_alone():
    assert torch.equal(stream().task(2).probe, stream().task(2).probe)
    assert stream(4).order.tolist() != stream(3).order.tolist()


def test_pixels_are_normalised_by_colour():
    raw = stream(white=255).task(0).train.inputs
    normal = stream(white=255, mean=CIFAR_MEAN, std=CIFAR_STD).task(0).train.inputs
    torch.testing.assert_close(
        normal, (raw - torch.tensor(CIFAR_MEAN)[:, None, None]) / torch.tensor(CIFAR_STD)[:, None, None]
    )


def test_counts_at_the_size_of_the_article():
    pixels, labels = np.zeros((100 * 500, 1, 1), np.uint8), np.repeat(np.arange(100), 500)
    each = ClassIncremental(pixels, labels, pixels[::5], labels[::5], mean=None, std=None)
    assert each.tasks == 20
    sizes = [-(-len(each.task(index).train) // 90) for index in (0, 1, 19)]
    assert sizes == [25, 50, 500]  # updates of an epoch
    assert 200 * sum(25 * (index + 1) for index in range(20)) == 1_050_000
    assert len(each.task(0).test) == 500 and len(each.task(0).probe) == 2250


def test_without_validation_there_is_none():
    task = stream(validation=0).task(0)
    assert task.validation is None and len(task.train) == 12


def test_bad_settings():
    with pytest.raises(ConfigError, match="^index=3 is beyond the last of 3 increments"):
        stream().task(3)
    with pytest.raises(DataError, match="^Class 0 has 6 images, and 7 of each class are needed"):
        stream(validation=6)
    with pytest.raises(DataError, match="^There are 7 classes, fewer than increment=8 of them"):
        stream(increment=8)
    with pytest.raises(ConfigError, match="^probed='test' is not a choice of images: .*train, train_and_validation"):
        stream(probed="test")
