import pytest
import torch
from torch import nn

import regrow
from regrow.errors import ConfigError
from regrow.methods import FullReset, HardReset
from tests.methods.by_hand import does_nothing

NAMES = ["0", "1", "3", "4", "6"]


def network() -> nn.Sequential:
    """Three layers, norms between, with weights that are not those of `reset_parameters`."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(20, 30), nn.BatchNorm1d(30), nn.ReLU(), nn.Linear(30, 30), nn.BatchNorm1d(30), nn.ReLU(),
        nn.Linear(30, 5),
    )  # fmt: skip
    for index in (0, 3, 6):
        nn.init.normal_(model[index].weight, std=2.0)
        nn.init.zeros_(model[index].bias)
    return model


def trained(method: regrow.methods.Method, steps: int = 3) -> tuple[nn.Sequential, torch.optim.Optimizer, object]:
    model = network()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    plastic = regrow.attach(model, optimizer, method, example=torch.randn(4, 20))
    for _ in range(steps):
        optimizer.zero_grad()
        model(torch.randn(8, 20)).square().mean().backward()
        optimizer.step()
    return model, optimizer, plastic


def renewed(model: nn.Sequential, before: dict[str, torch.Tensor]) -> list[str]:
    """Layers whose parameters have all changed, and not by a little; none may have changed in part."""
    found = []
    for name in NAMES:
        changed = {not torch.equal(before[f"{name}.{key}"], model.state_dict()[f"{name}.{key}"]) for key in KEYS}
        assert len(changed) == 1
        found += [name] * changed.pop()
    return found


KEYS = ("weight", "bias")


@pytest.mark.parametrize(("layers", "expected"), [(0, []), (1, ["6"]), (2, ["3", "4", "6"]), (3, NAMES), (9, NAMES)])
def test_the_last_layers_begin_anew(layers: int, expected: list[str]) -> None:
    model, optimizer, plastic = trained(HardReset(layers))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    plastic.task_changed()
    assert renewed(model, before) == expected
    for name in NAMES:
        for key in KEYS:
            state = optimizer.state[getattr(model[int(name)], key)]
            fresh = name in expected
            assert state["step"].item() == (0 if fresh else 3)
            assert state["exp_avg_sq"].any().item() == (not fresh)
    for name in set(expected) & {"0", "3", "6"}:
        assert abs(model[int(name)].weight.std().item() / 2 - 1) < 0.2 and not model[int(name)].bias.any()
    for name in set(expected) & {"1", "4"}:
        assert (model[int(name)].weight == 1).all() and not model[int(name)].bias.any()


def test_a_period_resets_after_the_step() -> None:
    model, optimizer, _ = trained(HardReset(1, 4))
    assert optimizer.state[model[6].weight]["step"].item() == 3
    model(torch.randn(8, 20)).square().mean().backward()
    optimizer.step()
    assert optimizer.state[model[6].weight]["step"].item() == 0
    assert optimizer.state[model[3].weight]["step"].item() == 4 and not model[6].bias.any()


def test_a_full_reset_leaves_nothing_of_the_old_network() -> None:
    model, optimizer, plastic = trained(FullReset())
    assert model[1].running_mean.any()
    plastic.task_changed()
    for index in (0, 3, 6):
        assert abs(model[index].weight.std().item() / 2 - 1) < 0.2 and not model[index].bias.any()
    for norm in (model[1], model[4]):
        assert (norm.weight == 1).all() and (norm.running_var == 1).all() and not norm.running_mean.any()
        assert norm.num_batches_tracked == 0
    for state in optimizer.state.values():
        assert all(not value.any() for value in state.values())


def test_the_law_is_remembered_over_a_resume() -> None:
    model, optimizer, plastic = trained(FullReset())
    saved, weights = optimizer.state_dict(), model.state_dict()
    other, its_optimizer, again = trained(FullReset(), steps=0)
    with torch.no_grad():
        other[0].weight.mul_(5.0)
    again.detach()
    again = regrow.attach(other, its_optimizer, FullReset(), example=torch.randn(4, 20))  # with a wrong law
    other.load_state_dict(weights)
    its_optimizer.load_state_dict(saved)
    for each in (plastic, again):
        each.task_changed()
    assert all(torch.equal(*pair) for pair in zip(model.parameters(), other.parameters(), strict=True))


def test_none_is_nothing() -> None:
    assert does_nothing(HardReset(0), lambda plastic: plastic.task_changed())
    assert does_nothing(FullReset(0), lambda plastic: plastic.task_changed())
    assert does_nothing(FullReset())  # as long as it is told of no change


@pytest.mark.parametrize(
    ("build", "text"),
    [
        (lambda: HardReset(-1), "HardReset.layers must be a whole number of at least 0, but is -1"),
        (lambda: HardReset(period=1.5), "HardReset.period must be a whole number of at least 0, but is 1.5"),
        (lambda: FullReset(2), "FullReset.strength is 1 for the method or 0 for none, but is 2"),
        (lambda: FullReset(-1), "FullReset.strength must be a whole number of at least 0, but is -1"),
    ],
)
def test_bad_settings(build, text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        build()


@pytest.mark.parametrize("method", [FullReset(memory="kept"), HardReset(3, memory="kept")])
def test_memory_is_kept_if_asked_for(method: regrow.methods.Method) -> None:
    """Of the published code for class-incremental CIFAR: new weights, old moments and running statistics."""
    model, optimizer, plastic = trained(method)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    plastic.task_changed()
    assert renewed(model, before) == NAMES
    assert all(torch.equal(before[f"1.running_{key}"], model.state_dict()[f"1.running_{key}"]) for key in STATISTICS)
    assert all(state["step"].item() == 3 and state["exp_avg_sq"].any() for state in optimizer.state.values())


STATISTICS = ("mean", "var")


@pytest.mark.parametrize("kind", [FullReset, HardReset])
def test_an_unknown_fate_of_the_memory_is_refused(kind: type[FullReset | HardReset]) -> None:
    with pytest.raises(ConfigError, match=f"{kind.__name__}.memory cannot be 'clear'; did you mean 'cleared'"):
        kind(memory="clear")
