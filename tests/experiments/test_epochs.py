import copy

import pytest
import torch
from torch import nn

import regrow.experiments.epochs as epochs_module
from regrow.errors import ConfigError
from regrow.experiments.checkpoint import decode, encode
from regrow.experiments.course import Pace
from regrow.measures import measure
from regrow.methods import ContinualBackprop, FullReset, HareAndTortoise, ShrinkAndPerturb
from regrow.streams.seeds import generator
from regrow.studies import ContinualImageNet, IncrementalCIFAR
from tests.experiments.epoch_study import EpochStudyOfTests, Stream, course, rows_of

CBP = ContinualBackprop(0.05, 3, weight_sums="each_step")
CIFAR = {
    "head": "grown",
    "classes": (2, 4, 6),
    "selection": "best_validation",
    "reported": "best",
    "augmentation": "train_and_test",
    "schedule": [[1, 0.2]],
    "weight_decay": 0.01,
    "measured_images": 12,
}


def accuracy(network, examples, classes):
    network.eval()
    with torch.no_grad():
        found = network(examples.inputs)[:, :classes].argmax(dim=1)
    network.train()
    return (found == examples.labels).float().mean().item()


def by_hand(seed=0, tasks=3, classes=(2, 2, 2), zeroed=False, factors=(1.0, 1.0, 1.0)):
    """What a course does, step by step: momentum, step sizes, head, order, test after the last epoch."""
    network = EpochStudyOfTests().network({"outputs": 6}, seed)
    head = network[-1]
    velocity = [torch.zeros_like(parameter) for parameter in network.parameters()]
    rows = []
    for index in range(tasks):
        task = Stream(seed, classes).task(index)
        if zeroed:
            head.weight.data.zero_()
            head.bias.data.zero_()
        for epoch, factor in enumerate(factors):
            order = generator(seed, 1000, index, epoch).permutation(14)
            right = 0
            for start in range(0, 14, 4):
                some = torch.from_numpy(order[start : start + 4])
                outputs = network(task.train.inputs[some])[:, : classes[index]]
                right += (outputs.argmax(dim=1) == task.train.labels[some]).sum().item()
                network.zero_grad()
                nn.functional.cross_entropy(outputs, task.train.labels[some]).backward()
                with torch.no_grad():
                    for parameter, memory in zip(network.parameters(), velocity, strict=True):
                        memory.mul_(0.9).add_(parameter.grad)
                        parameter -= 0.1 * factor * memory
        rows.append({"test_accuracy": accuracy(network, task.test, classes[index]), "train_accuracy": right / 14})
    return network, rows


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize(
    ("changes", "hand"),
    [
        ({}, {}),
        ({"head": "zeroed"}, {"zeroed": True}),
        ({"schedule": [[1, 0.2], [2, 0.04]]}, {"factors": (1.0, 0.2, 0.04)}),
        ({"classes": (6, 3, 4)}, {"classes": (6, 3, 4)}),
    ],
)
def test_it_equals_a_loop_by_hand(changes, hand, channels_last):
    begun = course(channels_last=channels_last, **changes)
    rows = rows_of(begun)
    network, expected = by_hand(**hand)
    for name in ("test_accuracy", "train_accuracy"):
        assert [row[name] for row in rows] == pytest.approx([row[name] for row in expected])
    assert [(row["task"], row["replacements"]) for row in rows] == [(0, 0), (1, 0), (2, 0)]
    found = begun.state_dict()["network"]
    for name, value in network.state_dict().items():
        torch.testing.assert_close(found[name].contiguous(), value, rtol=1e-3, atol=1e-5)


def test_a_task_is_learned_anew_from_another_seed():
    assert rows_of(course(seed=1)) != rows_of(course(seed=2))


class OneBatch:
    """Pieces of one batch each."""

    @pytest.fixture(autouse=True)
    def one_batch(self, monkeypatch):
        monkeypatch.setattr(Pace, "passed", lambda self, amount, seconds: setattr(self, "amount", 1))


class TestResume(OneBatch):
    @pytest.mark.parametrize(
        ("methods", "changes"),
        [
            ((), {"channels_last": True}),
            ((CBP,), {"channels_last": True, "head": "zeroed", "measured_images": 12}),
            ((ShrinkAndPerturb(0.01, 0.01), CBP), CIFAR | {"channels_last": True}),
            ((FullReset(),), CIFAR | {"memory": "cleared", "reported": "last"}),
            ((HareAndTortoise(momentum=0.5, period=5),), {"optimizer": "adam", "momentum": 0.0}),
        ],
    )
    def test_it_goes_on_from_any_place_with_the_same_bits(self, methods, changes, tmp_path, monkeypatch):
        with monkeypatch.context() as patch:
            patch.setattr(Pace, "passed", lambda self, amount, seconds: setattr(self, "amount", 1000))
            whole = course(*methods, epochs=2, **changes)
            rows = rows_of(whole, 2)
        places, again, file = [], [], tmp_path / "state"
        begun = course(*methods, epochs=2, **changes)
        while len(again) < 2:
            state = begun.state_dict()
            places.append((state["task"], state["epoch"], state["position"]))
            file.write_bytes(encode(state))
            begun = course(*methods, epochs=2, **changes)
            begun.load_state_dict(decode(file))
            row = begun.advance().row
            again += [] if row is None else [row]
        assert places == [(task, epoch, start) for task in range(2) for epoch in range(2) for start in (0, 4, 8, 12)]
        assert again == rows
        assert encode(begun.state_dict()) == encode(whole.state_dict())

    def test_the_memory_of_the_optimizer_lies_as_the_weights_do(self, tmp_path):
        begun = course(channels_last=True)
        begun.advance()
        (tmp_path / "state").write_bytes(encode(begun.state_dict()))
        again = course(channels_last=True)
        again.load_state_dict(decode(tmp_path / "state"))
        for parameter, memory in again._optimizer.state.items():
            assert memory["momentum_buffer"].stride() == parameter.stride()
        assert not next(iter(again._optimizer.state)).is_contiguous()

    def test_what_was_saved_does_not_change_when_the_run_goes_on(self):
        begun = course(CBP, **CIFAR)
        for _ in range(5):  # into the second epoch, so that something has been tested
            begun.advance()
        state = begun.state_dict()
        before = encode({name: state[name] for name in ("tested", "best", "network", "symptoms")})
        rows_of(begun, 1)
        assert encode({name: state[name] for name in ("tested", "best", "network", "symptoms")}) == before


class TestSelection(OneBatch):
    changes = {"epochs": 4, "learning_rate": 0.5}

    def epochs(self):
        """The networks of task 0 after each epoch, with what they reach in validation and test."""
        begun, networks = course(**self.changes), []
        while len(networks) < 4:
            before = begun.state_dict()["epoch"]
            row = begun.advance().row
            state = begun.state_dict()
            if row is not None or state["epoch"] > before:
                networks.append(EpochStudyOfTests().network({"outputs": 6}, 0))
                networks[-1].load_state_dict(state["network"])
        task = Stream(0).task(0)
        return networks, *(
            [accuracy(network, part, 2) for network in networks] for part in (task.validation, task.test)
        )

    def test_the_next_task_begins_with_the_first_of_the_best_in_validation(self):
        networks, valid, _ = self.epochs()
        best = valid.index(max(valid))
        assert 0 < best < 3  # else nothing would be shown
        begun = course(selection="best_validation", **self.changes)
        rows_of(begun, 1)
        found, expected = begun.state_dict(), networks[best].state_dict()
        assert any("running_mean" in name for name in expected)
        assert all(torch.equal(found["network"][name], expected[name]) for name in expected)
        assert found["optimizer"]["state"]  # that of the last epoch
        cleared = course(selection="best_validation", memory="cleared", **self.changes)
        rows_of(cleared, 1)
        assert not cleared.state_dict()["optimizer"]["state"]

    def test_of_equals_the_first_is_chosen(self):
        begun, networks = course(selection="best_validation", learning_rate=0.0, epochs=2), []
        while not networks or begun.state_dict()["task"] == 0:
            begun.advance()
            networks.append(begun.state_dict())
        ends = [each for each in networks if each["epoch"] == 1 and each["position"] == 0]
        # Nothing is learned, but the running means go on; the accuracy is that of outputs which hardly change.
        assert ends[0]["best"]["accuracy"] == networks[-2]["best"]["accuracy"]
        assert torch.equal(networks[-1]["network"]["1.running_mean"], ends[0]["network"]["1.running_mean"])

    def test_the_last_epoch_is_reported_or_the_best(self):
        _, _, tested = self.epochs()
        assert max(tested) > tested[-1]  # else nothing would be shown
        for selection in ("last", "best_validation"):
            for reported, expected in (("last", tested[-1]), ("best", max(tested))):
                (row,) = rows_of(course(selection=selection, reported=reported, **self.changes), 1)
                assert row["test_accuracy"] == pytest.approx(expected)

    def test_without_validation_images_no_epoch_can_be_chosen(self):
        with pytest.raises(ConfigError) as caught:
            course(selection="best_validation", validation=False)
        assert str(caught.value) == (
            "Task 0 has no validation images, so no epoch can be chosen by them: use selection='last'."
        )


class TestHead:
    def test_outputs_that_come_into_use_are_new(self):
        begun = course(head="grown", outputs=600, classes=(2, 500, 550), weight_decay=0.1)
        head = begun._head
        rows_of(begun, 1)
        assert not head.weight[2:].any() and not head.bias[2:].any()  # no decay, no use, no part in any utility
        for parameter in (head.weight, head.bias):
            begun._optimizer.state[parameter]["momentum_buffer"].fill_(7)
        before = head.weight.detach().clone()
        begun._begin(begun._take_task())
        assert torch.equal(head.weight[:2], before[:2])
        new = head.weight[2:500]
        assert new.std().item() == pytest.approx(1 / 4, rel=0.05) and abs(new.mean().item()) < 0.02
        assert not head.bias[2:].any() and not head.weight[500:].any()
        for parameter in (head.weight, head.bias):
            memory = begun._optimizer.state[parameter]["momentum_buffer"]
            assert not memory[2:500].any() and (memory[:2] == 7).all()

    def test_zeroed_keeps_the_momentum(self):
        begun = course(head="zeroed")
        rows_of(begun, 1)
        memory = begun._optimizer.state[begun._head.weight]["momentum_buffer"].clone()
        begun._begin(begun._take_task())
        assert not begun._head.weight.any() and not begun._head.bias.any()
        assert memory.any() and torch.equal(begun._optimizer.state[begun._head.weight]["momentum_buffer"], memory)


class Recorder:
    """Stands in for augmentation: notes what it is given, and the seed of its generator."""

    def __init__(self):
        self.images, self.seeds = [], []

    def __call__(self, images, generator):
        self.images.append(images[:, 0, 0, 0].tolist())
        self.seeds.append(generator.initial_seed())
        return images


@pytest.fixture
def recorder(monkeypatch):
    found = Recorder()
    monkeypatch.setattr(epochs_module, "augment", found)
    return found


def test_each_epoch_has_an_order_of_its_own_which_no_method_changes(recorder):
    rows_of(course(augmentation="train"))
    seen, recorder.images = recorder.images, []
    rows_of(course(CBP, ShrinkAndPerturb(0.01, 0.01), augmentation="train", head="zeroed"))
    assert recorder.images == seen
    assert [len(batch) for batch in seen] == [4, 4, 4, 2] * 9
    orders = [sum(seen[start : start + 4], []) for start in range(0, 36, 4)]
    assert all(sorted(order) == list(range(14)) for order in orders)
    assert len(set(map(tuple, orders))) == 9
    recorder.images = []
    rows_of(course(augmentation="train", seed=1))
    assert recorder.images != seen


def test_each_batch_is_augmented_by_draws_of_its_own(recorder):
    rows_of(course(augmentation="train"))
    assert len(recorder.seeds) == len(set(recorder.seeds)) == 36
    seeds, recorder.seeds = recorder.seeds, []
    rows_of(course(augmentation="train_and_test", reported="best"))
    assert len(recorder.seeds) == len(set(recorder.seeds)) == 36 + 9  # and the test images, after each epoch
    assert [seed for seed in recorder.seeds if seed in seeds] == seeds
    recorder.seeds = []
    rows_of(course())
    assert recorder.seeds == []


def test_augmented_images_are_what_is_learned_and_tested(monkeypatch):
    monkeypatch.setattr(epochs_module, "augment", lambda images, generator: torch.zeros_like(images))
    dark, usual = course(augmentation="train"), course()
    rows_of(dark, 1)
    rows_of(usual, 1)
    assert dark.state_dict()["network"]["1.running_mean"].sum() != usual.state_dict()["network"]["1.running_mean"].sum()
    (row,) = rows_of(course(augmentation="train_and_test"), 1)
    assert row["test_accuracy"] in (3 / 7, 4 / 7)  # all images alike, so all of one class


def test_methods_are_told_of_task_changes_and_weights_to_evaluate_with_are_tested():
    begun = course(HareAndTortoise(momentum=1.0, period=1000), head="kept")  # the slow copy stays as it began
    fresh = EpochStudyOfTests().network({"outputs": 6}, 0)
    for row in rows_of(begun):
        begun_with = copy.deepcopy(fresh)
        state = begun.state_dict()["network"]
        begun_with.load_state_dict({**fresh.state_dict(), **{key: state[key] for key in state if "running" in key}})
        assert row["test_accuracy"] == pytest.approx(accuracy(begun_with, Stream(0).task(row["task"]).test, 2))
    reset = course(FullReset(), learning_rate=0.0)
    rows_of(reset, 2)
    assert not torch.equal(reset.state_dict()["network"]["0.weight"], fresh[0].weight)


def test_the_network_is_measured_before_it_learns(recwarn):
    begun = course(measured_images=12)
    fresh = EpochStudyOfTests().network({"outputs": 6}, 0)
    expected = measure(fresh, Stream(0).task(0).probe).network
    first, second, _ = rows_of(begun)
    assert {name: first[name] for name in expected} == pytest.approx(expected)
    assert second["weight_magnitude"] != first["weight_magnitude"]


def updates(problem, stream):
    """How many steps of the optimizer a task takes with the epochs and batches of a problem."""

    class Study(EpochStudyOfTests):
        def stream(self, problem, seed):
            return stream

        def network(self, problem, seed):
            return nn.Sequential(nn.Flatten(), nn.Linear(192, 100))

    begun = course(study=Study(), **{name: problem[name] for name in ("epochs", "batch")})
    rows_of(begun, 1)
    return int(begun.state_dict()["attachment"]["progress"][0])


def test_the_updates_are_as_many_as_in_the_article():
    imagenet, cifar = (study().scale("paper").problem for study in (ContinualImageNet, IncrementalCIFAR))
    assert updates(imagenet, Stream(0, train=2 * imagenet["train_per_class"])) == 3000
    for increment in (1, 3):
        classes = 5 * increment
        stream = Stream(0, classes=(classes,), train=classes * cifar["train_per_class"])
        assert updates({**cifar, "epochs": 2}, stream) == 2 * 25 * increment
