"""Defects that other implementations have, where no other test would notice them here. Those of one method are in its
own file, those of surgery and wiring in tests/attachment and tests/units.
"""

import pytest
import torch
from torch import nn

import regrow
from regrow.errors import ConfigError
from regrow.methods import (
    FIRE,
    ContinuousContinualBackprop,
    Method,
    NormalizeAndProject,
    ParsevalPenalty,
    QuotaMethod,
    ReDo,
    ReGraMa,
    SelfNormalizedReset,
    SpectralPenalty,
    WeightClipping,
)
from regrow.methods.unit_method import UnitMethod
from tests.attachment.training import batch as wide_batch
from tests.attachment.training import make_network as wide_network
from tests.attachment.training import train
from tests.conformance.cases import PROBLEMS
from tests.methods.by_hand import attached, batch, descended, gradients, hidden, loss_of, make_network, step, values

# Each of them re-draws some units all the way at its first step.
EAGER = [
    regrow.ContinualBackprop(0.2, 0),
    regrow.RandomReplacement(0.2, 0),
    ReDo(1, 10.0, 0.2),
    ReGraMa(1, 10.0, 0.2),
    SelfNormalizedReset(1, largest_gap=1, resolution=1, reset_when="as_long"),
]


def kind(method: Method) -> str:
    return type(method).name


def test_no_method_that_replaces_is_left_out() -> None:
    known = {type(method) for method in EAGER} | {ContinuousContinualBackprop}  # which never goes all the way
    assert known == {each for each in Method.registry.values() if issubclass(each, UnitMethod)}


@pytest.mark.parametrize("method", EAGER, ids=kind)
def test_outgoing_weights_are_0_after_the_step_and_state_is_cleared_there_only(method: UnitMethod) -> None:
    """Not before the step, which would move them; no copy made by a mask; the step count of Adam stays."""
    model = wide_network()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    train(model, optimizer, 3)
    old = model[0].weight.detach().clone()
    plastic = regrow.attach(model, optimizer, method, example=wide_batch(0)[0])
    if kind(method) == "snr":
        with torch.no_grad():
            model[0].bias[:3] = model[2].bias[:2] = -100.0  # silent
    train(model, optimizer, 1, start=3)
    for name, reader in (("0", model[2]), ("2", model[4])):
        units = sorted(event.unit for event in plastic.events if event.group == name)
        others = [unit for unit in range(reader.in_features) if unit not in units]
        assert units and others
        maker = model[int(name)]
        assert not reader.weight[:, units].any() or name == "0"  # there the re-draw of the next group wins
        for key in ("exp_avg", "exp_avg_sq"):
            assert not optimizer.state[maker.weight][key][units].any()
            assert not optimizer.state[maker.bias][key][units].any()
            assert not optimizer.state[reader.weight][key][:, units].any()
            assert optimizer.state[maker.weight][key][others].any(dim=1).all() or kind(method) == "snr" or name == "2"
        assert optimizer.state[maker.weight]["step"].item() == optimizer.state[reader.weight]["step"].item() == 4
    moved = [event.unit for event in plastic.events if event.group == "0"]
    assert (model[0].weight[moved] - old[moved]).abs().max(dim=1).values.min() > 0.02, "redrawn, not stepped"


@pytest.mark.parametrize("rate", [0.003, 0.05])
def test_the_same_rate_means_the_same_in_every_class(rate: float) -> None:
    counts = set()
    for each in Method.registry.values():
        if issubclass(each, QuotaMethod):
            model, optimizer, plastic = attached(each(rate, 5), wide_network(), example=wide_batch(0)[0])
            train(model, optimizer, 200)
            counts.add(tuple((event.step, event.group) for event in plastic.events))
    assert len(counts) == 1 and len(counts.pop()) > 10


def test_a_raw_running_mean_would_pick_the_newest_again() -> None:
    """Activities 1, 2, 5, 6, new units 3, all outgoing weights 1: after the first and second unit it is a new one's
    turn, but not before, though its running mean is still the lowest.
    """
    model = make_network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    with torch.no_grad():
        model[0].bias.zero_()
        model[0].weight.copy_(torch.tensor([1.0, 2.0, 5.0, 6.0])[:, None].expand(4, 3))
    plastic = regrow.attach(
        model,
        optimizer,
        regrow.ContinualBackprop(0.025, 3),
        init=lambda group, units, shape, generator: torch.full(shape, 3.0),
        example=batch()[0],
    )
    inputs = torch.full((2, 3), 1 / 3)
    while len(plastic.events) < 3:
        with torch.no_grad():
            model[2].weight.fill_(1.0)
        model(inputs).sum().backward()
        optimizer.step()
    assert [event.unit for event in plastic.events][:2] == [0, 1]
    first, second = plastic.events[:2]
    age = second.step - first.step
    assert age > 3 and 3 * (1 - 0.99**age) < 2 * (1 - 0.99**second.step), "the newest had matured, and seems lower"


def test_0_times_infinity_is_no_reason_to_replace_a_unit() -> None:
    """Unit 0 is silent, and read by an infinite weight; unit 2 is the least useful of the others."""
    model = make_network()
    with torch.no_grad():
        model[0].weight.zero_()
        model[0].bias.copy_(torch.tensor([0.0, 3.0, 1.0, 2.0]))
        model[2].weight.fill_(1.0)
        model[2].weight[0, 0] = float("inf")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    plastic = regrow.attach(model, optimizer, regrow.ContinualBackprop(0.25, 0), example=batch()[0])
    model(batch()[0])
    with pytest.warns(RuntimeWarning, match="NaN or infinity in the activations or weights of 1 of 4 units"):
        optimizer.step()
    assert [event.unit for event in plastic.events] == [2]


@pytest.mark.parametrize("method", [regrow.ContinualBackprop(0.5, 0), ReDo(1, 0.5)], ids=kind)
def test_signed_activations_do_not_cancel(method: UnitMethod) -> None:
    model = nn.Sequential(nn.Linear(1, 2), nn.Tanh(), nn.Linear(2, 1))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[9.0], [0.0]]))
        model[0].bias.copy_(torch.tensor([0.0, 0.1]))
        model[2].weight.fill_(1.0)
    inputs = torch.tensor([[1.0], [-1.0]])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    plastic = regrow.attach(model, optimizer, method, example=inputs)
    model(inputs).sum().backward()
    optimizer.step()
    assert [event.unit for event in plastic.events] == [1], "±1 has mean 0, but is no useless unit"


@pytest.mark.parametrize("method", [regrow.ContinualBackprop(0.25, 0), ReDo(1, 0.5)], ids=kind)
@pytest.mark.parametrize("activation", [nn.Tanh(), nn.LeakyReLU(1.0)], ids=["tanh", "linear"])
def test_a_unit_that_is_always_negative_is_of_use(method: UnitMethod, activation: nn.Module) -> None:
    """What units are ranked by is what the next layer reads, not what a ReLU would leave of it."""
    model = nn.Sequential(nn.Linear(1, 4), activation, nn.Linear(4, 1))
    with torch.no_grad():
        model[0].weight.zero_()
        model[0].bias.copy_(torch.tensor([-3.0, -2.0, 0.1, 3.0]))
        model[2].weight.fill_(1.0)
    inputs = torch.randn(3, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    plastic = regrow.attach(model, optimizer, method, example=inputs)
    model(inputs).sum().backward()
    optimizer.step()
    assert [event.unit for event in plastic.events] == [2]


SILENT = [regrow.ContinualBackprop(0.5, 0), ReDo(1, 0.1), ReGraMa(1, 0.1), EAGER[-1]]


@pytest.mark.parametrize("method", SILENT, ids=kind)
def test_replacing_silent_units_changes_no_output_on_any_input(method: UnitMethod) -> None:
    """So there is nothing for which the next layer's bias would have to make up."""
    model = make_network()
    with torch.no_grad():
        model[0].bias[1:3] = -100.0
    inputs = torch.randn(50, 3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    plastic = regrow.attach(model, optimizer, method, example=inputs)
    before = model(inputs)
    before.square().sum().backward()
    optimizer.step()
    assert sorted(event.unit for event in plastic.events) == [1, 2]
    assert (model[0].bias[1:3] == 0).all(), "they are silent no longer"
    torch.testing.assert_close(model(inputs), before, atol=1e-6, rtol=0)


@pytest.mark.parametrize("method", EAGER[:-1], ids=kind)
def test_a_useful_unit_takes_its_contribution_along_and_no_bias_makes_up_for_it(method: UnitMethod) -> None:
    """On a constant input, where a mean is all there is to make up for."""
    model = wide_network()
    inputs = torch.ones(4, 20)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    plastic = regrow.attach(model, optimizer, method, include="0", example=inputs)
    with torch.no_grad():
        model[0].bias.add_(1.0)
        active = model[:2](inputs)
    before, biases = model[2].weight.detach().clone(), [model[at].bias.detach().clone() for at in (2, 4)]
    model(inputs).square().sum().backward()
    optimizer.step()
    units = [event.unit for event in plastic.events]
    assert active[:, units].any()
    active[:, units] = 0.0
    with torch.no_grad():
        torch.testing.assert_close(model[:3](inputs), nn.functional.linear(active, before, biases[0]))
    assert all(torch.equal(model[at].bias, bias) for at, bias in zip((2, 4), biases, strict=True))


def test_a_smaller_last_batch_counts_as_a_step() -> None:
    model, optimizer, plastic = attached(regrow.ContinualBackprop(1e-4, weight_sums="each_step"), make_network())
    w, mean = values(model), 0.0
    for seed, size in enumerate((5, 5, 2)):
        inputs, targets = batch(seed, size)
        read = abs(hidden(w, inputs)).mean(axis=0)
        optimizer.zero_grad()
        ((model(inputs) - targets).square().sum() / (2 * size)).backward()
        optimizer.step()
        w = values(model)
        mean = 0.99 * mean + 0.01 * read * abs(w["2.weight"]).sum(axis=0)
    utility = plastic.state_of("0")["utility"]
    torch.testing.assert_close(utility, torch.tensor(mean / (1 - 0.99**3), dtype=torch.float32))


@pytest.mark.parametrize("method", [ReDo(1, 0.1, 0.25), ReGraMa(1, 0.1, 0.25)], ids=kind)
def test_one_huge_utility_does_not_take_the_whole_layer(method: UnitMethod) -> None:
    model = make_network()
    with torch.no_grad():
        model[0].weight.fill_(1.0)
        model[0].bias.copy_(torch.tensor([1.0, 2.0, 3.0, 1e6]))
        model[2].weight.copy_(torch.tensor([[1.0, 2.0, 3.0, 1e6]]).expand(2, 4))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    inputs = torch.ones(2, 3)
    plastic = regrow.attach(model, optimizer, method, example=inputs)
    model(inputs).sum().backward()
    optimizer.step()
    assert [event.unit for event in plastic.events] == [0], "three fall below a tenth of the mean; one may go"


def test_no_unit_is_replaced_again_before_it_had_time_to_grow() -> None:
    model, optimizer, plastic = attached(regrow.ContinualBackprop(0.01, 60), wide_network(), example=wide_batch(0)[0])
    train(model, optimizer, 500)
    seen: dict[tuple[str, int], int] = {}
    for event in plastic.events:
        assert event.step - seen.get((event.group, event.unit), 0) > 60
        seen[event.group, event.unit] = event.step
    assert len(plastic.events) > 50


def test_norms_can_be_left_out_of_decay() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.ReLU(), nn.Linear(4, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    regrow.attach(model, optimizer, regrow.L2(1.0), exclude="1")
    weight = model[0].weight.detach().clone()
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    assert (model[1].weight == 1).all()
    torch.testing.assert_close(model[0].weight.detach(), 0.9 * weight)


def test_queries_and_keys_can_be_left_out_of_decay() -> None:
    model = PROBLEMS["transformer"].network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    left_out = [name for name, _ in model.named_modules() if name.endswith("qkv") or "norm" in name]
    regrow.attach(model, optimizer, regrow.L2(1.0), exclude=left_out)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for name, parameter in model.named_parameters():
        kept = "qkv" in name or "norm" in name
        torch.testing.assert_close(parameter.detach(), before[name] * (1.0 if kept else 0.9), rtol=1e-6, atol=0)


@pytest.mark.parametrize("method", EAGER, ids=kind)
def test_no_unit_of_an_output_is_drawn_anew_whatever_it_is_called(method: UnitMethod) -> None:
    """Two heads, of which neither is called one: only columns that read new units change, and no bias."""
    problem = PROBLEMS["actor-critic"]
    model, (states, wanted) = problem.network(), problem.batch(0)
    heads = [model.actor[4], model.critic[4]]
    with torch.no_grad():
        model.actor[2].bias[:3] = -100.0  # silent
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    plastic = regrow.attach(model, optimizer, method, example=states)
    before = [(head.weight.detach().clone(), head.bias.detach().clone()) for head in heads]
    problem.loss(model(states), wanted).backward()
    optimizer.step()
    assert {event.group for event in plastic.events} <= {"actor.0", "actor.2", "critic.0", "critic.2"}
    for name, head, (weight, bias) in zip(("actor.2", "critic.2"), heads, before, strict=True):
        units = [event.unit for event in plastic.events if event.group == name]
        assert units or name == "critic.2"
        weight[:, units] = 0.0
        assert torch.equal(head.weight, weight) and torch.equal(head.bias, bias)


HIDDEN_ONLY = [ParsevalPenalty(0.1), NormalizeAndProject(), WeightClipping(0.1, True), FIRE(skip_output=True)]


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("method", HIDDEN_ONLY, ids=kind)
def test_what_is_for_hidden_layers_leaves_the_output_and_norms_alone(method: Method, tied: bool) -> None:
    """An output layer that shares its weights with a table of words is one, too."""
    problem = PROBLEMS["transformer"]
    model = problem.network()
    if tied:
        model.head.weight = model.words.weight
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    left_out = ["words", "head"] if tied and kind(method) == "fire" else []  # which refuses what is tied
    plastic = regrow.attach(model, optimizer, method, exclude=left_out, example=problem.batch(0)[0])
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3.0).add_(1.0)  # biases of norms too are what none of them would leave alone
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    plastic.task_changed()
    for name, parameter in model.named_parameters():
        same = torch.equal(parameter, before[name]) and not parameter.grad.any()
        hidden_layer = any(part in name for part in ("qkv", "proj", "up", "down"))
        edited = hidden_layer and (name.endswith("weight") or isinstance(method, WeightClipping))
        assert same != edited, name


def test_units_are_ranked_by_gradients_of_the_task_and_not_of_penalties() -> None:
    scores = []
    for methods in ([ReGraMa(1, 0.0)], [regrow.L2(100.0, coupled=True), ReGraMa(1, 0.0)]):
        model, optimizer, plastic = attached(methods)
        loss_of(model).backward()
        optimizer.step()
        scores.append(plastic.state_of("0")["utility"])
    assert torch.equal(*scores) and scores[0].any()


def test_a_frozen_parameter_is_left_alone_by_every_method() -> None:
    for each in Method.registry.values():
        # With a hidden layer that is trained, which some methods need.
        model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        model[0].weight.requires_grad_(False)
        frozen = model[0].weight.detach().clone()
        method = each()
        if isinstance(method, UnitMethod):
            continue
        plastic = regrow.attach(model, optimizer, method, example=batch()[0])
        step(model, optimizer)
        plastic.task_changed([loss_of(model)])
        assert torch.equal(model[0].weight, frozen), each.name


def test_the_scale_of_a_fused_optimizer_does_not_scale_penalties() -> None:
    """Adam fused gets gradients as GradScaler left them."""
    results = []
    for scale in (None, 64.0):
        model = make_network()
        optimizer = torch.optim.Adam(model.parameters(), lr=0.1, fused=True)
        plastic = regrow.attach(model, optimizer, SpectralPenalty(0.5))
        for seed in range(3):
            optimizer.zero_grad()
            (loss_of(model, seed) * (scale or 1.0)).backward()
            if scale is not None:
                optimizer.grad_scale, optimizer.found_inf = torch.tensor(scale), torch.tensor(0.0)
            optimizer.step()
        plastic.detach()
        results.append([parameter.detach() for parameter in model.parameters()])
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize(
    "method", [FIRE(), ParsevalPenalty(), SpectralPenalty(), NormalizeAndProject(), WeightClipping()], ids=kind
)
def test_what_is_about_whole_matrices_refuses_the_factors_of_one(method: Method) -> None:
    model = make_network()
    nn.utils.parametrizations.weight_norm(model[0])
    text = "is about weights as a whole, and 0.parametrizations.weight.original0 is what a parametrization computes one"
    with pytest.raises(ConfigError, match=text):
        attached(method, model)
    model, optimizer, _ = attached(method, model, exclude="0")
    step(model, optimizer)


def test_gains_are_known_after_training_too() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.PReLU(4), nn.Linear(4, 2))
    with torch.no_grad():
        model[1].weight.fill_(3.0)
    model, optimizer, _ = attached(SpectralPenalty(0.1), model)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    torch.testing.assert_close(model[1].weight.detach(), torch.full((4,), 3.0 - 0.1 * 0.1 * 2 * 2.0))
    assert (model[2].weight == 0.25).all(), "neither a gain nor a bias"


def test_a_period_is_counted_in_steps_of_the_optimizer() -> None:
    model, optimizer, plastic = attached(ReDo(2, 10.0))
    w = values(model)
    for seed in (0, 0, 0, 0):  # accumulated
        (loss_of(model, seed) / 4).backward()
    optimizer.step()
    assert not plastic.events and plastic.state_of("0")["age"].tolist() == [1] * 4
    for name, value in descended(w, gradients(w)).items():
        assert abs(values(model)[name] - value).max() < 1e-6
    step(model, optimizer)
    assert len(plastic.events) == 4
