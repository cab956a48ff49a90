"""Weights that are computed from others, that stand in several places, or that have adapters beside them."""

import warnings
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import orthogonal, spectral_norm, weight_norm

import regrow
from regrow.errors import ConfigError, ModelError, RegrowError
from regrow.methods import L2Init, WeightClipping, WeightMethod
from tests.conformance.cases import PROBLEMS, Problem, Run, brisk, every_method, replaces
from tests.conformance.loops import begin, momentum

COMPUTED: dict[str, Callable[[nn.Module], nn.Module]] = {
    "weight-norm": weight_norm, "spectral-norm": spectral_norm, "orthogonal": orthogonal,
}  # fmt: skip


def within(kind: str) -> Problem:
    """A perceptron of which the second layer's weights are computed."""

    def build() -> nn.Module:
        layers = [nn.Linear(8, 12), nn.Linear(12, 12), nn.Linear(12, 10), nn.Linear(10, 4)]
        COMPUTED[kind](layers[1])
        return nn.Sequential(layers[0], nn.ReLU(), layers[1], nn.ReLU(), layers[2], nn.ReLU(), layers[3])

    return Problem(build, PROBLEMS["mlp"].draw)


def computed(run: Run) -> Tensor:
    with torch.no_grad():
        return run.model[2].weight.clone()


@every_method()
@pytest.mark.parametrize("kind", COMPUTED)
def test_a_computed_weight_is_served_or_left_alone_or_refused(method: str, kind: str) -> None:
    chosen = brisk(method)
    if isinstance(chosen, WeightMethod) and chosen.takes_whole:
        text = f"{type(chosen).__name__} is about weights as a whole, and 2.parametrizations.weight.original"
        with pytest.raises(ConfigError, match=text):
            begin(within(kind), momentum, chosen)
        kept = Problem(lambda: within(kind).network(), PROBLEMS["mlp"].draw)
        run = Run(kept, model := kept.network(), momentum(model.parameters()), None)
        run.plastic = regrow.attach(model, run.optimizer, chosen, example=kept.batch(0)[0], exclude="2")
    else:
        run = begin(within(kind), momentum, chosen)
    run.train(25)
    assert all(value.isfinite().all() for value in run.state.values())
    for group, reason in run.plastic.unserved.items():
        assert group == "6" or "2.weight is computed by" in reason
    if replaces(chosen):
        assert run.plastic.events
    weight = computed(run)
    if kind == "orthogonal":
        torch.testing.assert_close(weight @ weight.T, torch.eye(12), atol=1e-4, rtol=0)
    if kind == "spectral-norm":
        assert torch.linalg.matrix_norm(weight, 2) < 1.1


@every_method(lambda method: isinstance(method, WeightMethod) and method.draws and method.acts_at_task_changes)
def test_a_computed_weight_is_drawn_like_the_layer_s_own(method: str) -> None:
    run = begin(within("weight-norm"), momentum, brisk(method))
    before = computed(run)
    run.change_task()
    ratio = float(computed(run).std() / before.std())
    assert 0.6 < ratio < 1.5


class Tied(nn.Module):
    """A language model whose output layer is its table of words."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = PROBLEMS["transformer"].build()
        self.inner.head.weight = self.inner.words.weight

    def forward(self, words: Tensor) -> Tensor:
        return self.inner(words)


@every_method()
def test_tied_weights_stay_tied(method: str) -> None:
    kind = Problem(Tied, PROBLEMS["transformer"].draw, PROBLEMS["transformer"].loss)
    chosen = brisk(method)
    try:
        run = begin(kind, momentum, chosen)
    except RegrowError as error:
        text = f"{type(chosen).__name__} cannot take inner.words.weight, which the model has in several places"
        assert isinstance(chosen, WeightMethod) and chosen.takes_whole and text in str(error)
        return
    run.train(15)
    assert run.model.inner.head.weight is run.model.inner.words.weight
    assert all(value.isfinite().all() for value in run.state.values())
    assert not [event for event in run.plastic.events if "words" in event.group or "head" in event.group]


EDITING = [
    regrow.L2(0.5), regrow.L2(0.5, coupled=True), L2Init(0.5), regrow.ShrinkAndPerturb(0.5, 0.1), WeightClipping(0.1),
]  # fmt: skip


def edited(model: nn.Module, method: WeightMethod) -> nn.Module:
    """The model after a step in which a method alone changes weights: gradients are 0."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    regrow.attach(model, optimizer, method, example=torch.ones(2, 6))
    for parameter in model.parameters():
        parameter.data.add_(1.0)  # away from where they began
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    return model


@pytest.mark.parametrize("method", EDITING, ids=repr)
def test_a_tied_weight_is_edited_once(method: WeightMethod) -> None:
    weights = []
    for is_tied in (True, False):
        torch.manual_seed(0)
        first, second, last = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 2)
        if is_tied:
            second.weight = first.weight
        before = first.weight.detach() + 1.0
        weights.append(edited(nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), last), method)[0].weight.detach())
    assert torch.equal(*weights) and not torch.isclose(weights[0], before).any()


@pytest.mark.parametrize("method", [*EDITING[:2], regrow.ShrinkAndPerturb(0.5, 0.0)], ids=repr)
def test_the_factors_of_a_computed_weight_are_edited_once_each(method: WeightMethod) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(weight_norm(nn.Linear(6, 5)), nn.ReLU(), nn.Linear(5, 2))
    before = {name: value.detach() + 1.0 for name, value in model.named_parameters()}
    assert {"0.parametrizations.weight.original0", "0.parametrizations.weight.original1"} < before.keys()
    for name, value in edited(model, method).named_parameters():
        torch.testing.assert_close(value.detach(), (1 - 0.1 * 0.5) * before[name], msg=name)


def adapted(*targets: str) -> nn.Module:
    """The transformer with low-rank adapters beside some of its layers: all else is frozen."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from peft import LoraConfig, get_peft_model
    model: nn.Module = get_peft_model(PROBLEMS["transformer"].build(), LoraConfig(r=2, target_modules=[*targets]))
    return model


@every_method()
def test_what_has_adapters_keeps_its_bits(method: str) -> None:
    kind = Problem(lambda: adapted("qkv", "up", "down"), PROBLEMS["transformer"].draw, PROBLEMS["transformer"].loss)
    chosen = brisk(method)
    if replaces(chosen) or (isinstance(chosen, WeightMethod) and chosen.feature_examples):
        with pytest.raises(ModelError, match=r"(replaced by|works on)(.|\n)*up.base_layer.weight does not"):
            begin(kind, momentum, chosen)
        return
    run = begin(kind, momentum, chosen)
    base = {name: value.clone() for name, value in run.model.named_parameters() if not value.requires_grad}
    before = run.state
    run.train(15)
    assert all(torch.equal(run.state[name], value) for name, value in base.items())
    trained = before.keys() - base.keys()
    assert trained and all("lora" in name for name in trained)
    assert not any(torch.equal(run.state[name], before[name]) for name in trained)


@every_method(replaces)
def test_units_beside_adapters_are_replaced_and_adapters_are_not(method: str) -> None:
    def build() -> nn.Module:
        model = adapted("qkv")
        for name, parameter in model.named_parameters():
            parameter.requires_grad_("lora" in name or ".up." in name or ".down." in name)
        return model

    kind = Problem(build, PROBLEMS["transformer"].draw, PROBLEMS["transformer"].loss)
    seen: dict[str, Tensor] = {}

    def adapters(run: Run) -> dict[str, Tensor]:
        return {name: value for name, value in run.state.items() if "lora" in name}

    def watch(run: Run) -> None:
        run.optimizer.register_step_post_hook(lambda *args: seen.update(adapters(run)))

    run = begin(kind, momentum, brisk(method), watch)
    for _ in range(15):
        run.train(1)
        assert seen and all(torch.equal(seen[name], value) for name, value in adapters(run).items())
    assert {group.name.rpartition(".")[2] for group in run.plastic.groups} == {"up"}
