"""What cannot be served, and what is said about it."""

import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from regrow.errors import ModelError
from regrow.units import rules
from regrow.units.rules import registry
from regrow.units.trace import find_units
from regrow.units.verify import verify
from tests.units.hand_written import Net
from tests.units.test_user_models import OBSERVATIONS, mlp, proven


def refused(model: nn.Module, example: Any = OBSERVATIONS) -> str:
    with pytest.raises(ModelError) as caught:
        find_units(model, example)
    with pytest.raises(ModelError, match="^" + str(caught.value)[:20].replace("(", "[(]")):
        verify(model, example)
    return str(caught.value)


def reasons(between: Callable[[Net, Tensor], Tensor], **more: Any) -> tuple[str, ...]:
    """Why the hidden layer of 5 → 6 → 2 cannot be replaced."""
    torch.manual_seed(0)
    model = Net(lambda m, x: m.b(between(m, F.relu(m.a(x)))), a=nn.Linear(5, 6), b=nn.Linear(6, 2), **more)
    group = proven(model, OBSERVATIONS)["a"]
    assert group.status == "blocked"
    return group.reasons


# The example


def test_a_wrong_shape_is_the_models_own_error_with_a_sentence_on_top() -> None:
    with pytest.raises(ModelError) as caught:
        find_units(mlp(), {"input": torch.zeros(4, 3)})
    text = str(caught.value)
    assert text.startswith(
        "Sequential cannot take the example, keywords input=a tensor of shape (4, 3) and type float32, in training "
        "mode: RuntimeError: mat1 and mat2 shapes cannot be multiplied (4x3 and 5x6)"
    )
    assert "Give as example= what the model is called with" in text
    assert "mat1 and mat2" in str(caught.value.__cause__)


def test_wrong_names_numbers_and_types_of_inputs() -> None:
    assert "unexpected keyword argument 'images'" in refused(mlp(), {"images": OBSERVATIONS})
    assert "takes 2 positional arguments but 3 were given" in refused(mlp(), (OBSERVATIONS, OBSERVATIONS))
    assert "a tensor of shape (4, 5) and type int64" in refused(mlp(), OBSERVATIONS.long())
    assert "Sequential cannot take the example, None, in training mode" in refused(mlp(), None)
    assert "a callable, in training mode: ZeroDivisionError" in refused(mlp(), lambda model: 1 / 0)


def test_an_input_that_the_forward_differentiates_by() -> None:
    def slope(m: Net, x: Tensor) -> Tensor:
        (result,) = torch.autograd.grad(m.b(m.a(x).tanh()).sum(), x, create_graph=True)
        return result

    model = Net(slope, a=nn.Linear(5, 6), b=nn.Linear(6, 1))
    assert "One of the differentiated Tensors does not require grad" in refused(model, OBSERVATIONS)
    example = OBSERVATIONS.clone().requires_grad_()
    assert [group.status for group in find_units(model, example)] == ["blocked", "blocked"]


class NeedsLabels(nn.Module):
    """As models of libraries are: the loss comes out if labels go in."""

    def __init__(self, strict: bool) -> None:
        super().__init__()
        self.a, self.b, self.strict = nn.Linear(5, 6), nn.Linear(6, 2), strict

    def forward(self, value: Tensor, labels: Tensor | None = None) -> dict[str, Tensor | None]:
        if labels is None and self.strict:
            raise ValueError("You have to specify labels")
        logits = self.b(F.relu(self.a(value)))
        return {"loss": None if labels is None else F.cross_entropy(logits, labels)}


def test_a_model_that_needs_labels() -> None:
    text = refused(NeedsLabels(strict=True))
    assert "in training mode: ValueError: You have to specify labels. Give as example= what the model is cal" in text
    text = refused(NeedsLabels(strict=False))
    assert text.startswith("NeedsLabels returned no tensor but keywords loss=None, so it cannot be told what its units")
    for strict in (False, True):
        graph = proven(NeedsLabels(strict), {"value": OBSERVATIONS, "labels": torch.tensor([0, 1, 1, 0])})
        assert [(group.name, group.status) for group in graph] == [("a", "free"), ("b", "output")]


# State


class Keeps(nn.Module):
    """Remembers its hidden layer in some way."""

    def __init__(self, keep: Callable[[Any, Tensor], Tensor]) -> None:
        super().__init__()
        self.a, self.b, self.keep = nn.Linear(5, 6), nn.Linear(6, 2), keep
        self.past: list[Tensor] = []
        self.by_name: dict[str, list[Tensor]] = {"h": []}
        self.calls = 0
        self.register_buffer("seen", torch.zeros(0, 6))

    def forward(self, value: Tensor) -> Tensor:
        self.calls += 1
        return self.b(self.keep(self, F.relu(self.a(value))))


def in_a_list(m: Keeps, h: Tensor) -> Tensor:
    m.past.append(h)
    return torch.stack(m.past[-2:]).mean(0)


def in_an_attribute(m: Keeps, h: Tensor) -> Tensor:
    before, m.last = getattr(m, "last", 0), h.detach()
    return h + before


def in_a_cache(m: Keeps, h: Tensor) -> Tensor:
    if not m.by_name["h"]:
        m.by_name = {"h": [h]}
    return m.by_name["h"][0]


def in_a_buffer_that_grows(m: Keeps, h: Tensor) -> Tensor:
    m.seen = torch.cat([m.seen, h.detach()])
    return h + m.seen.mean(0)


def as_a_sum(m: Keeps, h: Tensor) -> Tensor:
    m.penalty = h.square().sum()
    return h


@pytest.mark.parametrize(
    ("keep", "reason"),
    [
        (in_a_list, "past keeps it between forwards"),
        (in_an_attribute, "last keeps it between forwards"),
        (in_a_cache, "by_name keeps it between forwards"),
        (in_a_buffer_that_grows, "seen keeps it between forwards"),
        (as_a_sum, "sum of the model makes one value of all units"),
    ],
)
def test_what_a_module_keeps_blocks_and_is_put_back(keep: Callable[[Any, Tensor], Tensor], reason: str) -> None:
    torch.manual_seed(0)
    model = Keeps(keep)
    before = dict(vars(model))
    group = proven(model, OBSERVATIONS)["a"]
    assert (group.status, group.reasons) == ("blocked", (reason,))
    assert vars(model) == before
    assert model.past == [] and model.by_name == {"h": []} and model.calls == 0 and model.seen.shape == (0, 6)


def test_what_is_kept_and_also_returned_is_an_output() -> None:
    model = Keeps(as_a_sum)
    graph = proven(model, lambda model: (model(OBSERVATIONS), model.penalty))
    assert graph["a"].status == "blocked"
    assert graph["b"].status == "output"
    graph = proven(nn.Sequential(mlp(), Keeps(lambda m, h: h)), lambda model: model[0](OBSERVATIONS))
    assert "seen" not in str(graph.unclaimed)


class KeepsElsewhere(nn.Module):
    """Remembers its hidden layer where nobody looks."""

    def __init__(self, read: Callable[[list[Tensor]], Tensor | float], write: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(5, 6), nn.Linear(6, 2)
        past: list[Tensor] = []

        def remember(h: Tensor) -> Tensor:
            before = read(past)
            past[:] = [write(h)]
            return h + before

        self.remember = remember

    def forward(self, value: Tensor) -> Tensor:
        return self.b(self.remember(F.relu(self.a(value))))


def turned(past: list[Tensor]) -> Tensor | float:
    return past[0].flip(-1) if past else 0.0


@pytest.mark.parametrize(
    ("read", "write", "reasons"),
    [
        (turned, torch.detach, ("the model reads what was kept of it since the forward before",)),
        (turned, lambda h: h.detach().sum(1, keepdim=True), ("sum of the model makes one value of all units",)),
        (lambda past: 0.0, torch.detach, ()),  # written down only
        (turned, torch.zeros_like, ()),
    ],
    ids=["units", "a sum", "a log", "a constant"],
)
def test_what_is_kept_outside_the_modules_blocks_if_it_is_read(read: Any, write: Any, reasons: tuple[str, ...]) -> None:
    torch.manual_seed(0)
    group = proven(KeepsElsewhere(read, write), OBSERVATIONS)["a"]
    assert (group.status, group.reasons) == ("blocked" if reasons else "free", reasons)


def test_numbers_of_its_own_that_change_from_forward_to_forward_are_no_obstacle_but_nothing_is_proved() -> None:
    calls, own = [0], torch.Generator()

    def counted(m: Net, h: Tensor) -> Tensor:
        calls[0] += 1
        return h * calls[0]

    def noisy(m: Net, h: Tensor) -> Tensor:
        return h + torch.randn(h.shape, generator=own)

    for between in (counted, noisy):
        model = Net(lambda m, x, between=between: m.b(between(m, F.relu(m.a(x)))), a=nn.Linear(5, 6), b=nn.Linear(6, 2))
        assert find_units(model, OBSERVATIONS)["a"].status == "free"
        with pytest.raises(ModelError) as caught:
            verify(model, OBSERVATIONS)
        assert str(caught.value) == (
            "Net returns different values when it is run twice on the same example with the same random seed, in "
            "training mode, so nothing can be proved. It remembers something outside of modules, or draws from a "
            "generator of its own: give as example= a callable that sets this back and then runs the model."
        )

        def example(model: nn.Module) -> Tensor:
            calls[0] = 0
            own.manual_seed(0)
            return model(OBSERVATIONS)

        assert proven(model, example)["a"].status == "free"


# Random forwards


@pytest.mark.parametrize(
    ("between", "status"),
    [
        (lambda m, h: F.dropout(h, 0.5, m.training), "free"),
        (lambda m, h: h + torch.randn_like(h), "free"),
        (lambda m, h: h[torch.rand(len(h)) > 0.3], "free"),
        (lambda m, h: h[:, torch.randperm(6)], "blocked"),
    ],
    ids=["dropout", "noise", "some examples", "shuffled"],
)
def test_a_random_forward(between: Any, status: str) -> None:
    torch.manual_seed(0)
    model = Net(lambda m, x: m.b(between(m, F.relu(m.a(x)))), a=nn.Linear(5, 6), b=nn.Linear(6, 2))
    assert proven(model, OBSERVATIONS)["a"].status == status


# Values that decide


@pytest.mark.parametrize(
    ("between", "reason"),
    [
        (lambda m, h: h[(h[:, 0] + h.amax(1)).nonzero()[:, 0]], "amax of the model makes one value of all units"),
        (lambda m, h: h + h.nonzero().sum(), "nonzero of the model makes a shape of its values"),
        (lambda m, h: h + h[h > 0.1].sum(), "index of the model makes a shape of its values"),
        (lambda m, h: h + h.masked_select(h > 0).sum(), "masked_select of the model makes a shape of its values"),
        (lambda m, h: h * len(h.unique()), "_unique2 of the model makes a shape of its values"),
        (lambda m, h: h if h.sum() > 0 else -h, "sum of the model makes one value of all units"),
        (lambda m, h: h * len(h[h > 0.1]), "index of the model makes a shape of its values"),
    ],
    ids=["rows", "nonzero", "mask", "masked_select", "unique", "branch", "length"],
)
def test_values_that_decide_shapes(between: Callable[[Net, Tensor], Tensor], reason: str) -> None:
    assert any(reason in text for text in reasons(between))


def test_a_layer_in_another_thread() -> None:
    def in_a_thread(m: Net, x: Tensor) -> Tensor:
        with ThreadPoolExecutor(1) as other:
            return m.b(other.submit(m.a, x).result())

    with pytest.raises(ModelError) as caught:
        find_units(Net(in_a_thread, a=nn.Linear(5, 6), b=nn.Linear(6, 2)), OBSERVATIONS)
    assert str(caught.value) == (
        "a (Linear) runs in another thread than the one that looks for units, where what it computes cannot be "
        "followed. Run it in the same thread while units are found."
    )


def test_shapes_that_the_input_decides_are_fine() -> None:
    model = Net(lambda m, x: m.b(F.relu(m.a(x))[x[:, 0] > -0.5]), a=nn.Linear(5, 6), b=nn.Linear(6, 2))
    assert proven(model, OBSERVATIONS)["a"].status == "free"


# Operators without a rule


def test_a_custom_operator_is_named_with_how_to_add_a_rule() -> None:
    @torch.library.custom_op("regrow_tests::halve", mutates_args=())
    def halve(value: Tensor) -> Tensor:
        return value / 2

    assert reasons(lambda m, h: halve(h)) == (
        "regrow_tests::halve of the model has no rule yet (regrow/units/rules/README.md says how to add one)",
    )


def test_a_rule_is_added_as_its_readme_says() -> None:
    @torch.library.custom_op("regrow_tests::third", mutates_args=())
    def third(value: Tensor) -> Tensor:
        return value / 3

    torch.manual_seed(0)
    readme = (Path(rules.__file__).parent / "README.md").read_text()
    (code,) = re.findall(r"```python\n(from regrow[^`]*)```", readme)
    known = dict(registry.rules)
    try:
        exec(code.replace("mylib::halve", "regrow_tests::third"), {})
        model = Net(lambda m, x: m.b(third(F.relu(m.a(x)))), a=nn.Linear(5, 6), b=nn.Linear(6, 2))
        assert proven(model, OBSERVATIONS)["a"].status == "free"
    finally:
        registry.rules.clear()
        registry.rules.update(known)


def test_what_the_network_returns_after_all_of_it_is_mixed() -> None:
    model = Net(lambda m, x: m.b(F.relu(m.a(x))).log_softmax(1), a=nn.Linear(5, 6), b=nn.Linear(6, 2))
    group = proven(model, OBSERVATIONS)["b"]
    assert (group.status, "; ".join(group.reasons)) == (
        "output",
        "the network returns what is made of it, and nothing else reads it; _log_softmax of the model makes units "
        "depend on each other",
    )
