"""What attach() refuses: the words, and that nothing that is not meant is refused."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import regrow
from tests.units.test_user_models import OBSERVATIONS, mlp

OFTEN = regrow.ContinualBackprop(1.0, 0)
INSTEAD = (
    "A unit's weights lie in several parameters, which are to be changed together once all gradients are there. Use "
    "one optimizer for the whole model, and step after backward(); or pass optimizer=None and call step() of the "
    "result after each backward(), which leaves what the optimizers remember of replaced units as it is."
)


def refused(model: nn.Module, optimizer: Any, method: Any = OFTEN) -> str:
    with pytest.raises(regrow.RegrowError) as caught:
        regrow.attach(model, optimizer, method, example=OBSERVATIONS)
    return str(caught.value)


# The example


def test_an_example_that_the_model_cannot_take_given_or_met() -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    own = "RuntimeError: mat1 and mat2 shapes cannot be multiplied (4x3 and 5x6). Give as example= what the model is"
    with pytest.raises(regrow.RegrowError) as caught:
        regrow.attach(model, optimizer, OFTEN, example=torch.zeros(4, 3))
    start = "Sequential cannot take the example, a tensor of shape (4, 3) and type float32, in training mode: " + own
    assert str(caught.value).startswith(start)
    regrow.attach(model, optimizer, OFTEN)
    with pytest.raises(regrow.RegrowError) as caught:  # the first forward is the example
        model(torch.zeros(4, 3))
    start = "Sequential cannot take the example, (a tensor of shape (4, 3) and type float32), in training mode: " + own
    assert str(caught.value).startswith(start)


def test_the_first_forward_may_have_arguments_of_any_form() -> None:
    class Takes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = mlp()

        def forward(self, value: Tensor, *, scale: float = 1.0, flag: bool = False) -> Tensor:
            return self.layers(value) * scale

    for call in (lambda m: m(OBSERVATIONS), lambda m: m(value=OBSERVATIONS), lambda m: m(OBSERVATIONS, scale=2.0)):
        model = Takes()
        plastic = regrow.attach(model, torch.optim.SGD(model.parameters(), 0.1), OFTEN)
        call(model)
        assert [group.name for group in plastic.groups] == ["layers.0", "layers.2"]


# Nothing that learns


@pytest.mark.parametrize("method", [OFTEN, regrow.L2(0.1)])
def test_a_frozen_model(method: Any) -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    model.requires_grad_(False)
    text = (
        "All 6 parameters of Sequential are frozen (requires_grad is False), so none is trained, and a new unit would "
        "never learn. Call requires_grad_() on what is to be trained, and attach then."
    )
    assert refused(model, optimizer, method) == refused(model, None) == text
    model[0].requires_grad_()
    text = refused(model, optimizer)
    assert "\n  0: 2.weight does not require grad\n  2: 2.weight does not require grad; 2.bias does not" in text


# An optimizer for each parameter, which steps within the backward pass


def optimizers_in_backward(model: nn.Module) -> dict[nn.Parameter, torch.optim.Optimizer]:
    optimizers = {parameter: torch.optim.SGD([parameter], 0.1) for parameter in model.parameters()}

    def update(parameter: nn.Parameter) -> None:
        optimizers[parameter].step()
        optimizers[parameter].zero_grad()

    for parameter in model.parameters():
        parameter.register_post_accumulate_grad_hook(update)
    return optimizers


def test_an_optimizer_for_each_parameter() -> None:
    model = mlp()
    optimizers = optimizers_in_backward(model)
    text = "of 6 optimizers with one parameter each, as where they step within the backward pass. " + INSTEAD
    assert refused(model, optimizers) == f"attach() got a dict {text}"
    assert refused(model, list(optimizers.values())) == f"attach() got a list {text}"
    assert refused(model, optimizers[model[2].bias]) == (
        "The SGD holds only 2.bias of the 6 parameters of Sequential that are trained, and a hook runs when the "
        "gradient is there (register_post_accumulate_grad_hook), as where optimizers step within the backward pass. "
        + INSTEAD
    )
    stand_in = torch.optim.SGD([torch.zeros(1)], 0.1)  # as trainers have it when the hooks do the work
    assert refused(model, stand_in).startswith("The SGD holds none of the 6 parameters of Sequential that are trained,")
    assert refused(model, optimizers, regrow.L2(0.1)).startswith("attach() got a dict of 6 optimizers")


def test_what_is_advised_for_optimizers_in_the_backward_pass_works() -> None:
    model = mlp()
    optimizers_in_backward(model)
    plastic = regrow.attach(model, None, OFTEN, example=OBSERVATIONS)
    for _ in range(2):
        model(OBSERVATIONS).square().mean().backward()
        plastic.step()
    last = {event.unit for event in plastic.events if event.group == "2" and event.step == 2}
    assert last and not model[4].weight[:, sorted(last)].any()


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")  # of its module, when it is imported
def test_torchs_own_optimizers_in_the_backward_pass() -> None:
    from torch.distributed.optim import _apply_optimizer_in_backward

    model = mlp()
    _apply_optimizer_in_backward(torch.optim.SGD, model.parameters(), {"lr": 0.1})
    optimizer = model[0].weight._in_backward_optimizers[0]
    assert refused(model, optimizer).startswith("The SGD holds only 0.weight of the 6 parameters of Sequential")


def test_a_step_within_the_backward_pass() -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    plastic = regrow.attach(model, optimizer, OFTEN, example=OBSERVATIONS)
    handle = model[0].bias.register_post_accumulate_grad_hook(lambda parameter: optimizer.step())
    before = model[0].weight.clone()
    with pytest.raises(regrow.RegrowError) as caught:
        model(OBSERVATIONS).square().mean().backward()
    assert str(caught.value) == "step() of the SGD was called within the backward pass. " + INSTEAD
    assert torch.equal(model[0].weight, before)
    handle.remove()
    model(OBSERVATIONS).square().mean().backward()
    optimizer.step()
    assert plastic.metrics()["steps"] == 1


def test_hooks_and_optimizers_of_other_kinds_are_fine() -> None:
    model = mlp()
    for parameter in model.parameters():  # as for clipping
        parameter.register_post_accumulate_grad_hook(lambda parameter: parameter.grad.clamp_(-1, 1))
    regrow.attach(model, torch.optim.SGD(model.parameters(), 0.1), OFTEN, example=OBSERVATIONS)
    model = nn.Linear(5, 2, bias=False)
    model.weight.register_post_accumulate_grad_hook(lambda parameter: None)
    regrow.attach(model, torch.optim.SGD(model.parameters(), 0.1), regrow.L2(0.1))


def test_several_optimizers() -> None:
    model = mlp()
    halves = [torch.optim.SGD(part.parameters(), 0.1) for part in (model[:2], model[2:])]
    assert refused(model, halves) == (
        "attach() takes one optimizer, but got a list of 2. Attach to each in a call of its own; a unit is replaced "
        "only if one optimizer holds all weights that make and read it."
    )
    assert refused(model, [halves[0]]).startswith("attach() takes one optimizer, but got a list of 1. Attach to ")
    assert [regrow.attach(model, half, regrow.L2(0.1)).optimizer for half in halves] == halves
    plastic = regrow.attach(model, halves[1], OFTEN, example=OBSERVATIONS)
    assert plastic.unserved["0"] == "the optimizer does not hold 0.weight"


# Quantised optimizer state


class Scaled(Tensor):
    """Optimizer state in a form of its own, as some libraries have it."""

    @staticmethod
    def __new__(cls, codes: Tensor) -> "Scaled":
        return Tensor._make_wrapper_subclass(cls, codes.shape, dtype=torch.float32)

    def __init__(self, codes: Tensor) -> None:
        self.codes = codes

    __torch_dispatch__ = classmethod(lambda cls, func, types, args=(), kwargs=None: NotImplemented)


class Quantised(torch.optim.Optimizer):
    """Keeps state of at least so many elements in eight bits."""

    def __init__(self, parameters: Any, make: Callable[[Tensor], Tensor], least: int = 0) -> None:
        super().__init__(parameters, {"lr": 0.1})
        self.make, self.least = make, least

    def step(self, closure: Any = None) -> None:
        for parameter in self.param_groups[0]["params"]:
            if not self.state[parameter]:
                large = parameter.numel() >= self.least
                self.state[parameter] = {
                    "step": 1,
                    "state1": self.make(parameter) if large else torch.zeros_like(parameter),
                    "qmap1": torch.linspace(-1, 1, 256),
                }


def bytes_of(parameter: Tensor) -> Tensor:
    return torch.zeros_like(parameter, dtype=torch.uint8)


def scaled(parameter: Tensor) -> Tensor:
    return Scaled(bytes_of(parameter))


@pytest.mark.parametrize(("make", "form"), [(bytes_of, "is of type uint8"), (scaled, "is of type Scaled")])
def test_quantised_optimizer_state(make: Callable[[Tensor], Tensor], form: str) -> None:
    model = mlp()
    optimizer = Quantised(model.parameters(), make)
    regrow.attach(model, optimizer, regrow.ContinualBackprop(1e-9, 1000), example=OBSERVATIONS)
    model(OBSERVATIONS).square().mean().backward()
    with pytest.raises(regrow.RegrowError) as caught:  # at the first step, long before anything is replaced
        optimizer.step()
    assert str(caught.value) == (
        f"What Quantised remembers of 0.weight is quantised (its 'state1' {form}), so it cannot be cleared for "
        "single units. Use an optimizer whose state is of floats, such as torch.optim.AdamW, at least for the "
        "parameters of units that are replaced; or exclude these modules (exclude=)."
    )


def test_a_reset_of_quantised_optimizer_state() -> None:
    model = mlp()
    optimizer = Quantised(model.parameters(), bytes_of)
    plastic = regrow.attach(model, optimizer, "full-reset")
    model(OBSERVATIONS).square().mean().backward()
    optimizer.step()
    with pytest.raises(regrow.RegrowError, match="^What Quantised remembers of 0.weight is quantised "):
        plastic.task_changed()


def test_quantised_state_of_what_is_not_replaced_is_fine() -> None:
    model = mlp()
    optimizer = Quantised(model.parameters(), bytes_of, least=43)
    regrow.attach(model, optimizer, OFTEN, example=OBSERVATIONS)
    regrow.attach(model, Quantised(model.parameters(), bytes_of), regrow.L2(0.1))
    model(OBSERVATIONS).square().mean().backward()
    optimizer.step()
