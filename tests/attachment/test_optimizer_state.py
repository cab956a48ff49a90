"""What an optimizer remembers begins anew as it began: also copies of the weights, and what begins with a number."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.optim import Optimizer

import regrow
from regrow.methods import FullReset, Method, ReDo
from tests.attachment.training import batch, make_network, train


class ScheduleFree(Optimizer):
    """SGD of Defazio et al. 2024: gradients move z, and the weights are between z and the mean of all z."""

    def __init__(self, parameters: Any, lr: float = 0.05, beta: float = 0.9) -> None:
        super().__init__(parameters, {"lr": lr, "beta": beta, "count": 0})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:
        for group in self.param_groups:
            group["count"] += 1
            share = 1 / group["count"]
            for y in group["params"]:
                z = self.state[y].setdefault("z", y.clone())
                x = (y - (1 - group["beta"]) * z) / group["beta"]
                z.sub_(y.grad, alpha=group["lr"])
                y.copy_(x.lerp_(z, share)).lerp_(z, 1 - group["beta"])


class MasterWeights(Optimizer):
    """SGD with momentum on weights in double precision, of which the network's are rounded copies."""

    def __init__(self, parameters: Any, lr: float = 0.05) -> None:
        super().__init__(parameters, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:
        for group in self.param_groups:
            for parameter in group["params"]:
                state = self.state[parameter]
                master = state.setdefault("master", parameter.double())
                momentum = state.setdefault("velocity", torch.zeros_like(parameter))
                momentum.mul_(0.9).add_(parameter.grad)
                parameter.copy_(master.sub_(momentum, alpha=group["lr"]))


def steps_without_gradient(optimizer: Optimizer, count: int) -> None:
    for _ in range(count):
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                parameter.grad = torch.zeros_like(parameter)
        optimizer.step()


MAKERS = [(ScheduleFree, "z"), (MasterWeights, "master")]


@pytest.mark.parametrize(("make", "copy"), MAKERS)
@pytest.mark.parametrize("method", [regrow.ContinualBackprop(0.3, 1), ReDo(5, 10.0)])
def test_new_units_are_new_in_the_copies(make: type[Optimizer], copy: str, method: Method) -> None:
    model = make_network()
    optimizer = make(model.parameters())
    plastic = regrow.attach(model, optimizer, method, example=batch(0)[0])
    train(model, optimizer, 20)
    last = [event.unit for event in plastic.events if event.step == 20 and event.group == "2"]
    drawn = model[2].weight[last].clone()
    assert last and not model[4].weight[:, last].any()
    torch.testing.assert_close(optimizer.state[model[2].weight][copy][last].float(), drawn)
    assert not optimizer.state[model[4].weight][copy][:, last].any()
    if make is MasterWeights:
        assert not optimizer.state[model[4].weight]["velocity"][:, last].any()
    plastic.detach()
    steps_without_gradient(optimizer, 3)
    torch.testing.assert_close(model[2].weight[last].detach(), drawn, msg="the old weights are back")
    assert model[4].weight[:, last].abs().max() < 1e-6


@pytest.mark.parametrize(("make", "copy"), MAKERS)
def test_a_layer_that_is_reset_is_reset_in_the_copies(make: type[Optimizer], copy: str) -> None:
    model = make_network()
    optimizer = make(model.parameters())
    plastic = regrow.attach(model, optimizer, FullReset(), example=batch(0)[0])
    train(model, optimizer, 20)
    saved = optimizer.state_dict()
    plastic.detach()
    again = make(model.parameters())  # as after a restart: the task changes before any step
    plastic = regrow.attach(model, again, FullReset(), example=batch(0)[0])
    again.load_state_dict(saved)
    plastic.task_changed()
    for parameter in model.parameters():
        kept: Tensor = again.state[parameter][copy]
        torch.testing.assert_close(kept.float(), parameter.detach())


@pytest.mark.parametrize(
    ("make", "key", "beginning"),
    [
        (lambda parameters: torch.optim.Rprop(parameters, lr=0.01), "step_size", 0.01),
        (lambda parameters: torch.optim.Adagrad(parameters, initial_accumulator_value=0.5), "sum", 0.5),
    ],
)
def test_what_begins_with_a_number_begins_with_it_again(make: Callable, key: str, beginning: float) -> None:
    model = make_network()
    optimizer = make(model.parameters())
    plastic = regrow.attach(model, optimizer, [ReDo(4, 10.0, 0.5), FullReset()], example=batch(0)[0])
    train(model, optimizer, 8)
    last = sorted(event.unit for event in plastic.events if event.step == 8 and event.group == "2")
    others = [unit for unit in range(12) if unit not in last]
    found = optimizer.state[model[2].weight][key]
    assert last and (found[last] == beginning).all() and (found[others] != beginning).any()
    plastic.task_changed()
    assert all((optimizer.state[parameter][key] == beginning).all() for parameter in model.parameters())


@pytest.mark.parametrize("name", sorted(Method.registry))
def test_what_a_method_does_to_weights_is_done_to_their_copies(name: str) -> None:
    kind = Method.registry[name]
    model = make_network()
    optimizer = MasterWeights(model.parameters())
    plastic = regrow.attach(model, optimizer, kind(**kind.brisk), example=batch(0)[0])
    for step in range(10):
        train(model, optimizer, 1, start=step)
        if step == 6:
            new = [batch(100), batch(101)]
            plastic.task_changed(torch.nn.functional.cross_entropy(model(x), y) for x, y in new)
    for parameter in model.parameters():
        torch.testing.assert_close(optimizer.state[parameter]["master"].float(), parameter.detach())
