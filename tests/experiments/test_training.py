"""Mini-batches, other losses and optimizers, and what the methods are told of tasks."""

import numpy as np
import pytest
import torch
from torch import nn

import regrow.experiments.run as run_module
from regrow.engines.learner import PlainLearner, build_learner
from regrow.engines.training import OUTCOMES, Training, outcome_among
from regrow.errors import ConfigError
from regrow.experiments.checkpoint import decode, encode
from regrow.experiments.run import run
from regrow.experiments.store import RunFolder
from regrow.methods import DASH, FIRE, Backprop, ContinualBackprop, FullReset
from regrow.networks.mlp import MLP
from regrow.studies import BitFlippingStudy

ADAM = Training("squared_error", 16, "adam")


def classes(count=40):
    generator = torch.Generator().manual_seed(0)
    return torch.rand(count, 6, generator=generator), torch.randint(3, (count,), generator=generator)


def values(count=40):
    generator = torch.Generator().manual_seed(0)
    return torch.rand(count, 6, generator=generator), torch.randn(count, 1, generator=generator)


def network(outputs=3, seed=0):
    torch.manual_seed(seed)
    return MLP(6, [8, 8], outputs)


def parameters(learner):
    return [parameter.detach().clone() for parameter in learner.network().parameters()]


def same(left, right):
    return all(torch.equal(one, two) for one, two in zip(left, right, strict=True))


def test_mini_batches_equal_a_loop_by_hand():
    inputs, labels = classes(37)  # the last batch has 5
    by_hand = network()
    optimizer, right = torch.optim.SGD(by_hand.parameters(), lr=0.1), []
    for start in (0, 16, 32):
        some, their = inputs[start : start + 16], labels[start : start + 16]
        logits = by_hand(some)
        right += (logits.argmax(1) == their).tolist()
        optimizer.zero_grad()
        nn.functional.cross_entropy(logits, their).backward()
        optimizer.step()
    learner = PlainLearner(network(), 0.1, [Backprop()], training=Training(batch=16))
    assert learner.learn(inputs, labels).tolist() == right
    assert same(parameters(learner), by_hand.parameters())


def test_a_regression_step_computed_by_hand():
    x, y = np.array([[1.0, -2.0], [0.5, 1.0]]), np.array([[0.3], [-1.0]])
    weight, bias = np.array([[0.4, -0.2]]), np.array([0.1])
    linear = nn.Linear(2, 1)
    with torch.no_grad():
        linear.weight.copy_(torch.tensor(weight))
        linear.bias.copy_(torch.tensor(bias))
    learner = PlainLearner(nn.Sequential(linear), 0.05, [Backprop()], training=Training("squared_error", batch=2))
    errors = learner.learn(torch.tensor(x).float(), torch.tensor(y).float())
    difference = x @ weight.T + bias - y
    np.testing.assert_allclose(errors, difference[:, 0] ** 2, rtol=1e-6)
    # The gradient of the mean square is 2·e·x, averaged over the batch.
    np.testing.assert_allclose(linear.weight.detach(), weight - 0.05 * (2 * difference * x).mean(0), rtol=1e-6)
    np.testing.assert_allclose(linear.bias.detach(), bias - 0.05 * (2 * difference).mean(0), rtol=1e-6)


def test_adam_is_the_one_of_torch():
    inputs, labels = values(16)
    by_hand = network(1)
    optimizer = torch.optim.Adam(by_hand.parameters(), lr=0.03)
    for _ in range(3):
        optimizer.zero_grad()
        nn.functional.mse_loss(by_hand(inputs), labels).backward()
        optimizer.step()
    learner = PlainLearner(network(1), 0.03, [Backprop()], training=ADAM)
    for _ in range(3):
        learner.learn(inputs, labels)
    for one, two in zip(parameters(learner), by_hand.parameters(), strict=True):
        torch.testing.assert_close(one, two)


@pytest.mark.parametrize("method", [ContinualBackprop(0.1, 1), FIRE(), DASH()])
def test_adam_goes_on_with_the_same_bits(method, tmp_path):
    inputs, labels = values(80)

    def learner(seed):
        return PlainLearner(network(1, seed), 0.03, [method], "kaiming_uniform", 5, ADAM, inputs[:2])

    first, second = learner(0), learner(1)
    first.learn(inputs, labels)
    (tmp_path / "state").write_bytes(encode(first.state_dict()))
    second.load_state_dict(decode(tmp_path / "state"))
    judged = []
    for each in (first, second):  # told of a task before any example, as a run that is taken up again
        each.task_changed(inputs, labels)
        judged.append(each.learn(inputs.flip(0), labels.flip(0)))
    assert torch.equal(*judged)
    assert same(parameters(first), parameters(second))
    assert encode(first.state_dict()) == encode(second.state_dict())


def test_a_task_change_is_told_with_the_losses_of_the_new_task(monkeypatch):
    inputs, labels = classes(37)
    learner = PlainLearner(network(), 0.1, [Backprop()], training=Training(batch=16))
    learner.learn(inputs, labels)
    told = []
    monkeypatch.setattr(learner._plastic, "task_changed", lambda losses: told.extend(losses))
    before = parameters(learner)
    learner.task_changed(inputs, labels)
    expected = [
        nn.functional.cross_entropy(learner.network()(inputs[start : start + 16]), labels[start : start + 16])
        for start in (0, 16, 32)
    ]
    assert [loss.item() for loss in told] == [loss.item() for loss in expected]
    assert all(loss.requires_grad for loss in told)
    assert same(parameters(learner), before)


def test_a_full_reset_begins_anew_when_a_task_does():
    inputs, labels = classes()
    learner = PlainLearner(network(), 0.1, [FullReset()], training=Training(batch=4))
    first = parameters(learner)
    learner.learn(inputs, labels)
    learner.task_changed(inputs, labels)
    fresh = parameters(learner)
    assert not any(torch.equal(one, two) for one, two in zip(first[::2], fresh[::2], strict=True))
    assert all(not bias.any() for bias in fresh[1::2])
    for one, two in zip(first[::2], fresh[::2], strict=True):
        assert 0.6 < two.std() / one.std() < 1.6


def test_a_run_tells_of_each_task_but_the_first(tmp_path, monkeypatch, process_settings):
    (spec,) = BitFlippingStudy().specs("smoke", [0], ["full-reset"])
    told, learned = [], []
    for name, kept in (("task_changed", told), ("learn", learned)):
        original = getattr(PlainLearner, name)

        def spy(self, inputs, labels, original=original, kept=kept):
            kept.append(inputs[:, :15].sum().item())
            return original(self, inputs, labels)

        monkeypatch.setattr(PlainLearner, name, spy)
    monkeypatch.setattr(run_module, "_checkpoint_due", lambda task, passed, cost: True)
    folder = RunFolder.create(tmp_path, spec)
    run(folder)
    assert len(learned) == 4 and told == learned[1:]


def test_the_fused_engine_leaves_it_to_the_plain_one():
    assert build_learner(network(), 0.1, [Backprop()], training=Training(batch=2)).engine == "plain"
    for training in (Training(), Training("squared_error"), Training(optimizer="adam")):
        assert build_learner(network(), 0.1, [Backprop()], training=training).engine == "fused"


def test_what_a_problem_does_not_say_has_its_default():
    assert Training.of({"tasks": 3}) == Training("cross_entropy", 1, "sgd")
    assert Training.of({"batch": 16, "optimizer": "adam", "loss": "squared_error"}) == ADAM


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"loss": "squared"}, "^Training.loss cannot be 'squared'; .*squared_error"),
        ({"optimizer": "adamw"}, "^Training.optimizer cannot be 'adamw'; .*adam"),
        ({"batch": 0}, "^Training.batch must be a whole number of at least 1, but is 0"),
        ({"momentum": 1.0}, r"^Training.momentum must lie in \[0, 1\), .* but is 1.0 with sgd"),
        ({"momentum": 0.9, "optimizer": "adam"}, "^Training.momentum .* be 0 unless the optimizer is sgd, but is 0.9"),
        ({"weight_decay": -0.1}, "^Training.weight_decay must be at least 0, but is -0.1"),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(ConfigError, match=message):
        Training(**settings)


def test_outcomes_know_their_direction_and_unit():
    accuracy, error = OUTCOMES["cross_entropy"], OUTCOMES["squared_error"]
    assert (accuracy.text(0.8764), error.text(1.234)) == ("87.6 %", "1.23")
    assert (accuracy.number(-0.01, "+"), error.number(0.5, "+")) == ("−1.0", "+0.50")
    assert (accuracy.gain(-0.2), error.gain(-0.2)) == (-0.2, 0.2)
    assert outcome_among(["task", "squared_error"]) is error
    assert outcome_among(["task"]) is accuracy


def test_momentum_and_weight_decay_are_those_of_torch():
    inputs, labels = classes(8)
    by_hand = network()
    optimizer = torch.optim.SGD(by_hand.parameters(), lr=0.1, momentum=0.9, weight_decay=0.05)
    for _ in range(3):
        optimizer.zero_grad()
        nn.functional.cross_entropy(by_hand(inputs), labels).backward()
        optimizer.step()
    training = Training.of({"batch": 8, "momentum": 0.9, "weight_decay": 0.05})
    learner = PlainLearner(network(), 0.1, [Backprop()], training=training)
    for _ in range(3):
        learner.learn(inputs, labels)
    assert same(parameters(learner), by_hand.parameters())
