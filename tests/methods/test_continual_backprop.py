"""The utility rules on numbers worked out by hand. Whole runs are compared in tests/attachment."""

import numpy as np
import pytest
import torch
from torch import Tensor

from regrow.methods import ContinualBackprop
from tests.methods import by_hand

NO_DRAWS = torch.Generator()


class TwoTaps:
    """Two units read at two taps, with weight sums that the tests set."""

    size = 2

    def __init__(self, batches: list[Tensor]) -> None:
        self.batches = batches
        self.sums = [torch.tensor([1.0, 2.0]), torch.tensor([3.0, 0.5])]

    def mean_abs(self) -> list[Tensor]:
        return [batch.abs().mean(dim=0) for batch in self.batches]

    def activations(self) -> list[Tensor]:
        return self.batches

    def first_order(self) -> Tensor:
        return torch.tensor([-3.0, 2.0])

    def outgoing(self) -> list[Tensor]:
        return self.sums

    def incoming(self) -> Tensor:
        return torch.tensor([2.0, 4.0])

    def distrust(self, units: Tensor) -> None:
        self.distrusted = units.tolist()


H = [torch.tensor([[1.0, -2.0], [3.0, 2.0]]), torch.tensor([[0.0, 4.0], [2.0, -4.0]])]


@pytest.mark.parametrize("weight_sums", ["each_step", "when_due"])
def test_contribution_of_the_first_step_is_that_step(weight_sums: str) -> None:
    """Bias correction: u/(1 − η) is the contribution itself. Signs do not cancel."""
    method = ContinualBackprop(weight_sums=weight_sums)
    state, age = method.initial_state(2, 2), torch.tensor([1, 1])
    method.observe(TwoTaps(H), state, age)
    utility = method.utility(TwoTaps(H), state, age, NO_DRAWS)
    torch.testing.assert_close(utility, torch.tensor([2.0 * 1 + 1.0 * 3, 2.0 * 2 + 4.0 * 0.5]))


def test_the_two_ways_to_take_weight_sums_differ_when_weights_move() -> None:
    utilities = {}
    for weight_sums in ("each_step", "when_due"):
        method = ContinualBackprop(decay_rate=0.5, weight_sums=weight_sums)
        state, readings = method.initial_state(2, 2), TwoTaps(H)
        method.observe(readings, state, torch.tensor([1, 1]))
        readings.sums = [10 * sums for sums in readings.sums]
        method.observe(readings, state, torch.tensor([2, 2]))
        utilities[weight_sums] = method.utility(readings, state, torch.tensor([2, 2]), NO_DRAWS)
    now = torch.tensor([5.0, 6.0])
    torch.testing.assert_close(utilities["when_due"], 10 * now)
    torch.testing.assert_close(utilities["each_step"], (0.25 * now + 0.5 * 10 * now) / 0.75)


@pytest.mark.parametrize("weight_sums", ["each_step", "when_due"])
def test_adaptable_contribution_of_the_first_step(weight_sums: str) -> None:
    """f̂ contains this batch: after one step it is the batch mean."""
    method = ContinualBackprop(utility_rule="adaptable_contribution", weight_sums=weight_sums)
    state, age = method.initial_state(2, 2), torch.tensor([1, 1])
    method.observe(TwoTaps(H), state, age)
    utility = method.utility(TwoTaps(H), state, age, NO_DRAWS)
    torch.testing.assert_close(utility, torch.tensor([(1.0 * 1 + 1.0 * 3) / 2, (2.0 * 2 + 4.0 * 0.5) / 4]))


def test_first_order_averages_the_size_of_the_reading() -> None:
    """Its sign says whether the unit harms or helps at the moment; both are an effect."""
    method = ContinualBackprop(utility_rule="first_order", decay_rate=0.5)
    state = method.initial_state(0, 2)
    readings = TwoTaps([])
    for step in (1, 2):
        age = torch.tensor([step, step])
        method.observe(readings, state, age)
        torch.testing.assert_close(method.utility(readings, state, age, NO_DRAWS), torch.tensor([3.0, 2.0]))


def test_first_order_replaces_the_unit_whose_removal_would_change_the_loss_least() -> None:
    model, optimizer, plastic = by_hand.attached(ContinualBackprop(0.25, 4, decay_rate=0.8, utility_rule="first_order"))
    w = by_hand.values(model)
    running = np.zeros(4)
    for age in range(1, 6):  # in the fifth step all four are mature, and a quarter of them is due
        g = by_hand.gradients(w, age)
        running = 0.8 * running + 0.2 * np.abs((w["2.weight"] * g["2.weight"]).sum(axis=0))
        by_hand.step(model, optimizer, age)
        w = by_hand.descended(w, g)
        if age < 5:
            utility = plastic.state_of("0")["utility"].numpy()
            np.testing.assert_allclose(utility, running / (1 - 0.8**age), rtol=1e-4, atol=1e-9)
    [event] = plastic.events
    assert (event.step, event.unit) == (5, running.argmin())
    others = [unit for unit in range(4) if unit != event.unit]
    found = by_hand.values(model)
    assert not found["2.weight"][:, event.unit].any() and not found["0.bias"][event.unit]
    for name, axis in (("0.weight", 0), ("0.bias", 0), ("2.weight", 1)):
        np.testing.assert_allclose(found[name].take(others, axis), w[name].take(others, axis), atol=2e-6)
    assert np.sort(running)[1] > 1.1 * running.min(), "the choice would hang on rounding"


def test_decay_rate_0_uses_the_moment() -> None:
    method = ContinualBackprop(decay_rate=0.0, weight_sums="each_step")
    state = method.initial_state(2, 2)
    for step, batches in enumerate([[7 * h for h in H], H], start=1):
        age = torch.tensor([step, step])
        method.observe(TwoTaps(batches), state, age)
    torch.testing.assert_close(method.utility(TwoTaps(H), state, age, NO_DRAWS), torch.tensor([5.0, 6.0]))


def test_a_reading_that_is_not_finite_is_left_out() -> None:
    method = ContinualBackprop(weight_sums="each_step")
    state, age = method.initial_state(2, 2), torch.tensor([1, 1])
    readings = TwoTaps(H)
    method.observe(readings, state, age)
    assert readings.distrusted == [False, False]
    before = state["contribution"].clone()
    poisoned = [torch.tensor([[float("nan"), 1.0]]), torch.tensor([[1.0, 1.0]])]
    readings = TwoTaps(poisoned)
    method.observe(readings, state, torch.tensor([2, 2]))
    assert readings.distrusted == [True, False]
    assert state["contribution"][0] == before[0] and state["contribution"][1] != before[1]
