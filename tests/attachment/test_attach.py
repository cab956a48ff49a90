"""What `attach` takes, says and refuses."""

import pytest
import torch
from torch import nn

import regrow
import regrow.methods
from tests.attachment.training import batch, make_network, same, train


def _attached(method="cbp", model=None, **options):
    model = model or make_network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    return model, optimizer, regrow.attach(model, optimizer, method, **options)


def test_units_are_found_at_the_first_training_forward_as_with_an_example() -> None:
    method = regrow.ContinualBackprop(0.01, 5)
    lazy, lazy_optimizer, first = _attached(method)
    eager, eager_optimizer, second = _attached(method, example=batch(0)[0])
    with torch.no_grad():
        lazy(batch(0)[0])
    assert first.graph is None
    assert "units are found at the first training forward" in str(first)
    train(lazy, lazy_optimizer, 200)
    train(eager, eager_optimizer, 200)
    assert first.graph is not None
    assert first.events == second.events != []
    assert same(lazy, eager)


@pytest.mark.parametrize(
    "example",
    [
        batch(0)[0],
        (batch(0)[0],),
        {"input": batch(0)[0]},
        lambda model: model(batch(0)[0]),
    ],
    ids=["tensor", "tuple", "dict", "callable"],
)
def test_an_example_has_four_forms(example) -> None:
    _, _, plastic = _attached(example=example)
    assert [group.name for group in plastic.groups] == ["0", "2"]


def test_the_table_lists_every_group_with_its_law_and_reason() -> None:
    _, _, plastic = _attached([regrow.ContinualBackprop(), regrow.L2(1e-3)], example=batch(0)[0])
    text = str(plastic)
    assert "ContinualBackprop(" in text and "L2(" in text and "2 of 3 groups served, 28 units" in text
    lines = {line.split()[0]: line for line in text.splitlines() if line[:1].isdigit()}
    assert "0.weight" in lines["0"] and "2.weight" in lines["0"] and "uniform in [-0.224, 0.224]" in lines["0"]
    assert "free" in lines["2"] and "served" in lines["2"]
    assert "output" in lines["4"] and "not served" in lines["4"]


def test_the_law_is_the_modules_own_and_init_overrides_it() -> None:
    _, _, plastic = _attached(example=batch(0)[0], init="kaiming_uniform")
    assert "kaiming_uniform" in str(plastic)
    model = nn.Sequential(make_network(), nn.ReLU())
    model[0][2].weight = nn.Parameter(torch.full((12, 16), 0.5))
    _, _, plastic = _attached(model=model, example=batch(0)[0])
    assert "0.2.weight" in str(plastic) and "uniform in [-0.25, 0.25]" in str(plastic)


def test_include_and_exclude_take_names_and_predicates() -> None:
    assert [g.name for g in _attached(example=batch(0)[0], include=["2"])[2].groups] == ["2"]
    assert [g.name for g in _attached(example=batch(0)[0], exclude=["2"])[2].groups] == ["0"]
    _, _, plastic = _attached(example=batch(0)[0], include=[lambda group: group.size == 12])
    assert [g.name for g in plastic.groups] == ["2"]
    assert "left out by include= or exclude=" in str(plastic)
    assert [g.name for g in _attached(example=batch(0)[0], exclude="0")[2].groups] == ["2"]
    assert [g.name for g in _attached(example=batch(0)[0], include=lambda group: group.size == 12)[2].groups] == ["2"]


def test_strict_asks_for_what_was_not_left_out_on_purpose() -> None:
    model = make_network()
    optimizer = torch.optim.Adam([*model[2].parameters(), *model[4].parameters()])
    options = {"example": batch(0)[0], "strict": True}
    assert "0: the optimizer does not hold" in _error(lambda: regrow.attach(model, optimizer, "cbp", **options))
    plastic = regrow.attach(model, optimizer, "cbp", exclude="0", **options)
    assert [group.name for group in plastic.groups] == ["2"]


def test_parameters_of_no_unit_are_listed_with_their_reasons() -> None:
    model = make_network()
    model.register_parameter("left", nn.Parameter(torch.ones(3)))
    text = str(_attached(model=model, example=batch(0)[0])[2])
    assert "parameters of no unit:\n  left: the example does not reach it" in text
    model = nn.Sequential(nn.Linear(20, 5))
    model.register_parameter("left", nn.Parameter(torch.ones(3)))
    assert "\n  left: the example does not reach it\n" in _error(lambda: _attached(model=model, example=batch(0)[0]))


def test_names_choose_the_parameters_of_a_weight_method() -> None:
    for include, expected in ((["2"], [False, False, True, True, False, False]), ([], [False] * 6)):
        model, optimizer, _ = _attached(regrow.L2(1.0), include=include)
        before = [p.detach().clone() for p in model.parameters()]
        for parameter in model.parameters():
            parameter.grad = torch.zeros_like(parameter)
        optimizer.step()
        changed = [not torch.equal(p, b) for p, b in zip(model.parameters(), before, strict=True)]
        assert changed == expected


def test_backprop_changes_nothing() -> None:
    model, optimizer, plastic = _attached("backprop")
    twin = make_network()
    train(model, optimizer, 50)
    train(twin, torch.optim.SGD(twin.parameters(), lr=0.05), 50)
    assert same(model, twin)
    assert not plastic.events


@pytest.mark.parametrize(
    "method",
    [regrow.ContinualBackprop(0.0), regrow.RandomReplacement(0.0), regrow.L2(0.0), regrow.ShrinkAndPerturb(0, 0)],
)
def test_at_rate_or_strength_0_nothing_changes(method) -> None:
    model, optimizer, _ = _attached(method)
    twin = make_network()
    train(model, optimizer, 150)
    train(twin, torch.optim.SGD(twin.parameters(), lr=0.05), 150)
    assert same(model, twin)


def test_same_seed_same_numbers_and_another_seed_others() -> None:
    runs = []
    for seed in (1, 1, 2):
        model, optimizer, _ = _attached(regrow.RandomReplacement(0.01, 5), example=batch(0)[0], seed=seed)
        train(model, optimizer, 60)
        runs.append(model)
    assert same(runs[0], runs[1])
    assert not same(runs[0], runs[2])


def test_weight_methods_act_before_unit_methods() -> None:
    """Noise must not disturb the zeros of a newborn, in whichever order the methods are named."""
    for methods in ([regrow.ContinualBackprop(0.05, 2), regrow.ShrinkAndPerturb(0.0, 0.1)],) * 2:
        model, optimizer, plastic = _attached(methods, example=batch(0)[0])

        def check(step: int, model=model, plastic=plastic) -> None:
            for event in plastic.events:
                if event.step == step + 1 and event.group == "2":
                    assert not model[4].weight[:, event.unit].any()

        train(model, optimizer, 60, after=check)
        assert len(plastic.events) > 20
        methods.reverse()


def test_manual_mode_acts_when_asked() -> None:
    model = make_network()
    plastic = regrow.attach(model, None, regrow.ContinualBackprop(0.05, 2), example=batch(0)[0])
    for step in range(40):
        inputs, labels = batch(step)
        model.zero_grad()
        nn.functional.cross_entropy(model(inputs), labels).backward()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter -= 0.05 * parameter.grad
        plastic.step()
    assert len(plastic.events) > 20
    plastic.detach()
    with pytest.raises(regrow.RegrowError, match="attachment that was detached"):
        plastic.step()
    event = plastic.events[-1]
    assert plastic.state_of(event.group)["age"].shape == (dict(zip("02", (16, 12), strict=True))[event.group],)


def test_metrics_are_floats() -> None:
    model, optimizer, plastic = _attached(regrow.ContinualBackprop(0.02, 5), example=batch(0)[0])
    train(model, optimizer, 100)
    metrics = plastic.metrics()
    assert all(isinstance(value, float) for value in metrics.values())
    assert metrics["steps"] == 100
    assert metrics["replacements"] == metrics["0/replacements"] + metrics["2/replacements"] == len(plastic.events)
    assert 0 < metrics["0/mean_age"] < 100


# Bad input


def _error(call) -> str:
    with pytest.raises(regrow.RegrowError) as caught:
        call()
    assert isinstance(caught.value, ValueError | RuntimeError)
    return str(caught.value)


@pytest.mark.parametrize(
    ("build", "text"),
    [
        (lambda: regrow.ContinualBackprop(1.5), "replacement_rate is a share and must lie in [0, 1], but is 1.5"),
        (lambda: regrow.ContinualBackprop(-0.1), "replacement_rate is a share and must lie in [0, 1], but is -0.1"),
        (lambda: regrow.ContinualBackprop(float("nan")), "must lie in [0, 1], but is nan"),
        (lambda: regrow.ContinualBackprop("0.1"), "must lie in [0, 1], but is '0.1'"),
        (lambda: regrow.ContinualBackprop(torch.tensor(0.1)), "must lie in [0, 1], but is tensor(0.1"),
        (lambda: regrow.L2(None), "L2.strength must be a finite number ≥ 0, but is None"),
        (
            lambda: regrow.RandomReplacement(0.1, -1),
            "maturity_threshold must be a whole number of at least 0, but is -1",
        ),
        (
            lambda: regrow.ContinualBackprop(0.1, 2.5),
            "maturity_threshold must be a whole number of at least 0, but is 2.5",
        ),
        (lambda: regrow.ContinualBackprop(budget="carry"), "budget cannot be 'carry'; did you mean 'carried'?"),
        (lambda: regrow.ContinualBackprop(utility_rule="weight"), "utility_rule cannot be 'weight'"),
        (lambda: regrow.ContinualBackprop(decay_rate=1.0), "decay_rate must be less than 1"),
        (lambda: regrow.L2(-1.0), "L2.strength must be a finite number ≥ 0, but is -1.0"),
        (lambda: regrow.ShrinkAndPerturb(noise_std=float("inf")), "noise_std must be a finite number ≥ 0, but is inf"),
        (lambda: regrow.ShrinkAndPerturb(period=0), "period must be a whole number of at least 1, but is 0"),
    ],
)
def test_bad_settings(build, text: str) -> None:
    assert text in _error(build)


def test_an_unknown_method_names_the_nearest() -> None:
    text = _error(lambda: _attached("cpb"))
    assert "There is no method 'cpb'; did you mean 'cbp'? Known: backprop, cbp, cbp-first-order, ccbp," in text


def test_an_optimizer_of_another_model() -> None:
    optimizer = torch.optim.Adam(make_network().parameters())
    text = _error(lambda: regrow.attach(make_network(), optimizer, "cbp"))
    assert "The Adam holds none of the parameters of Sequential. Make the optimizer from model.parameters()" in text


def test_an_optimizer_of_a_part_serves_that_part() -> None:
    model = make_network()
    optimizer = torch.optim.Adam([*model[2].parameters(), *model[4].parameters()])
    plastic = regrow.attach(model, optimizer, "cbp", example=batch(0)[0])
    assert [group.name for group in plastic.groups] == ["2"]
    assert "not served: the optimizer does not hold 0.weight" in str(plastic)
    text = _error(lambda: regrow.attach(model, optimizer, regrow.RandomReplacement(), example=batch(0)[0], strict=True))
    assert "strict=True, but 1 groups of Sequential cannot be served" in text
    assert "0: the optimizer does not hold 0.weight" in text


def test_an_example_that_the_model_cannot_take() -> None:
    text = _error(lambda: _attached(example=torch.zeros(2, 7)))
    assert "example" in text and "Sequential" in text


def test_a_model_in_which_nothing_can_be_replaced() -> None:
    text = _error(lambda: _attached(model=nn.Linear(20, 5), example=batch(0)[0]))
    assert "Nothing in Linear can be replaced by ContinualBackprop" in text
    assert "weight: the network returns it" in text


def test_attaching_twice_raises_and_names_the_first() -> None:
    model, optimizer, first = _attached(regrow.ContinualBackprop(0.01, 5), example=batch(0)[0])
    text = _error(lambda: regrow.attach(model, optimizer, "cbp"))
    assert "ContinualBackprop(replacement_rate=0.01, maturity_threshold=5" in text
    assert "is already attached to this Sequential and its optimizer. detach() it first" in text
    regrow.attach(model, optimizer, "l2")  # another kind is fine
    first.detach()
    regrow.attach(model, optimizer, "cbp")


def test_a_module_name_that_is_not_there() -> None:
    text = _error(lambda: _attached(example=batch(0)[0], include=["22"]))
    assert "include= names '22', which is not a module of Sequential; did you mean '2'?" in text
    assert "exclude= names 'x'" in _error(lambda: _attached(exclude=["x"]))


def test_an_unknown_law() -> None:
    text = _error(lambda: _attached(example=batch(0)[0], init="kaiming"))
    assert "There is no initial law 'kaiming' for init=; did you mean 'kaiming_" in text


@pytest.mark.parametrize("seed", [-1, 0.5, None])
def test_a_seed_that_is_none(seed) -> None:
    assert f"whole number of at least 0 as seed=, but got {seed}" in _error(lambda: _attached(seed=seed))


def test_wrong_kinds_of_arguments() -> None:
    model = make_network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    text = _error(lambda: regrow.attach(model, optimizer, regrow.ContinualBackprop))
    assert text.endswith("did you mean ContinualBackprop()?")
    assert "takes methods or their names, but got None" in _error(lambda: regrow.attach(model, optimizer, None))
    text = _error(lambda: regrow.attach(model, optimizer, "cbp", include=[model[2]]))
    assert text == "include= takes names of modules and predicates on a UnitGroup, but got a Linear."
    assert "There is no initial law 3" in _error(lambda: _attached(example=batch(0)[0], init=3))
    assert "got an empty list of methods" in _error(lambda: regrow.attach(model, optimizer, []))
    text = _error(lambda: regrow.attach(model, optimizer, [regrow.L2(1e-4), "cbp", regrow.L2(1e-3)]))
    assert text == (
        "attach() got L2(strength=0.0001, coupled=False) and L2(strength=0.001, coupled=False), two of one kind: give "
        "one of them."
    )
    assert "two of one kind" in _error(lambda: regrow.attach(model, optimizer, ["full-reset", "full-reset"]))
    assert "takes methods or their names, but got 3" in _error(lambda: regrow.attach(model, optimizer, [3]))
    assert "needs a torch.nn.Module first, but got SGD" in _error(lambda: regrow.attach(optimizer, model, "cbp"))
    assert "needs a torch optimizer second, but got float" in _error(lambda: regrow.attach(model, 0.1, "cbp"))
    assert "L2 acts around an optimizer's step" in _error(lambda: regrow.attach(model, None, "l2"))
    assert "step() is for manual mode" in _error(regrow.attach(model, optimizer, "cbp").step)


def test_a_group_that_is_not_served_has_no_state() -> None:
    _, _, plastic = _attached(example=batch(0)[0])
    assert "Group '4' is not served. Served: 0, 2." in _error(lambda: plastic.state_of("4"))


def test_a_failed_attach_leaves_nothing_behind() -> None:
    model = make_network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    _error(lambda: regrow.attach(model, optimizer, "cbp", example=torch.zeros(2, 7)))
    assert not optimizer._optimizer_step_post_hooks and not optimizer._optimizer_step_pre_hooks
    assert not any(module._forward_pre_hooks for module in model.modules())
    regrow.attach(model, optimizer, "cbp", example=batch(0)[0])


class PreNorm(nn.Module):
    """A residual stream of two producers behind a layer norm."""

    def __init__(self) -> None:
        super().__init__()
        self.inside, self.up, self.down, self.out = (nn.Linear(*ends) for ends in ((20, 16), (16, 8), (8, 16), (16, 5)))
        self.norm = nn.LayerNorm(16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        stream = self.inside(x)
        stream = stream + self.down(torch.relu(self.up(self.norm(stream))))
        return self.out(self.norm(stream))


def test_a_coupled_stream_of_several_layers_is_served_on_request_only() -> None:
    torch.manual_seed(0)
    _, _, plastic = _attached(model=PreNorm(), example=batch(0)[0])
    assert [group.name for group in plastic.groups] == ["up"]
    assert "made by several layers and coupled: include_coupled=True serves it" in plastic.table(verbose=True)

    method = regrow.ContinualBackprop(0.05, 2)
    model, optimizer, plastic = _attached(method, model=PreNorm(), example=batch(0)[0], include_coupled=True)
    assert [group.name for group in plastic.groups] == ["inside", "up"]
    train(model, optimizer, 60)
    assert {event.group for event in plastic.events} == {"inside", "up"}


def test_two_methods_that_replace_the_same_units() -> None:
    text = _error(lambda: _attached([regrow.ContinualBackprop(), regrow.RandomReplacement()], example=batch(0)[0]))
    assert "ContinualBackprop and RandomReplacement would both replace the units of group '0'" in text
    model, optimizer, first = _attached("cbp", example=batch(0)[0], include="0")
    regrow.attach(model, optimizer, "random-replacement", example=batch(0)[0], include="2")  # to each its own
    text = _error(lambda: regrow.attach(model, optimizer, "redo", example=batch(0)[0]))
    assert "ContinualBackprop and ReDo would both replace the units of group '0', without knowing of each other" in text
    assert "two calls of attach(), with include=" in text

    other = torch.optim.SGD(model.parameters(), lr=0.1)
    late = regrow.attach(model, other, regrow.methods.ReGraMa(), exclude="2")  # found at the first forward
    assert "ContinualBackprop and ReGraMa would both replace" in _error(lambda: model(batch(0)[0]))
    late.detach()
    first.detach()
    regrow.attach(model, optimizer, "redo", example=batch(0)[0], include="0")


def test_of_two_optimizers_one_thrown_away_is_none() -> None:
    model = make_network()
    for _ in range(2):
        regrow.attach(model, torch.optim.SGD(model.parameters(), lr=0.1), "cbp", example=batch(0)[0])
    kept = torch.optim.SGD(model.parameters(), lr=0.1)
    regrow.attach(model, kept, "cbp", example=batch(0)[0])
    other = torch.optim.SGD(model.parameters(), lr=0.1)
    assert "ContinualBackprop and ContinualBackprop would" in _error(
        lambda: regrow.attach(model, other, "cbp", example=batch(0)[0])
    )


@pytest.mark.parametrize(
    ("method", "waits"),
    [
        ("FIRE", True),
        ("DASH", True),
        ("ShrinkAndPerturbAtTaskChange", True),
        ("FullReset", True),
        ("HardReset", True),
        ("L2Init", False),
    ],
)
def test_a_task_change_never_told_is_asked_for_once(method: str, waits: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("regrow.attachment.attachment._STEPS_WITHOUT_A_TASK", 5)
    model, optimizer, plastic = _attached(getattr(regrow.methods, method)(), example=batch(0)[0])
    train(model, optimizer, 4)
    if not waits:
        train(model, optimizer, 4)
        return
    with pytest.warns(RuntimeWarning) as caught:
        train(model, optimizer, 1)
    assert len(caught) == 1
    assert f"{method} acts at task changes only, and was told of none in 5 steps. Call task_changed() of what" in str(
        caught[0].message
    )
    train(model, optimizer, 10)  # said once
    model, optimizer, plastic = _attached(getattr(regrow.methods, method)(), example=batch(0)[0])
    train(model, optimizer, 3)
    plastic.task_changed([nn.functional.cross_entropy(model(batch(0)[0]), batch(0)[1])])
    train(model, optimizer, 10)


def test_a_reset_by_steps_waits_for_no_task_change(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("regrow.attachment.attachment._STEPS_WITHOUT_A_TASK", 5)
    model, optimizer, _ = _attached(regrow.methods.HardReset(period=4), example=batch(0)[0])
    train(model, optimizer, 10)
    assert "HardReset acts around an optimizer's step" in _error(
        lambda: regrow.attach(make_network(), None, regrow.methods.HardReset(period=4))
    )


@pytest.mark.parametrize("method", ["redo", "regrama", "snr", "ccbp", "random-replacement"])
def test_a_model_without_free_groups_under_every_unit_method(method: str) -> None:
    kind = regrow.methods.Method.registry[method].__name__
    text = _error(lambda: _attached(method, model=nn.Linear(20, 5), example=batch(0)[0]))
    assert f"Nothing in Linear can be replaced by {kind}:\n  weight: the network returns it" in text
    assert "A network needs a hidden layer that feeds another" in text
