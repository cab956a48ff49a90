"""Parameters that are not trained, or not all the time, keep their bits under every method."""

from collections.abc import Sequence

import pytest
import torch
from torch import nn

import regrow
from regrow.errors import ModelError
from regrow.methods import WeightMethod
from tests.conformance.cases import OPTIMIZERS, PROBLEMS, Run, brisk, every_case, every_method, replaces, start
from tests.conformance.loops import begin, momentum, settled


def first_layer(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters of the first module that has any."""
    name = next(iter(dict(model.named_parameters()))).rpartition(".")[0]
    return {f"{name}.{one}": value for one, value in model.get_submodule(name).named_parameters()}


def touched(run: Run, names: Sequence[str]) -> set[str]:
    """The served groups that have elements of some parameters."""
    return {group.name for group in run.plastic.groups if {part.parameter for part in group.slices} & set(names)}


@every_case()
def test_what_is_frozen_keeps_its_bits(method: str, problem: str, optimizer: str) -> None:
    def freeze(run: Run) -> None:
        for parameter in first_layer(run.model).values():
            parameter.requires_grad_(False)

    run = begin(PROBLEMS[problem], OPTIMIZERS[optimizer], brisk(method), freeze)
    frozen = {name: value.clone() for name, value in first_layer(run.model).items()}
    run.train(15)
    assert all(torch.equal(run.state[name], value) for name, value in frozen.items())
    assert not touched(run, [*frozen])
    if replaces(brisk(method)):
        assert run.plastic.groups
        assert "does not require grad" in run.plastic.table(verbose=True)


@every_case()
def test_what_is_frozen_for_a_while_keeps_its_bits(method: str, problem: str, optimizer: str) -> None:
    run = start(problem, optimizer, brisk(method)).train(5)
    names = first_layer(run.model)
    for parameter in names.values():
        parameter.requires_grad_(False)
    frozen = {name: value.clone() for name, value in names.items()}
    run.train(10)
    assert all(torch.equal(run.state[name], value) for name, value in frozen.items())
    waiting = touched(run, [*frozen])
    for name in waiting:
        assert "waits, since" in run.plastic.table(verbose=True)
        assert not [event for event in run.plastic.events if event.group == name and event.step > 5]
    for parameter in names.values():
        parameter.requires_grad_()
    run.train(10)
    assert run.plastic.metrics()["steps"] == 25
    if problem == "mlp" and replaces(brisk(method)):
        late = {event.group for event in run.plastic.events if event.step > 15}
        assert waiting and waiting <= late


@every_case()
def test_what_no_optimizer_holds_keeps_its_bits(method: str, problem: str, optimizer: str) -> None:
    kind = PROBLEMS[problem]
    model = kind.network()
    mine = first_layer(model)
    others = [value for name, value in model.named_parameters() if name not in mine]
    made = OPTIMIZERS[optimizer](others)
    run = Run(kind, model, made, regrow.attach(model, made, brisk(method), example=kind.batch(0)[0]))
    before = {name: value.clone() for name, value in mine.items()}
    run.train(15)
    assert all(torch.equal(run.state[name], value) for name, value in before.items())
    assert not touched(run, [*mine])
    if problem == "mlp" and replaces(brisk(method)):
        assert run.plastic.unserved["0"] == "the optimizer does not hold 0.weight"


@every_method(replaces)
def test_a_bias_that_no_optimizer_holds_is_not_reset(method: str) -> None:
    model = PROBLEMS["mlp"].network()
    made = momentum([value for name, value in model.named_parameters() if name != "0.bias"])
    plastic = regrow.attach(model, made, brisk(method), example=PROBLEMS["mlp"].batch(0)[0])
    assert plastic.unserved["0"] == "the optimizer does not hold 0.bias"


@every_method()
def test_a_frozen_trunk_keeps_its_statistics(method: str) -> None:
    """With norms in evaluation mode, as is usual where only the last layer is trained."""

    def freeze(run: Run) -> None:
        run.model.requires_grad_(False)
        [*run.model.children()][-1].requires_grad_(True)
        settled(run.model)

    kind = brisk(method)
    if replaces(kind) or (isinstance(kind, WeightMethod) and kind.feature_examples):
        text = f"be replaced by {type(kind).__name__}" if replaces(kind) else "no module of ResNet sees any of units"
        with pytest.raises(ModelError, match=f"{text}(.|\n)*stem.weight does not require grad"):
            begin(PROBLEMS["resnet"], momentum, kind, freeze)
        return
    run = begin(PROBLEMS["resnet"], momentum, kind, freeze)
    head = {name for name, value in run.model.named_parameters() if value.requires_grad}
    before = run.state
    run.train(15)
    kept = {name: value for name, value in run.state.items() if name not in head}
    assert kept and all(torch.equal(before[name], value) for name, value in kept.items())
