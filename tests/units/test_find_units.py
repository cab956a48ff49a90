import random
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import regrow
from regrow.errors import ModelError
from regrow.units.trace import find_units
from tests.units.hand_written import Net


def network() -> nn.Sequential:
    return nn.Sequential(nn.Linear(5, 6), nn.BatchNorm1d(6), nn.Dropout(0.5), nn.ReLU(True), nn.Linear(6, 2))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("look", [regrow.find_units, regrow.verify])
def test_the_model_is_untouched(look: Any, training: bool) -> None:
    model = network().train(training)
    model[1].training = False  # flags of single modules, as with a frozen batch norm
    seen = []
    model[4].register_forward_pre_hook(lambda module, args: seen.append(args[0].shape))
    example = torch.randn(4, 5)
    model(example).sum().backward()

    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    identities = [(name, id(tensor)) for name, tensor in (*model.named_parameters(), *model.named_buffers())]
    grads = [parameter.grad.clone() for parameter in model.parameters()]
    flags = [module.training for module in model.modules()]
    hooks = [(len(module._forward_hooks), len(module._forward_pre_hooks)) for module in model.modules()]
    generators = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    before = example.clone()

    look(model, example)

    assert len(seen) > 1  # the user's hook was there all the time
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, state[name]), name
    assert identities == [(name, id(tensor)) for name, tensor in (*model.named_parameters(), *model.named_buffers())]
    assert all(torch.equal(parameter.grad, grad) for parameter, grad in zip(model.parameters(), grads, strict=True))
    assert flags == [module.training for module in model.modules()]
    assert hooks == [(len(module._forward_hooks), len(module._forward_pre_hooks)) for module in model.modules()]
    assert torch.equal(torch.get_rng_state(), generators[0])
    assert np.array_equal(np.random.get_state()[1], generators[1])
    assert random.getstate() == generators[2]
    assert torch.equal(example, before)


def test_the_model_is_untouched_by_a_forward_that_fails() -> None:
    model = network()
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(ModelError):
        find_units(model, torch.randn(4, 3))
    assert model.training
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


@pytest.mark.parametrize(
    "example",
    [
        torch.randn(4, 5),
        (torch.randn(4, 5),),
        {"input": torch.randn(4, 5)},
        lambda model: model(torch.randn(4, 5)),
        lambda model: {"loss": [model(torch.randn(4, 5)).sum(0)]},
    ],
    ids=["tensor", "tuple", "dict", "callable", "callable that returns more"],
)
def test_forms_of_the_example(example: Any) -> None:
    assert [(group.name, group.status) for group in find_units(network(), example)] == [("0", "free"), ("4", "output")]


def test_both_modes_are_traced() -> None:
    class AuxiliaryHead(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.trunk, self.head, self.aux = nn.Linear(5, 6), nn.Linear(6, 2), nn.Linear(6, 2)

        def forward(self, value: Tensor) -> Any:
            hidden = torch.relu(self.trunk(value))
            return (self.head(hidden), self.aux(hidden)) if self.training else self.head(hidden)

    graph = find_units(AuxiliaryHead().eval(), torch.randn(4, 5))
    assert graph["trunk"].consumers == ("head.weight", "aux.weight")


def test_a_model_that_only_trains_is_served() -> None:
    def forward(m: Net, x: Tensor) -> Tensor:
        if not m.training:
            raise RuntimeError("no targets")
        return m.b(torch.relu(m.a(x)))

    model = Net(forward, a=nn.Linear(5, 6), b=nn.Linear(6, 2))
    assert find_units(model, torch.randn(4, 5))["a"].status == "free"
    assert regrow.verify(model, torch.randn(4, 5)).modes == ("training",)
    with pytest.raises(
        ModelError, match=r"Net cannot take the example, .*, in evaluation mode: RuntimeError: no targets"
    ):
        find_units(model.eval(), torch.randn(4, 5))


def test_an_example_that_the_model_cannot_take() -> None:
    with pytest.raises(ModelError) as caught:
        find_units(network(), (torch.randn(4, 3),))
    assert str(caught.value).startswith(
        "Sequential cannot take the example, (a tensor of shape (4, 3) and type float32), in training mode: "
        "RuntimeError: mat1 and mat2 shapes cannot be multiplied"
    )
    assert "Give as example= what the model is called with" in str(caught.value)
    assert isinstance(caught.value.__cause__, RuntimeError)


def test_a_batch_of_one_that_batch_norm_cannot_take_in_training() -> None:
    with pytest.raises(ModelError, match="in training mode: ValueError: Expected more than 1 value per channel"):
        find_units(network().eval(), torch.randn(1, 5))


def test_no_tensor_returned() -> None:
    with pytest.raises(ModelError, match=r"Net returned no tensor but None.*a callable that takes the model"):
        find_units(Net(lambda m, x: None, a=nn.Linear(5, 6)), torch.randn(4, 5))


def test_parameters_that_share_memory() -> None:
    model = nn.Sequential(nn.Linear(5, 5), nn.Linear(5, 5))
    model[1].weight = nn.Parameter(model[0].weight.data)
    with pytest.raises(
        ModelError, match=r"0\.weight and 1\.weight share memory but are two parameters.*Tie weights by"
    ):
        find_units(model, torch.randn(4, 5))


def test_lazy_parameters() -> None:
    with pytest.raises(ModelError, match=r"0\.weight has no shape yet\. Run the model once"):
        find_units(nn.Sequential(nn.LazyLinear(3)), torch.randn(4, 5))


def test_not_a_module() -> None:
    with pytest.raises(ModelError, match=r"find_units\(\) needs a torch\.nn\.Module, but got builtin"):
        find_units(torch.relu, torch.randn(4, 5))
