"""The properties in `soundness.py` are worth something: each broken rule here is caught by them."""

from collections import Counter
from collections.abc import Callable
from random import Random
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, Phase, find, settings
from hypothesis.errors import NoSuchExample
from torch import Tensor

from regrow.units import record as records
from regrow.units.call import Call
from regrow.units.labels import NONE
from regrow.units.record import Record
from regrow.units.rules import pointwise
from regrow.units.rules.registry import rules
from tests.units.grammar import Network, Program, programs
from tests.units.soundness import complaints

aten = torch.ops.aten
Break = Callable[[pytest.MonkeyPatch], None]


def rule_is(*operators: Any, labels: Callable[[Tensor], Tensor]) -> Break:
    """Operators that pass on the labels of their first argument, perhaps changed, and leave no evidence."""

    def broken(record: Record, call: Call) -> None:
        plane = labels(record.labels(call.inputs[0]))
        record.ignore(*call.inputs)
        for out in call.outputs:
            record.write(out, plane if out.shape == plane.shape else torch.full(out.shape, NONE))

    def patch(monkeypatch: pytest.MonkeyPatch) -> None:
        for operator in operators:
            monkeypatch.setitem(rules, operator, broken)

    return patch


def half(plane: Tensor) -> Tensor:
    plane = plane.clone(memory_format=torch.contiguous_format)
    plane[plane % 2 == 1] = NONE
    return plane


def no_leak(kind: str) -> Break:
    """Leaks of one kind are forgotten."""
    leak = Record.leak

    def broken(self: Record, given: Any, reason: str, units: Tensor, results: Any) -> int:
        return leak(self, given, reason, units, () if given == kind else results)

    return lambda monkeypatch: monkeypatch.setattr(Record, "leak", broken)


def claims(role: str, change: Callable[[Tensor], Tensor]) -> Break:
    """The planes of claims in one role are changed."""
    claim = Record.claim

    def broken(self: Record, weight: Tensor, given: Any, plane: Tensor, *args: Any, **more: Any) -> None:
        claim(self, weight, given, change(plane) if given == role else plane, *args, **more)

    return lambda monkeypatch: monkeypatch.setattr(Record, "claim", broken)


def no_join(monkeypatch: pytest.MonkeyPatch) -> None:
    """What meets in an element has the label of the first."""
    monkeypatch.setattr(pointwise, "join", lambda record, planes, *rest: planes[0] if planes else torch.tensor(NONE))


def last_use_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """An element that is in several places of a weight counts at the last."""
    monkeypatch.setattr(records, "apart", lambda addresses: [addresses])


# Broken rules, with the family and the kinds of steps of networks on which they show.
BROKEN: dict[str, tuple[Break, str]] = {
    "relu drops half of the labels": (rule_is(aten.relu, labels=half), "vectors layer activation"),
    "relu drops labels": (rule_is(aten.relu_, labels=lambda plane: plane.clamp(max=NONE)), "images layer_in_place"),
    "soft-max without a leak": (rule_is(aten._softmax, labels=lambda plane: plane), "vectors layer mix"),
    "layer norm without a leak": (
        rule_is(aten.native_layer_norm, labels=lambda plane: plane),
        "vectors layer layer_norm",
    ),
    "flip that moves no labels": (rule_is(aten.flip, labels=lambda plane: plane), "images layer flip"),
    "no leaks of mixes": (no_leak("mix"), "vectors layer mix by_statistic one_gate"),
    "no leaks of norms": (no_leak("norm"), "images layer layer_norm group_norm"),
    "no leaks of products": (no_leak("product"), "sequences attention linear_attention"),
    "an outgoing claim that lacks columns": (claims("outgoing", half), "vectors layer add"),
    "an outgoing claim that is shifted": (claims("outgoing", lambda plane: plane.roll(1, 1)), "images layer add"),
    "an incoming claim that is shifted": (claims("incoming", lambda plane: plane.roll(1, -1)), "vectors layer add"),
    "a gain that is shifted": (claims("gain", lambda plane: plane.roll(1, 0)), "sequences layer scale norm"),
    "a bias that is shifted": (claims("bias", lambda plane: plane.roll(1, 0)), "vectors layer"),
    "units that meet are not joined": (no_join, "vectors layer add gate"),
    "an element in several places": (last_use_only, "vectors layer moved_weight"),
}


def is_wrong(program: Program) -> bool:
    network = Network(program)
    for training in (True, False):
        with torch.no_grad(), torch.random.fork_rng([]):
            if not all(bool(one.isfinite().all()) for one in network.train(training)(network.example.clone())):
                return False
    return bool(complaints(network.train(), network.example, Counter(), units_per_group=1))


@pytest.mark.slow
@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_rule_is_caught(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    breaks, networks = BROKEN[name]
    breaks(monkeypatch)
    # Without shrinking, and always the same networks: what is in question here is only whether any network tells.
    short = settings(max_examples=100, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
    find(programs(*networks.split()), is_wrong, settings=short, random=Random(0))


@pytest.mark.parametrize("name", BROKEN)
def test_the_true_rules_pass_on_the_same_networks(name: str) -> None:
    _, networks = BROKEN[name]
    short = settings(max_examples=5, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
    with pytest.raises(NoSuchExample):
        find(programs(*networks.split()), is_wrong, settings=short, random=Random(0))
