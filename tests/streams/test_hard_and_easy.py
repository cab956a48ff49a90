import numpy as np
import pytest
import torch

from regrow.errors import ConfigError, DataError
from regrow.streams import HardAndEasy
from tests.streams.test_class_pairs import images, told


def stream(classes=9, **changes):
    settings = {"hard": 3, "easy": 1, "seed": 2, "mean": None, "std": None, "white": 1, **changes}
    return HardAndEasy(*images(classes, each=5), *images(classes, each=2), **settings)


def test_hard_and_easy_take_turns_and_each_class_comes_once():
    each = stream()
    assert each.tasks == 4
    names = [set(told(task.train.inputs)[0]) for task in each]
    assert [len(some) for some in names] == [3, 1, 3, 1]
    assert len(set.union(*names)) == 8
    for task in each:
        assert told(task.train.inputs)[1] == [0, 1, 2, 3, 4] * (1 if task.index % 2 else 3)
        assert set(told(task.test.inputs)[0]) == names[task.index]
        assert task.classes == 9 and task.validation is None
        for part in (task.train, task.test):  # a class has the label of its place in the order
            assert [each.order[label] for label in part.labels] == told(part.inputs)[0]


def test_a_last_hard_task_needs_no_easy_one_after_it():
    assert stream(classes=11).tasks == 5 and stream(classes=10).tasks == 4


def test_it_is_measured_on_its_training_images_in_random_order():
    task = stream().task(2)
    assert sorted(zip(*told(task.probe), strict=True)) == sorted(zip(*told(task.train.inputs), strict=True))
    assert not torch.equal(task.probe, task.train.inputs)


def test_a_task_depends_on_its_seed_and_number_alone():
    one = stream()
    list(one)
    assert torch.equal(one.task(2).probe, stream().task(2).probe)
    assert stream(seed=3).order.tolist() != one.order.tolist()


def test_counts_at_the_size_of_the_source():
    pixels, labels = np.zeros((100 * 500, 1, 1), np.uint8), np.repeat(np.arange(100), 500)
    each = HardAndEasy(pixels, labels, pixels[::5], labels[::5], mean=None, std=None)
    assert each.tasks == 32
    assert [len(each.task(index).train) for index in (0, 1, 30)] == [2500, 500, 2500]
    assert [len(each.task(index).test) for index in (0, 1)] == [500, 100]


def test_bad_settings():
    with pytest.raises(ConfigError, match="^index=4 is beyond the last of 4 tasks"):
        stream().task(4)
    with pytest.raises(DataError, match="^There are 9 classes, fewer than hard=10 of them"):
        stream(hard=10)
    with pytest.raises(ConfigError, match="easy=0 is too small"):
        stream(easy=0)
