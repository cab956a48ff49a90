"""When forwards count, when a step is a step, and what copies do."""

import copy
import pickle
import warnings

import pytest
import torch
from torch import nn

import regrow
from tests.attachment.training import batch, make_network, same, train

METHOD = regrow.ContinualBackprop(0.01, 5)


def _attached(model=None, make=lambda ps: torch.optim.SGD(ps, lr=0.05), method=METHOD):
    model = model or make_network()
    optimizer = make(model.parameters())
    return model, optimizer, regrow.attach(model, optimizer, method, example=batch(0)[0])


def _utilities(plastic) -> torch.Tensor:
    return torch.cat([plastic.state_of(group)["activation"].flatten() for group in plastic.groups])


def test_rollouts_evaluation_and_copies_do_not_count() -> None:
    model, optimizer, plastic = _attached()
    twin, twin_optimizer, other = _attached()
    target = copy.deepcopy(model)

    def distract(step: int) -> None:
        with torch.no_grad():
            model(100 * batch(step)[0])
        model.eval()
        model(100 * batch(step)[0])
        model.train()
        target(100 * batch(step)[0])

    train(model, optimizer, 100, after=distract)
    train(twin, twin_optimizer, 100)
    assert torch.equal(_utilities(plastic), _utilities(other))
    assert plastic.events == other.events != []


def test_several_forwards_are_averaged_by_their_number_of_elements() -> None:
    model, optimizer, plastic = _attached()
    twin, twin_optimizer, other = _attached()
    inputs, labels = batch(0, size=10)
    for part in (slice(0, 2), slice(2, 5), slice(5, 10)):
        nn.functional.cross_entropy(model(inputs[part]), labels[part], reduction="sum").backward()
    optimizer.step()
    nn.functional.cross_entropy(twin(inputs), labels, reduction="sum").backward()
    twin_optimizer.step()
    torch.testing.assert_close(_utilities(plastic), _utilities(other))
    assert plastic.state_of("0")["age"].tolist() == [1] * 16


def test_paused_neither_counts_nor_acts() -> None:
    model, optimizer, plastic = _attached()
    train(model, optimizer, 50)
    before, events = copy.deepcopy(plastic.state_dict()), len(plastic.events)
    with plastic.paused():
        train(model, optimizer, 50, start=50)
    after = plastic.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert len(plastic.events) == events
    train(model, optimizer, 50, start=100)
    assert len(plastic.events) > events


def test_detach_leaves_nothing_behind() -> None:
    model, optimizer, plastic = _attached(method=[METHOD, regrow.L2(1e-2)])
    with plastic:
        train(model, optimizer, 50)
    assert not plastic.attached
    for module in model.modules():
        assert not module._forward_pre_hooks and not module._forward_hooks
    for hooks in (
        optimizer._optimizer_step_pre_hooks,
        optimizer._optimizer_step_post_hooks,
        optimizer._optimizer_state_dict_post_hooks,
        optimizer._optimizer_load_state_dict_pre_hooks,
    ):
        assert not hooks
    assert "regrow" not in optimizer.state_dict()
    events = len(plastic.events)
    twin = copy.deepcopy(model)
    train(model, optimizer, 50, start=50)
    train(twin, torch.optim.SGD(twin.parameters(), lr=0.05), 50, start=50)
    assert same(model, twin) and len(plastic.events) == events


@pytest.mark.parametrize(
    "duplicate", [copy.deepcopy, lambda pair: pickle.loads(pickle.dumps(pair))], ids=["deepcopy", "pickle"]
)
@pytest.mark.parametrize("lazy", [False, True])
def test_copies_are_inert(duplicate, lazy: bool) -> None:
    model = make_network()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    plastic = regrow.attach(model, optimizer, METHOD, example=None if lazy else batch(0)[0])
    if not lazy:
        train(model, optimizer, 20)
    twin, twin_optimizer = duplicate((model, optimizer))
    plain = make_network()
    plain.load_state_dict(twin.state_dict())
    plain_optimizer = torch.optim.Adam(plain.parameters(), lr=0.01)
    plain_optimizer.load_state_dict(copy.deepcopy(twin_optimizer.state_dict()))
    train(twin, twin_optimizer, 100)
    train(plain, plain_optimizer, 100)
    assert same(twin, plain)
    assert not [event for event in plastic.events if event.step > 20]
    assert (plastic.graph is None) == lazy


class Doubling(torch.optim.SGD):
    """A subclass that calls its parent's step."""

    def step(self, closure=None):
        return super().step(closure)


def test_a_subclass_that_calls_its_parents_step_steps_once() -> None:
    model, optimizer, plastic = _attached(make=lambda ps: Doubling(ps, lr=0.05), method=[METHOD, regrow.L2(0.1)])
    twin, twin_optimizer, other = _attached(method=[METHOD, regrow.L2(0.1)])
    train(model, optimizer, 100)
    train(twin, twin_optimizer, 100)
    assert plastic.events == other.events != []
    assert same(model, twin)


def test_an_exception_inside_step_heals() -> None:
    model, optimizer, plastic = _attached(make=lambda ps: Doubling(ps, lr=0.05))
    twin, twin_optimizer, other = _attached()

    def explode():
        raise ZeroDivisionError

    for step in range(100):
        if step == 50:
            with pytest.raises(ZeroDivisionError):
                optimizer.step(explode)
        train(model, optimizer, 1, start=step)
        train(twin, twin_optimizer, 1, start=step)
    assert plastic.events == other.events != []
    assert same(model, twin)


def test_closures_count_as_one_step() -> None:
    model, optimizer, plastic = _attached(make=lambda ps: torch.optim.LBFGS(ps, lr=0.01, max_iter=4))
    inputs, labels = batch(0, size=16)

    def closure():
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(inputs), labels)
        loss.backward()
        return loss

    for _ in range(30):
        optimizer.step(closure)
    assert plastic.metrics()["steps"] == 30
    for name, size in (("0", 16), ("2", 12)):
        schedule = METHOD.schedule(size)
        for _ in range(30):
            schedule.advance(torch.Generator())
        assert plastic.metrics()[f"{name}/replacements"] == schedule.replaced > 0


def test_a_step_that_a_grad_scaler_skips_is_no_step() -> None:
    model, optimizer, plastic = _attached(
        make=lambda ps: torch.optim.AdamW(ps, fused=True), method=[METHOD, regrow.L2(0.1)]
    )
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    before = copy.deepcopy(model)
    for factor in (float("inf"), 1.0):
        inputs, labels = batch(0)
        optimizer.zero_grad()
        scaler.scale(factor * nn.functional.cross_entropy(model(inputs), labels)).backward()
        scaler.step(optimizer)
        scaler.update()
        if factor == float("inf"):
            assert plastic.metrics()["steps"] == 0
            assert same(model, before)
    assert plastic.metrics()["steps"] == 1
    assert not same(model, before)


def test_a_branch_not_taken_keeps_its_last_reading() -> None:
    class TwoHeads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.trunk, self.left, self.right = nn.Linear(20, 8), nn.Linear(8, 2), nn.Linear(8, 3)

        def forward(self, x, both=True):
            h = torch.relu(self.trunk(x))
            return (self.left(h), self.right(1 * h)) if both else self.left(h)

    torch.manual_seed(0)
    model = TwoHeads()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    plastic = regrow.attach(model, optimizer, regrow.ContinualBackprop(0.05, 2), example=batch(0)[0])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for step in range(60):
            out = model(batch(step)[0], both=step % 2 == 0)
            optimizer.zero_grad()
            sum(part.pow(2).mean() for part in (out if isinstance(out, tuple) else (out,))).backward()
            optimizer.step()
    assert plastic.events


def test_a_step_without_a_forward_of_the_model_is_an_error() -> None:
    model = make_network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    regrow.attach(model, optimizer, METHOD)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    with pytest.raises(regrow.RegrowError, match="stepped before any training forward of the model"):
        optimizer.step()

    model, optimizer, _ = _attached()
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    with pytest.raises(regrow.RegrowError, match="no forward of the model was seen"):
        optimizer.step()


def test_hooks_that_do_not_run_are_noticed_after_a_resume_too() -> None:
    model, optimizer, _ = _attached()
    train(model, optimizer, 10)
    saved = optimizer.state_dict()
    model, optimizer, _ = _attached()
    optimizer.load_state_dict(saved)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    with pytest.raises(regrow.RegrowError, match="no forward of the model was seen"):
        optimizer.step()


def test_the_first_forward_of_a_pause_is_no_example() -> None:
    model = make_network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    plastic = regrow.attach(model, optimizer, METHOD)
    with plastic.paused():
        train(model, optimizer, 3)
    assert plastic.graph is None
    train(model, optimizer, 1)
    assert plastic.graph is not None


@pytest.mark.filterwarnings("ignore:The .grad attribute:UserWarning")  # torch's compiler, of itself
@pytest.mark.parametrize("lazy", [False, True])
@pytest.mark.parametrize("in_place", [False, True])
def test_a_compiled_model_is_served_as_it_was_written(lazy: bool, in_place: bool) -> None:
    torch.compiler.reset()
    plain, plain_optimizer, expected = _attached()
    model = make_network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    if in_place:
        model.compile(backend="eager")
    compiled = model if in_place else torch.compile(model, backend="eager")
    plastic = regrow.attach(compiled, optimizer, METHOD, example=None if lazy else batch(0)[0])
    assert plastic.model is model
    train(plain, plain_optimizer, 40)
    train(compiled, optimizer, 40)
    assert plastic.events == expected.events != []
    assert same(model, plain)


def test_wrappers_of_model_and_optimizer_are_looked_through() -> None:
    class Wrapper:
        def __init__(self, optimizer: torch.optim.Optimizer) -> None:
            self.optimizer = optimizer

    model = make_network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    plastic = regrow.attach(nn.DataParallel(model), Wrapper(optimizer), METHOD, example=batch(0)[0])
    assert plastic.model is model and plastic.optimizer is optimizer
    train(model, optimizer, 40)
    assert plastic.events


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("weight_sums", ["when_due", "each_step"])
def test_values_that_are_not_finite_do_not_decide_and_are_named_once(bad: float, weight_sums: str) -> None:
    model, optimizer, plastic = _attached(method=regrow.ContinualBackprop(0.02, 5, weight_sums=weight_sums))
    train(model, optimizer, 5)
    # The most useful unit: were its readings taken for low, it would be replaced first.
    useful = 3
    with torch.no_grad():
        model[0].bias[useful] = 100.0
        model[2].weight[:, useful] = 1.0
    for step in range(5, 20):
        _step_without_change(model, optimizer, step)
    before = len(plastic.events)
    with pytest.warns(RuntimeWarning) as caught:
        with torch.no_grad():
            model[0].bias[useful] = bad
        for step in range(20, 100):
            _step_without_change(model, optimizer, step)
    replaced = [event.unit for event in plastic.events[before:] if event.group == "0"]
    assert len(replaced) > 20 and useful not in replaced
    texts = [str(warning.message) for warning in caught]
    assert len([text for text in texts if "group '0'" in text]) == 1
    assert "NaN or infinity in the activations or weights of 1 of 16 units of group '0' at step" in texts[0]


def _step_without_change(model: nn.Module, optimizer: torch.optim.Optimizer, step: int) -> None:
    model(batch(step)[0])
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()


def test_finding_and_proving_units_does_not_count_as_training() -> None:
    model, optimizer, plastic = _attached()
    twin, twin_optimizer, other = _attached()
    for step in range(60):
        if step % 10 == 0:
            regrow.find_units(model, 50 * batch(step + 1)[0])
            assert regrow.verify(model, 50 * batch(step + 1)[0], plastic.graph).ok
            regrow.measure(model, 50 * batch(step + 1, 16)[0], plastic.graph)
        train(model, optimizer, 1, start=step)
        train(twin, twin_optimizer, 1, start=step)
    assert torch.equal(_utilities(plastic), _utilities(other))
    assert plastic.events == other.events != []
    assert same(model, twin)


def test_finding_units_is_not_the_first_forward() -> None:
    model = make_network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    plastic = regrow.attach(model, optimizer, METHOD)
    regrow.find_units(model, batch(0)[0])
    assert plastic.graph is None
    train(model, optimizer, 30)
    assert plastic.graph is not None and plastic.events


def test_whether_a_step_is_skipped_is_asked_once_since_that_waits_for_the_device() -> None:
    class Answer(torch.Tensor):
        asked = 0

        def item(self) -> float:
            Answer.asked += 1
            return super().item()

    model, optimizer, plastic = _attached(
        make=lambda ps: torch.optim.SGD(ps, lr=0.05, fused=True), method=[METHOD, regrow.L2(1e-3)]
    )
    for skips in (0.0, 1.0, 0.0):
        optimizer.grad_scale = torch.tensor(1.0)
        optimizer.found_inf = torch.tensor(skips).as_subclass(Answer)
        before = Answer.asked
        train(model, optimizer, 1)
        assert Answer.asked == before + 1
    assert plastic.metrics()["steps"] == 2
