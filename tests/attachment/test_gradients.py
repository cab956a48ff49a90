"""Units ranked by gradients: the first-order utility, and groups whose activation no module sees."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import regrow
from regrow.errors import ModelError, StateError
from regrow.methods.unit_method import QuotaMethod, Readings
from tests.attachment.test_networks import train_and_check
from tests.attachment.training import batch
from tests.units.hand_written import Net, weight
from tests.units.sequence_networks import SEQUENCES


def functional(m: Net, x: Tensor) -> Tensor:
    return torch.tanh(x @ m.w1) @ m.w2


def network() -> Net:
    torch.manual_seed(0)
    return Net(functional, w1=weight(20, 8), w2=weight(8, 5))


def backward(model: nn.Module, step: int = 0, scale: float = 1.0) -> Tensor:
    """Gradients of a loss, and Σ h·∂L/∂h of each unit."""
    inputs, labels = batch(step)
    hidden = torch.tanh(inputs @ model.w1).detach().requires_grad_()
    (gradient,) = torch.autograd.grad(F.cross_entropy(hidden @ model.w2, labels), hidden)
    (scale * F.cross_entropy(model(inputs), labels)).backward()
    return (hidden * gradient).sum(dim=0).detach()


def test_the_utility_is_the_first_order_effect_of_silence() -> None:
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    method = regrow.ContinualBackprop(replacement_rate=0.0, decay_rate=0.5, utility_rule="first_order")
    plastic = regrow.attach(model, optimizer, method, example=batch(0)[0])
    running = torch.zeros(8)
    for step in range(1, 5):
        optimizer.zero_grad()
        effect = backward(model, step)
        optimizer.step()
        running = 0.5 * running + 0.5 * effect.abs()
        torch.testing.assert_close(plastic.state_of("w1")["utility"], running / (1 - 0.5**step))


@pytest.mark.parametrize("rule", ["contribution", "adaptable_contribution"])
def test_a_group_that_no_module_sees_is_ranked_by_gradients(rule: str) -> None:
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    method = regrow.ContinualBackprop(0.1, 1, utility_rule=rule)
    plastic = regrow.attach(model, optimizer, method, example=batch(0)[0])
    assert "ranked by gradients, as no module sees the activation that meets w2" in str(plastic)
    assert "first_order" in plastic.state_of("w1")
    train_and_check(plastic, batch(0)[0], steps=8)


def test_inner_recurrent_layers_are_ranked_by_gradients_and_others_by_activations() -> None:
    model, example = next(case for case in SEQUENCES if case.name == "lstm").build()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    plastic = regrow.attach(model, optimizer, regrow.ContinualBackprop(0.1, 1), example=example)
    assert [group.name for group in plastic.groups] == ["r.weight_ih_l0", "r.weight_ih_l1"]
    assert "first_order" in plastic.state_of("r.weight_ih_l0")
    assert "activation" in plastic.state_of("r.weight_ih_l1")


class Activity(QuotaMethod):
    """A method that knows activations only."""

    needs = "mean_abs"

    def initial_state(self, taps: int, size: int) -> dict[str, Tensor]:
        return {}

    def observe(self, readings: Readings, state: dict[str, Tensor], age: Tensor) -> None:
        return None

    def utility(self, readings: Readings, state: dict[str, Tensor], age: Tensor, generator: torch.Generator) -> Tensor:
        return sum(readings.mean_abs())


def test_a_method_that_knows_activations_only_does_not_serve_it() -> None:
    model = network()
    with pytest.raises(ModelError, match="w1: no module sees the activation that meets w2, and Activity needs it"):
        regrow.attach(model, torch.optim.SGD(model.parameters(), lr=0.1), Activity(), example=batch(0)[0])


def test_scaled_gradients_of_a_fused_optimizer_are_unscaled() -> None:
    utilities = []
    for scale in (1.0, 1024.0):
        model = network()
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, fused=True)
        method = regrow.ContinualBackprop(0.0, utility_rule="first_order")
        plastic = regrow.attach(model, optimizer, method, example=batch(0)[0])
        backward(model, scale=scale)
        if scale != 1:  # as GradScaler leaves it
            optimizer.grad_scale, optimizer.found_inf = torch.tensor(scale), torch.tensor(0.0)
        optimizer.step()
        utilities.append(plastic.state_of("w1")["utility"])
    torch.testing.assert_close(*utilities)


def test_a_step_that_did_not_reach_the_group_changes_nothing() -> None:
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    method = regrow.ContinualBackprop(0.0, utility_rule="first_order")
    plastic = regrow.attach(model, optimizer, method, example=batch(0)[0])
    backward(model)
    optimizer.step()
    before = plastic.state_of("w1")["first_order"]
    assert before.all()
    optimizer.zero_grad()
    optimizer.step()
    assert torch.equal(plastic.state_of("w1")["first_order"], before)


def test_manual_mode_reads_gradients_at_its_step() -> None:
    model = network()
    plastic = regrow.attach(model, None, regrow.ContinualBackprop(0.5, 0), example=batch(0)[0])
    effect = backward(model)
    plastic.step()
    least = effect.abs().argsort()[:4]
    assert {event.unit for event in plastic.events} == set(least.tolist())
    model.zero_grad()
    with pytest.raises(StateError, match=r"step\(\) found no gradients, by which the units of w1 are ranked"):
        plastic.step()
