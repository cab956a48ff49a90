import math

import numpy as np
import pytest
import torch
from torch import nn

import regrow
from regrow.errors import ConfigError
from regrow.methods import ShrinkAndPerturbAtTaskChange, shrink_and_perturb
from tests.methods.by_hand import (
    LEARNING_RATE,
    assert_equal,
    attached,
    descended,
    does_nothing,
    gradients,
    step,
    values,
)


def _draws_of(plastic: regrow.Attachment) -> torch.Generator:
    """A generator that draws what its next steps will."""
    draws = torch.Generator()
    [saved] = [value for key, value in plastic.state_dict().items() if key.endswith("generator")]
    return draws.set_state(saved)


def test_each_step_shrinks_and_adds_noise() -> None:
    model, optimizer, plastic = attached(regrow.ShrinkAndPerturb(0.5, 0.01))
    w = values(model)
    draws = _draws_of(plastic)
    for seed in range(4):
        stepped = descended(w, gradients(w, seed))
        noise = {name: torch.randn(value.shape, generator=draws).double().numpy() for name, value in w.items()}
        w = {name: (1 - LEARNING_RATE * 0.5) * value + 0.01 * noise[name] for name, value in stepped.items()}
        step(model, optimizer, seed)
        assert_equal(model, w)


def _steps(method: regrow.ShrinkAndPerturb, steps: int, start: float = 1.0) -> torch.Tensor:
    model = nn.Linear(100, 100)
    nn.init.constant_(model.weight, start)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    regrow.attach(model, optimizer, method)
    for _ in range(steps):
        for parameter in model.parameters():
            parameter.grad = torch.zeros_like(parameter)
        optimizer.step()
    return model.weight.detach()


def test_shrinks_by_the_step_size() -> None:
    weight = _steps(regrow.ShrinkAndPerturb(weight_decay=0.2, noise_std=0.0), 3)
    torch.testing.assert_close(weight, torch.full_like(weight, (1 - 0.02) ** 3))


def test_noise_has_the_standard_deviation_asked_for() -> None:
    weight = _steps(regrow.ShrinkAndPerturb(weight_decay=0.0, noise_std=0.01), 4, start=0.0)
    assert abs(weight.std().item() / (0.01 * math.sqrt(4)) - 1) < 0.03
    assert abs(weight.mean().item()) < 0.001


def test_a_period_does_the_same_in_one_go() -> None:
    every = _steps(regrow.ShrinkAndPerturb(weight_decay=0.01, noise_std=0.01), 12)
    seldom = _steps(regrow.ShrinkAndPerturb(weight_decay=0.01, noise_std=0.01, period=6), 12)
    between = _steps(regrow.ShrinkAndPerturb(weight_decay=0.01, noise_std=0.01, period=6), 5)
    assert (between == 1).all()
    # Within a period noise is not shrunk: a difference of second order, here of less than 1 %.
    assert abs(every.mean() - seldom.mean()) < 0.002
    assert abs(seldom.std().item() / every.std().item() - 1) < 0.03


def test_shared_noise_is_a_window_on_a_circle_of_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shrink_and_perturb, "_DRAWS", 3)
    monkeypatch.setattr(shrink_and_perturb, "_TILES", 2)
    model, optimizer, plastic = attached(regrow.ShrinkAndPerturb(0.5, 0.01, noise="shared"))
    w = values(model)
    draws = _draws_of(plastic)
    for seed in range(4):
        stepped = descended(w, gradients(w, seed))
        signs = torch.randint(2, (2, 1), generator=draws).numpy() * 2 - 1
        half = (signs * torch.randn(3, generator=draws).double().numpy()).flatten()
        circle = np.concatenate([half, -half])
        for name, value in stepped.items():
            starts = torch.randint(12, (math.ceil(value.size / 6),), generator=draws).tolist()
            places = (np.repeat(starts, 6)[: value.size] + np.arange(value.size) % 6) % 12
            w[name] = (1 - LEARNING_RATE * 0.5) * value + 0.01 * circle[places].reshape(value.shape)
        step(model, optimizer, seed)
        assert_equal(model, w)
    assert any(value.size > 6 for value in w.values()) and any(value.size < 6 for value in w.values())


def test_shared_noise_is_normal_independent_over_time_and_uncorrelated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shrink_and_perturb, "_DRAWS", 3)
    monkeypatch.setattr(shrink_and_perturb, "_TILES", 2)
    model = nn.Linear(5, 4)  # blocks of 6, which begin anew every 6 weights
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    regrow.attach(model, optimizer, regrow.ShrinkAndPerturb(0.0, 0.1, noise="shared"))
    parameters = list(model.parameters())
    count, seen = 10_000, []
    for _ in range(count):
        for parameter in parameters:
            nn.init.zeros_(parameter)
            parameter.grad = torch.zeros_like(parameter)
        optimizer.step()
        seen.append(torch.cat([parameter.detach().flatten() for parameter in parameters]))
    noise = torch.stack(seen).double() / 0.1
    bound = 5 / math.sqrt(count)
    covariances = noise.T @ noise / count
    # Of draws that are shared, squares have the mean 3 and so covariances spread √3 as much.
    assert (covariances - torch.eye(24)).abs().max() < 1.8 * bound
    assert (noise[1:].T @ noise[:-1] / count).abs().max() < bound
    assert noise.mean(dim=0).abs().max() < bound
    assert ((noise**4).mean(dim=0) - 3).abs().max() < 10 * bound, "kurtosis; its draws spread √96"
    shared = (noise[:, :1].abs() == noise[:, 1:].abs()).double().mean(dim=0)
    assert shared[2] == 1 and shared[[0, 1, 3, 4]].max() == 0, "within a block, three places on"
    assert ((shared[5:] - 1 / 3).abs() < bound).all(), "from block to block, anywhere"


def test_shared_noise_does_not_depend_on_how_weights_lie_in_memory() -> None:
    def after(form: torch.memory_format) -> torch.Tensor:
        torch.manual_seed(0)
        model = nn.Conv2d(96, 128, 5).to(memory_format=form)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        regrow.attach(model, optimizer, regrow.ShrinkAndPerturb(0.1, 0.1, noise="shared"))
        for parameter in model.parameters():
            parameter.grad = torch.zeros_like(parameter)
        optimizer.step()
        return model.weight.detach().contiguous()

    rows, last = after(torch.contiguous_format), after(torch.channels_last)
    assert rows.numel() > shrink_and_perturb._DRAWS * shrink_and_perturb._TILES
    assert torch.equal(rows, last)


def test_at_a_task_change_once() -> None:
    model, _, plastic = attached(ShrinkAndPerturbAtTaskChange(0.6, 0.0))
    w = values(model)
    plastic.task_changed()
    assert_equal(model, {name: 0.6 * value for name, value in w.items()})


def test_at_a_task_change_with_noise_or_towards_a_fresh_network() -> None:
    model = nn.Linear(100, 100)
    nn.init.normal_(model.weight, std=3.0)
    nn.init.zeros_(model.bias)
    model, _, plastic = attached(ShrinkAndPerturbAtTaskChange(0.5, 0.2), model, example=torch.zeros(1, 100))
    before = model.weight.detach().clone()
    plastic.task_changed()
    noise = model.weight.detach() - 0.5 * before
    assert abs(noise.std().item() / 0.2 - 1) < 0.03
    plastic.detach()

    model, _, plastic = attached(ShrinkAndPerturbAtTaskChange(0.25, toward_fresh=True), model, seed=1)
    before = model.weight.detach().clone()
    plastic.task_changed()
    fresh = (model.weight.detach() - 0.25 * before) / 0.75
    assert abs(fresh.std().item() / before.std().item() - 1) < 0.03
    assert abs((fresh * before).mean().item()) < 0.05 * before.std().item() ** 2, "a draw of its own"


def test_at_a_task_change_nothing() -> None:
    assert does_nothing(ShrinkAndPerturbAtTaskChange(1.0, 0.0), lambda plastic: plastic.task_changed())
    assert does_nothing(ShrinkAndPerturbAtTaskChange())


@pytest.mark.parametrize(
    ("build", "text"),
    [
        (lambda: regrow.ShrinkAndPerturb(noise="same"), "ShrinkAndPerturb.noise cannot be 'same'"),
        (lambda: ShrinkAndPerturbAtTaskChange(1.2), "ShrinkAndPerturbAtTaskChange.shrink is a share and must lie in"),
        (
            lambda: ShrinkAndPerturbAtTaskChange(noise_std=-1),
            "ShrinkAndPerturbAtTaskChange.noise_std must be a finite number ≥ 0, but is -1",
        ),
    ],
)
def test_bad_settings(build, text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        build()
