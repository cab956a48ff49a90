"""What holds of every stream: a task depends on the seed and its index, and on nothing else."""

import dataclasses

import numpy as np
import pytest
import torch

from regrow import streams
from regrow.errors import ConfigError
from regrow.streams.generated_images import generated_images
from regrow.streams.task import Examples


@pytest.fixture(scope="module", params=["in memory", "mapped from a file"])
def parts(request, tmp_path_factory):
    """Training and test images with their labels."""
    arrays = [array for split in ("train", "test") for array in generated_images(split)]
    if request.param == "in memory":
        return arrays
    folder = tmp_path_factory.mktemp("mapped")
    for place, array in enumerate(arrays):
        np.save(folder / f"{place}.npy", array)
    return [np.load(folder / f"{place}.npy", mmap_mode="r") for place in range(4)]


def pairs(parts, seed):
    return streams.ClassPairs(*parts[:2], 20, 10, seed)


def permuted(parts, seed):
    return streams.PermutedImages(*parts[:2], 2, seed)


MAKE = {
    "bit flipping, one": lambda parts, seed: streams.BitFlipping(seed, period=200),
    "bit flipping, all": lambda parts, seed: streams.BitFlipping(seed, "all", "code", period=200),
    "permuted": permuted,
    "permuted, at a rate": lambda parts, seed: streams.PermutedImages(*parts[:2], seed=seed, every=300),
    "class pairs": pairs,
    "class pairs, with a test part": lambda parts, seed: streams.ClassPairs(*parts[:2], 20, 10, seed, *parts[2:]),
    "class incremental": lambda parts, seed: streams.ClassIncremental(*parts, 4, 5, seed),
    "hard and easy": lambda parts, seed: streams.HardAndEasy(*parts, 5, 1, seed),
    "random labels": lambda parts, seed: streams.RandomLabels(*parts[:2], 100, 5, seed),
    "gradual": lambda parts, seed: streams.Gradual(permuted(parts, seed), 100, seed),
    "gradual pairs": lambda parts, seed: streams.GradualSplit(pairs(parts, seed), 2, seed),
    "noisy": lambda parts, seed: streams.NoisyLabels(permuted(parts, seed), 0.2, 20, seed),
    "noisy pairs": lambda parts, seed: streams.NoisyLabels(pairs(parts, seed), 0.2, seed=seed),
}
every_stream = pytest.mark.parametrize("make", MAKE.values(), ids=MAKE)


def content(task):
    """All bytes of a task."""
    found = []
    for item in dataclasses.fields(task):
        value = getattr(task, item.name)
        if isinstance(value, Examples):
            found += [value.inputs, value.labels]
        elif isinstance(value, torch.Tensor):
            found.append(value)
    return [(part.dtype, tuple(part.shape), part.numpy().tobytes()) for part in found]


@every_stream
def test_a_task_is_the_same_whatever_was_asked_for_before(make, parts):
    one, other = make(parts, 5), make(parts, 5)
    forwards = [content(one.task(index)) for index in range(4)]
    backwards = [content(other.task(index)) for index in (3, 2, 1, 0)]
    assert forwards == backwards[::-1]
    assert content(one.task(2)) == forwards[2]
    assert forwards[1] != forwards[2]
    assert [one.task(index).index for index in range(4)] == [0, 1, 2, 3]


@every_stream
def test_another_seed_gives_other_tasks(make, parts):
    contents = [content(make(parts, seed).task(1)) for seed in range(4)]
    assert all(contents[one] != contents[other] for one in range(4) for other in range(one))


@every_stream
def test_what_a_method_draws_and_what_a_stream_draws_are_apart(make, parts):
    """Methods and networks may use the global generators: they neither change a stream nor are changed by it."""
    torch.manual_seed(1)
    np.random.seed(1)
    before = content(make(parts, 5).task(2))
    assert torch.rand(1) == torch.rand(1, generator=torch.Generator().manual_seed(1))
    assert np.random.random() == np.random.RandomState(1).random()
    torch.manual_seed(2)
    np.random.seed(2)
    assert content(make(parts, 5).task(2)) == before


@every_stream
def test_a_task_is_for_its_taker_to_change(make, parts):
    stream = make(parts, 5)
    task = stream.task(1)
    before = content(task)
    for inputs in [task.inputs] if isinstance(task, streams.Task) else [task.test.inputs, task.train.inputs]:
        inputs += 0  # a mapped file would refuse
    assert content(stream.task(1)) == before


@every_stream
def test_a_negative_index(make, parts):
    with pytest.raises(ConfigError, match="index=-1 is too small: it must be at least 0"):
        make(parts, 5).task(-1)


def test_a_class_without_images_is_named(parts):
    some = parts[1] != 4
    for make in (pairs, MAKE["class incremental"], MAKE["hard and easy"]):
        with pytest.raises(Exception, match="Class 4 has 0 images, and [0-9]+ of each class are needed"):
            make([parts[0][some], parts[1][some], *parts[2:]], 0)


def test_floats_are_taken_as_they_are(parts):
    values = parts[0].astype(np.float32) / 128 - 1
    task = streams.ClassPairs(values, parts[1], 20, 10, white=1).task(0)
    whole = streams.ClassPairs(*parts[:2], 20, 10, white=1).task(0)
    assert torch.equal(task.train.inputs, whole.train.inputs / 128 - 1)
