"""What holds at every replacement, under every optimizer."""

import copy
import math

import pytest
import torch
from torch import nn

import regrow
from regrow.errors import ConfigError
from regrow.methods.unit_method import QuotaMethod
from tests.attachment.training import batch, make_network, train

OPTIMIZERS = {
    "momentum": lambda parameters: torch.optim.SGD(parameters, lr=0.05, momentum=0.9),
    "adam": lambda parameters: torch.optim.Adam(parameters, lr=0.003),
    "adamw-foreach": lambda parameters: torch.optim.AdamW(parameters, lr=0.003, foreach=True),
    "adamw-fused": lambda parameters: torch.optim.AdamW(parameters, lr=0.003, fused=True),
    "rmsprop": lambda parameters: torch.optim.RMSprop(parameters, lr=0.003, momentum=0.9),
    "adagrad": lambda parameters: torch.optim.Adagrad(parameters, lr=0.01),
}
RATE, MATURITY = 0.01, 7


class CountingSgd(torch.optim.Optimizer):
    """Keeps a step count for every element, as some optimizers do."""

    def __init__(self, parameters) -> None:
        super().__init__(parameters, {"lr": 0.05})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for parameter in group["params"]:
                state = self.state[parameter]
                state.setdefault("counts", torch.zeros_like(parameter)).add_(1)
                parameter.sub_(parameter.grad / state["counts"].sqrt(), alpha=group["lr"])


@pytest.mark.parametrize("make", [*OPTIMIZERS.values(), CountingSgd], ids=[*OPTIMIZERS, "per-element-counts"])
def test_each_replacement_touches_exactly_its_own_elements(make) -> None:
    """Against a twin that takes the same step without regrow: all else is bit-identical."""
    model = make_network()
    optimizer = make(model.parameters())
    plastic = regrow.attach(model, optimizer, regrow.ContinualBackprop(RATE, MATURITY), example=batch(0)[0])
    below, middle, above = model[0], model[2], model[4]
    consumer = {"0": middle, "2": above}
    producer = {"0": below, "2": middle}
    count = 0
    for step in range(150):
        twin, twin_optimizer = copy.deepcopy((model, optimizer))
        seen = len(plastic.events)
        train(model, optimizer, 1, start=step)
        train(twin, twin_optimizer, 1, start=step)
        new = plastic.events[seen:]
        count += len(new)
        assert all(event.step == step + 1 for event in new)

        redrawn = {id(p): torch.zeros_like(p, dtype=torch.bool) for p in model.parameters()}
        silenced = {id(p): torch.zeros_like(p, dtype=torch.bool) for p in model.parameters()}
        for event in new:
            redrawn[id(producer[event.group].weight)][event.unit] = True
            redrawn[id(producer[event.group].bias)][event.unit] = True
            silenced[id(consumer[event.group].weight)][:, event.unit] = True
        for parameter, other in zip(model.parameters(), twin.parameters(), strict=True):
            born, silent = redrawn[id(parameter)], silenced[id(parameter)]
            assert not parameter[silent & ~born].any(), "an outgoing weight of a newborn is not exactly 0"
            if parameter.dim() == 1:
                assert not parameter[born].any(), "the bias of a newborn is not 0"
            else:
                assert (parameter[born] != other[born]).all(), "an incoming weight was not drawn anew"
                bound = 1 / math.sqrt(parameter.shape[1])
                assert parameter[born].abs().max() <= bound if born.any() else True
            rest = ~(born | silent)
            assert torch.equal(parameter[rest], other[rest])
            for key, value in optimizer.state[parameter].items():
                theirs = twin_optimizer.state[other][key]
                if torch.is_tensor(value) and value.shape == parameter.shape:
                    assert not value[born | silent].any(), f"{key} of a replaced element is not 0"
                    assert torch.equal(value[rest], theirs[rest])
                else:
                    assert torch.equal(torch.as_tensor(value), torch.as_tensor(theirs)), "a scalar step must stay"
    assert count == plastic.metrics()["replacements"] > 25


@pytest.mark.parametrize("kind", [regrow.ContinualBackprop, regrow.RandomReplacement])
def test_what_the_optimizer_remembers_can_be_kept(kind: type[QuotaMethod]) -> None:
    """As the published code for PPO has it: the weights are new, the moments those of the unit that went."""
    states = {}
    for moments in ("cleared", "kept"):
        torch.manual_seed(0)
        model = make_network()
        optimizer = torch.optim.Adam(model.parameters())
        method = kind(0.5, 0, moments=moments)
        plastic = regrow.attach(model, optimizer, method, example=batch(0)[0])
        train(model, optimizer, 1)
        units = [event.unit for event in plastic.events if event.group == "2"]
        first, second = model[2].weight, model[4].weight
        assert len(units) == 6 and not second[:, units].any()
        means = [optimizer.state[parameter]["exp_avg"] for parameter in (first, second)]
        states[moments] = torch.cat([means[0][units].flatten(), means[1][:, units].flatten()])
    assert not states["cleared"].any() and states["kept"].any()
    with pytest.raises(ConfigError, match=f"{kind.__name__}.moments cannot be 'lost'"):
        kind(moments="lost")


@pytest.mark.parametrize("rate", [1e-4, 0.007, 0.3, 1.0])
@pytest.mark.parametrize("maturity", [0, 1, 30])
def test_as_many_as_are_due_and_none_too_young(rate: float, maturity: int) -> None:
    from fractions import Fraction

    model = make_network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    plastic = regrow.attach(model, optimizer, regrow.ContinualBackprop(rate, maturity), example=batch(0)[0])
    sizes = {"0": 16, "2": 12}
    born = {name: [0] * size for name, size in sizes.items()}
    eligible_sum = dict.fromkeys(sizes, 0)
    replaced = dict.fromkeys(sizes, 0)
    for step in range(1, 201):
        seen = len(plastic.events)
        train(model, optimizer, 1, start=step)
        for name in sizes:
            eligible = [unit for unit, birth in enumerate(born[name]) if step - birth > maturity]
            eligible_sum[name] += len(eligible)
            due = math.floor(Fraction(str(rate)) * eligible_sum[name]) - replaced[name]
            units = [event.unit for event in plastic.events[seen:] if event.group == name]
            assert len(units) == len(set(units)) == due
            assert set(units) <= set(eligible)
            replaced[name] += due
            for unit in units:
                born[name][unit] = step
            assert plastic.state_of(name)["age"].tolist() == [step - birth for birth in born[name]]
    assert rate < 0.007 or sum(replaced.values()) > 10


def test_a_newborns_incoming_weight_wins_over_the_zero_of_another_newborn() -> None:
    model = make_network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    ones = regrow.attach(
        model,
        optimizer,
        regrow.ContinualBackprop(1.0, 0),
        init=lambda group, units, shape, generator: torch.ones(shape),
        example=batch(0)[0],
    )
    train(model, optimizer, 1)
    assert len(ones.events) == 16 + 12
    assert (model[2].weight == 1).all()
    assert (model[4].weight == 0).all()


def test_init_sees_the_group_the_units_and_the_shape() -> None:
    calls = []

    def init(group, units, shape, generator):
        calls.append((group.name, units.tolist(), shape))
        return torch.zeros(shape)

    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 16, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    images = torch.randn(2, 3, 6, 6)
    plastic = regrow.attach(model, optimizer, regrow.ContinualBackprop(0.25, 0), init=init, example=images)
    model(images).sum().backward()
    optimizer.step()
    assert calls == [("0", [plastic.events[0].unit], (1, 3, 3, 3))]


def test_init_of_the_wrong_shape_is_an_error() -> None:
    model = make_network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    regrow.attach(
        model, optimizer, regrow.ContinualBackprop(1.0, 0), init=lambda *_: torch.zeros(3), example=batch(0)[0]
    )
    with pytest.raises(regrow.RegrowError, match=r"must return a tensor of shape \(16, 20\) for 0.weight of group '0'"):
        train(model, optimizer, 1)


def test_bernoulli_budget_draws_about_as_many() -> None:
    model = make_network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    method = regrow.ContinualBackprop(0.02, 5, budget="bernoulli")
    plastic = regrow.attach(model, optimizer, method, example=batch(0)[0])
    train(model, optimizer, 300)
    # Eligible: 28 units less those younger than 6 steps, of which there are about 0.02 · 28 · 5 ≈ 2.5.
    expected = 0.02 * 25.5 * 295
    assert abs(len(plastic.events) - expected) < 4 * math.sqrt(expected)
    steps = [event.step for event in plastic.events if event.group == "0"]
    gaps = {later - earlier for earlier, later in zip(steps, steps[1:], strict=False)}
    assert len(gaps) > 5, "a carried budget would be nearly regular"
