"""Time that passes as fast as weights can move: `attach(..., time="step_sizes")`."""

import math

import pytest
import torch
from torch import nn
from transformers.optimization import Adafactor

import regrow
from regrow.attachment.attachment import Attachment
from regrow.errors import ConfigError, StateError
from regrow.methods import L2, UnitMethod
from tests.attachment.training import batch, make_network, same, train
from tests.conformance.cases import brisk, every_method

BRISK = regrow.ContinualBackprop(0.05, 3)
HALVING = (1.0, 1.0, 0.5, 0.5, 0.25, 0.25, 0.25, 0.25, 0.0, 0.0)  # exact in binary
WHOLE = (1, 2, 2, 3, 3, 3, 3, 4, 4, 4)  # of the sums of these


def _attached(time: str = "step_sizes", method: object = BRISK) -> tuple[nn.Module, torch.optim.SGD, Attachment]:
    model = make_network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    return model, optimizer, regrow.attach(model, optimizer, method, example=batch(0)[0], time=time)


def _train_at(model: nn.Module, optimizer: torch.optim.Optimizer, shares: tuple[float, ...], start: int = 0) -> None:
    for number, share in enumerate(shares, start):
        optimizer.param_groups[0]["lr"] = 0.125 * share
        train(model, optimizer, 1, number)


@every_method(lambda method: isinstance(method, UnitMethod))
def test_steps_of_one_size_are_steps(method: str) -> None:
    runs = []
    for time in ("steps", "step_sizes"):
        model, optimizer, plastic = _attached(time, brisk(method))
        train(model, optimizer, 60)
        runs.append((model, plastic))
    (plain, expected), (model, plastic) = runs
    assert same(model, plain) and plastic.events == expected.events != []


def test_a_unit_is_as_old_as_the_sum_of_step_sizes() -> None:
    model, optimizer, plastic = _attached(method=regrow.ContinualBackprop(0.0))
    ages = []
    for number, share in enumerate(HALVING):
        _train_at(model, optimizer, (share,), number)
        ages.append(plastic.state_of("0")["age"].unique().tolist())
    assert ages == [[age] for age in WHOLE]
    assert plastic.metrics()["steps"] == len(HALVING)


def test_steps_that_grow_count_as_whole_ones() -> None:
    model, optimizer, plastic = _attached(method=regrow.ContinualBackprop(0.0))
    _train_at(model, optimizer, (0.0, 0.125, 0.25, 0.5, 1.0))
    assert plastic.state_of("0")["age"].unique().tolist() == [4], "the first has no size"


def test_the_running_means_are_those_of_the_steps_that_count() -> None:
    model, optimizer, plastic = _attached(method=regrow.ContinualBackprop(0.0, decay_rate=0.5))
    seen = []
    model[1].register_forward_hook(lambda module, args, output: seen.append(output.detach().abs().mean(dim=0)))
    _train_at(model, optimizer, (1.0, 0.5, 0.5, 0.25))
    expected = 0.5 * (0.5 * seen[0]) + 0.5 * seen[2]
    torch.testing.assert_close(plastic.state_of("0")["activation"][0], expected)


def test_where_the_step_size_falls_to_0_new_units_are_not_replaced_again() -> None:
    """Under a cosine: units that came of age without having grown are what `time="steps"` picks, over and over."""
    found = {}
    for time in ("steps", "step_sizes"):
        model, optimizer, plastic = _attached(time, regrow.ContinualBackprop(0.05, 10))
        shares = tuple(0.5 + 0.5 * math.cos(math.pi * number / 400) for number in range(400))
        _train_at(model, optimizer, shares)
        # In these last steps is 1 % of the sum of all step sizes.
        late = [(event.group, event.unit) for event in plastic.events if event.step > 350]
        found[time] = len(late), max(map(late.count, late))
    (many, often), (few, once) = found["steps"], found["step_sizes"]
    assert many > 30 and often > 3
    assert few < 4 and once == 1


def test_the_size_is_that_of_the_group_with_the_incoming_weights() -> None:
    model = make_network()
    slow, fast = list(model[0].parameters()), [*model[2].parameters(), *model[4].parameters()]
    optimizer = torch.optim.SGD([{"params": slow, "lr": 0.5}, {"params": fast}], lr=0.125)
    plastic = regrow.attach(model, optimizer, regrow.ContinualBackprop(0.0), example=batch(0)[0], time="step_sizes")
    train(model, optimizer, 2)
    optimizer.param_groups[0]["lr"] = 0.125
    train(model, optimizer, 4, 2)
    assert [plastic.state_of(name)["age"].max().item() for name in ("0", "2")] == [3, 6]


def test_weights_are_edited_at_each_step_as_ever() -> None:
    weights = []
    for time in ("steps", "step_sizes"):
        model, optimizer, _ = _attached(time, [regrow.ContinualBackprop(0.0), L2(0.1)])
        _train_at(model, optimizer, HALVING)
        weights.append(model)
    assert same(*weights)


def test_a_run_goes_on_with_what_had_passed() -> None:
    whole, optimizer, plastic = _attached()
    shares = (1.0, 0.75, 0.4, 0.6, 0.3) * 8
    _train_at(whole, optimizer, shares)
    model, first, _ = _attached()
    _train_at(model, first, shares[:19])
    saved = first.state_dict()
    again, second, resumed = _attached()
    again.load_state_dict(model.state_dict())
    second.load_state_dict(saved)
    _train_at(again, second, shares[19:], 19)
    assert same(again, whole)
    assert resumed.events == [event for event in plastic.events if event.step > 19] != []


def test_another_time_is_refused_when_a_run_goes_on() -> None:
    _, optimizer, _ = _attached("steps")
    _, other, _ = _attached("step_sizes")
    with pytest.raises(StateError, match="(?s)saved with other time.*saved:   steps.*present: step_sizes.*saved time="):
        other.load_state_dict(optimizer.state_dict())


def test_bad_requests() -> None:
    model = make_network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(ConfigError, match=r"takes 'steps' or 'step_sizes' as time=, but got 'epochs'"):
        regrow.attach(model, optimizer, "cbp", time="epochs")
    with pytest.raises(ConfigError, match="cannot be used with optimizer=None. Pass the optimizer, or call step"):
        regrow.attach(model, None, "cbp", time="step_sizes")
    relative = Adafactor(model.parameters(), relative_step=True, warmup_init=True)
    with pytest.raises(ConfigError, match="goes by lr, which is None in group 0 of this Adafactor: give the optimizer"):
        regrow.attach(model, relative, "cbp", time="step_sizes")
