import numpy as np
import pytest
import torch

from regrow.errors import ConfigError
from regrow.streams import BitFlipping, ClassIncremental, ClassPairs, Gradual, GradualSplit, NoisyLabels, PermutedImages
from regrow.streams.sources import load
from regrow.streams.task import Examples, SplitTask, Task
from tests.streams.test_class_pairs import images, told


class Numbered:
    """Task t has inputs t and labels 0, 1, 2, 0, ..."""

    def __init__(self, count=1000):
        self.count = count

    def task(self, index):
        return Task(index, torch.full((self.count, 1), float(index)), torch.arange(self.count) % 3)


def same(one, other):
    parts = [(one.inputs, other.inputs), (one.labels, other.labels)]
    return one.index == other.index and all(torch.equal(*pair) for pair in parts)


def test_a_gradual_change_falls_linearly_and_then_is_over():
    old = torch.stack([Gradual(Numbered(), 400, seed).task(3).inputs[:, 0] == 2 for seed in range(400)])
    share = old.float().mean(dim=0)
    assert share[0] == 1 and not share[400:].any()
    expected = 1 - torch.arange(400) / 400
    assert (share[:400] - expected).abs().max() < 5 * (0.25 / 400) ** 0.5
    assert abs(share.sum() - 200.5) < 3


def test_old_examples_keep_their_place_and_their_label():
    digits = load("optical-digits")
    stream = PermutedImages(digits.images, digits.labels, seed=1, white=16)
    before, after = stream.task(4), stream.task(5)
    mixed = Gradual(stream, 1000, seed=1).task(5)
    olds = 0
    for place, (image, label) in enumerate(zip(mixed.inputs, mixed.labels, strict=True)):
        old = place < 1000 and torch.equal(image, before.inputs[place])
        source = before if old else after
        assert torch.equal(image, source.inputs[place]) and label == source.labels[place]
        olds += old
    assert 430 < olds < 570 and same(after, stream.task(5))


@pytest.mark.parametrize("index", [0, 1, 7])
def test_no_passage_and_the_first_task_change_nothing(index):
    stream = BitFlipping(seed=2, period=50)
    assert same(Gradual(stream, 0).task(index), stream.task(index))
    assert same(Gradual(stream, 50).task(0), stream.task(0))


def test_a_gradual_change_of_the_slow_bits():
    stream = BitFlipping(seed=2, period=500)
    slow = Gradual(stream, 500).task(1).inputs[:, :15].numpy()
    laws = [stream.slow_bits(index) for index in (0, 1)]
    which = [next(law for law in (0, 1) if np.array_equal(bits, laws[law])) for bits in slow]
    assert 200 < sum(which) < 300 and sum(which[:100]) < 25 and sum(which[-100:]) > 75


def test_options_depend_on_seed_and_index_alone():
    def make(seed):
        return NoisyLabels(Gradual(Numbered(), 300, seed), 0.2, 3, seed)

    stream = make(1)
    for index in (5, 0, 2):
        stream.task(index)
    assert same(stream.task(3), make(1).task(3))
    assert not torch.equal(make(2).task(3).inputs, make(1).task(3).inputs)
    assert not torch.equal(make(2).task(3).labels, make(1).task(3).labels)


def test_a_passage_that_is_too_long():
    with pytest.raises(ConfigError, match="^Gradual.length=21 is longer than a task of 20 examples"):
        Gradual(Numbered(20), 21).task(1)
    with pytest.raises(ConfigError, match="length=-1 is too small"):
        Gradual(Numbered(20), -1)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 1.0])
def test_so_many_labels_are_wrong_and_others_equally_likely(share):
    right = Numbered(6000).task(2)
    noisy = NoisyLabels(Numbered(6000), share, classes=3, seed=4).task(2)
    wrong = noisy.labels != right.labels
    assert wrong.sum() == round(share * 6000) and torch.equal(noisy.inputs, right.inputs)
    assert set(noisy.labels.tolist()) <= {0, 1, 2}
    if share:
        steps = torch.bincount(((noisy.labels - right.labels) % 3)[wrong], minlength=3)
        assert (steps[1:] - share * 3000).abs().max() < 5 * (share * 1500) ** 0.5


def test_only_labels_to_be_learned_are_wrong():
    stream = ClassIncremental(*images(6), *images(6), increment=2, validation=2, mean=None, std=None)
    right, noisy = stream.task(2), NoisyLabels(stream, 0.5, seed=1).task(2)
    assert (noisy.train.labels != right.train.labels).sum() == 12 and noisy.train.labels.max() < 6
    assert torch.equal(noisy.test.labels, right.test.labels) and torch.equal(noisy.train.inputs, right.train.inputs)
    assert torch.equal(noisy.validation.labels, right.validation.labels)


def test_noise_that_cannot_be():
    with pytest.raises(ConfigError, match=r"^NoisyLabels.share=1.5 is not a share: it must lie between 0 and 1"):
        NoisyLabels(Numbered(), 1.5, 3)
    with pytest.raises(ConfigError, match="^NoisyLabels.classes is None, but online tasks do not say"):
        NoisyLabels(Numbered(), 0.5).task(0)
    with pytest.raises(ConfigError, match="^The labels of task 1 are torch.float32 up to .*classes below 5"):
        NoisyLabels(BitFlipping(period=5), 0.5, 5).task(1)
    with pytest.raises(
        ConfigError, match="^The labels of task 0 are torch.int64 up to 2: they must be classes below 2"
    ):
        NoisyLabels(Numbered(), 0.5, 2).task(0)


def test_mixed_tasks_between_tasks():
    stream = ClassPairs(*images(8, each=30), train=20, test=10, white=1)
    gradual = GradualSplit(stream, between=3, seed=1)
    old, new = stream.task(1), stream.task(2)
    assert torch.equal(gradual.task(4).train.inputs, old.train.inputs) and gradual.task(4).index == 4
    assert torch.equal(gradual.task(8).train.inputs, new.train.inputs)
    before = torch.zeros(40, dtype=torch.bool)
    for part in (1, 2, 3):
        task = gradual.task(4 + part)
        fresh = (task.train.inputs == new.train.inputs).flatten(1).all(dim=1)
        stale = (task.train.inputs == old.train.inputs).flatten(1).all(dim=1)
        assert task.index == 4 + part and fresh.sum() == 10 * part and (fresh ^ stale).all()
        assert fresh[before].all(), "what has changed stays so"
        assert torch.equal(task.test.inputs, new.test.inputs) and torch.equal(task.probe, new.probe)
        assert torch.equal(task.train.labels, new.train.labels)
        before = fresh
    assert set(told(stream.task(1).train.inputs)[0]) & set(told(stream.task(2).train.inputs)[0]) == set()
    assert torch.equal(GradualSplit(stream, 0).task(2).train.inputs, new.train.inputs)


def test_tasks_that_cannot_be_mixed():
    stream = ClassIncremental(*images(6), *images(6), increment=2, validation=2, mean=None, std=None)
    with pytest.raises(ConfigError, match="^Tasks 0 and 1 have 8 and 16 training examples of 2 and 4 classes"):
        GradualSplit(stream, 1).task(1)


def test_options_of_epochs_go_around_each_other():
    stream = NoisyLabels(GradualSplit(ClassPairs(*images(8), train=4, test=2, white=1), 1), 0.25)
    task = stream.task(1)
    assert isinstance(task, SplitTask) and isinstance(task.train, Examples)
    assert (task.train.labels != torch.tensor([0] * 4 + [1] * 4)).sum() == 2
