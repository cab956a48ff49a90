"""What the fused loop takes on, and the reason for everything else."""

import sys

import pytest
import torch
from torch import Tensor, nn

from regrow.engines.fusible import fused_reason
from regrow.engines.learner import build_learner
from regrow.engines.training import Training
from regrow.errors import ModelError
from regrow.methods import L2, Backprop, ContinualBackprop, Method, RandomReplacement, ShrinkAndPerturb
from regrow.networks.layers.dropout import Dropout
from regrow.networks.mlp import MLP


class Doubled(nn.Sequential):
    """A Sequential in name only."""

    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


def activated(*activations: nn.Module) -> nn.Sequential:
    return nn.Sequential(*(layer for each in activations for layer in (nn.Linear(3, 3), each)), nn.Linear(3, 2))


def chain() -> nn.Sequential:
    return nn.Sequential(nn.Sequential(nn.Linear(4, 3), nn.ReLU()), nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 2))


def shared() -> nn.Sequential:
    layer = nn.Linear(3, 3)
    return nn.Sequential(layer, nn.ReLU(), layer)


def twice_dropped() -> nn.Sequential:
    dropout = Dropout(0.5)
    layers = (nn.Linear(3, 3), nn.ReLU(), dropout, nn.Linear(3, 3), nn.ReLU(), dropout)
    return nn.Sequential(*layers, nn.Linear(3, 3))


def hooked() -> nn.Sequential:
    network = chain()
    network[0].register_forward_hook(lambda module, args, output: 2 * output)
    return network


def frozen() -> nn.Sequential:
    network = chain()
    network[1].bias.requires_grad_(False)
    return network


@pytest.mark.parametrize(
    "methods",
    [
        [Backprop()],
        [ContinualBackprop(), L2(1e-4), ShrinkAndPerturb()],
        [RandomReplacement(budget="bernoulli")],
        [],
    ],
)
def test_chains_of_linear_layers_and_activations_with_the_known_methods(methods: list[Method]) -> None:
    assert fused_reason(chain(), methods) is None
    assert fused_reason(MLP(5, [4, 3], 2), methods) is None
    assert fused_reason(nn.Linear(3, 2), methods[:0]) is None
    mixed = activated(nn.LeakyReLU(0.2), nn.Tanh(), nn.Sigmoid(), nn.ELU(0.5), nn.SiLU())
    for training in (Training("squared_error"), Training(optimizer="adam")):
        assert fused_reason(mixed, methods, None, training) is None
    assert fused_reason(MLP(5, [4, 3], 2, dropout=0.1), methods) is None


@pytest.mark.parametrize(
    ("training", "reason"),
    [
        (Training(batch=2), "it learns one example a step, and batch is 2"),
        (Training(momentum=0.9), "it knows SGD and Adam without momentum, which is 0.9"),
        (Training(weight_decay=1e-4), "it knows SGD and Adam without weight_decay, which is 0.0001"),
    ],
)
def test_steps_that_it_does_not_make(training: Training, reason: str) -> None:
    assert fused_reason(chain(), [Backprop()], None, training) == reason


@pytest.mark.parametrize(
    ("network", "reason"),
    [
        (nn.Sequential(nn.Linear(3, 2), nn.ReLU()), "not Linear and an activation (with Dropout or not)"),
        (nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 2)), "not Linear and an activation (with Dropout or not)"),
        (nn.Sequential(), "not Linear and an activation (with Dropout or not)"),
        (nn.Sequential(nn.Linear(3, 2), nn.GELU(), nn.Linear(2, 2)), "module '1' is a GELU"),
        (Doubled(nn.Linear(3, 2)), "module '' is a Doubled"),
        (nn.Sequential(nn.Linear(3, 2, bias=False)), "layer '0' has no bias"),
        (nn.Sequential(nn.Linear(3, 2, dtype=torch.float64)), "layer '0' are not trainable float32 on the CPU"),
        (frozen(), "layer '1' are not trainable"),
        (shared(), "used twice"),
        (nn.Sequential(nn.Linear(3, 2), Dropout(0.5), nn.ReLU(), nn.Linear(2, 2)), "not Linear and an activation"),
        (nn.Sequential(nn.Linear(3, 2), nn.ReLU(), nn.Dropout(), nn.Linear(2, 2)), "module '2' is torch's Dropout"),
        (twice_dropped(), "used twice"),
        (hooked(), "module '0' has hooks"),
    ],
)
def test_networks_that_it_cannot_train(network: nn.Module, reason: str) -> None:
    assert reason in (fused_reason(network, [Backprop()]) or "")


def test_methods_that_it_does_not_know() -> None:
    for methods, reason in (
        ([ContinualBackprop(utility_rule="first_order")], "'first_order'"),
        ([L2(coupled=True)], "decoupled only"),
        ([ShrinkAndPerturb(noise="shared")], "it does not know noise='shared'"),
        ([L2(), L2()], "2 methods of kind L2"),
        ([ContinualBackprop(), RandomReplacement()], "more than one method that replaces units"),
    ):
        assert reason in (fused_reason(chain(), methods) or "")


def test_replacing_units_takes_units() -> None:
    assert fused_reason(nn.Linear(3, 2), [ContinualBackprop()]) == "the network has no hidden units to replace"
    assert fused_reason(nn.Linear(3, 2), [L2(), ShrinkAndPerturb()]) is None
    with pytest.raises(ModelError, match="Nothing in Linear can be replaced"):
        build_learner(nn.Linear(3, 2), 0.1, [ContinualBackprop()]).learn(torch.rand(1, 3), torch.tensor([0]))


def test_a_law_of_the_users_own_may_look_at_the_units() -> None:
    def law(*args: object) -> Tensor:
        return torch.zeros(1)

    assert "callable" in (fused_reason(chain(), [ContinualBackprop()], law) or "")
    assert fused_reason(chain(), [L2()], law) is None


def test_numba_is_an_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "numba", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "numba is not installed" in (fused_reason(chain(), [Backprop()]) or "")


def test_a_budget_of_all_units_is_left_to_the_plain_engine():
    reason = fused_reason(MLP(4, [8], 2), [ContinualBackprop(budget="carried_of_all")])
    assert reason == "it does not know budget='carried_of_all'"
