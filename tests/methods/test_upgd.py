import numpy as np
import pytest
import torch

from regrow.errors import ConfigError
from regrow.methods import UtilityPerturbation
from tests.methods.by_hand import LEARNING_RATE, Arrays, assert_equal, attached, does_nothing, gradients, step, values


def gate(utility: Arrays, steps: int, decay: float, running: bool) -> Arrays:
    corrected = {n: u / (1 - decay**steps) for n, u in utility.items()}
    largest = max(u.max() for u in (utility if running else corrected).values())
    return {n: 1 / (1 + np.exp(-u / largest)) for n, u in corrected.items()}


@pytest.mark.parametrize("maximum_of", ["corrected", "running"])
def test_the_published_step_under_sgd(maximum_of: str) -> None:
    """w ← w − 2α·g·(1 − σ(Û / max)), U ← βU − (1−β)·g·w."""
    model, optimizer, _ = attached(UtilityPerturbation(0.0, 0.9, maximum_of=maximum_of))
    w = values(model)
    utility = {n: np.zeros_like(v) for n, v in w.items()}
    for seed in range(4):
        g = gradients(w, seed)
        utility = {n: 0.9 * utility[n] - 0.1 * g[n] * w[n] for n in w}
        useful = gate(utility, seed + 1, 0.9, maximum_of == "running")
        w = {n: w[n] - 2 * LEARNING_RATE * g[n] * (1 - useful[n]) for n in w}
        step(model, optimizer, seed)
        assert_equal(model, w, 1e-5)


def test_noise_has_the_deviation_asked_for_and_spares_useful_weights() -> None:
    torch.manual_seed(0)
    model = torch.nn.Linear(300, 300, bias=False)
    model, optimizer, _ = attached(UtilityPerturbation(0.01, 0.0), model, example=torch.zeros(1, 300))
    before = model.weight.detach().clone()
    model.weight.grad = torch.zeros_like(model.weight)
    model.weight.grad[0] = -1.0 / before[0]  # of utility 1; of all others 0
    model.weight.grad[1:] = 0.0
    optimizer.step()
    moved = (model.weight.detach() - before) / (2 * LEARNING_RATE)
    assert abs(moved[1:].std().item() / (0.01 * 0.5) - 1) < 0.02
    assert abs((moved[0] - 1 / before[0] * (1 - torch.sigmoid(torch.tensor(1.0)))).std().item() / 0.0027 - 1) < 0.2


def test_weights_and_gradients_of_0_give_numbers() -> None:
    model, optimizer, _ = attached(UtilityPerturbation(0.0))
    before = values(model)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    assert_equal(model, before, 0)


def test_without_strength_nothing_happens() -> None:
    assert does_nothing(UtilityPerturbation(strength=0.0))


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"noise_std": -1}, "noise_std must be a finite number ≥ 0, but is -1"),
        ({"decay_rate": 1.0}, "decay_rate must be less than 1"),
        ({"decay_rate": 2.0}, "decay_rate is a share and must lie in"),
        ({"strength": 1.5}, "strength is a share and must lie in"),
        ({"maximum_of": "all"}, "maximum_of cannot be 'all'; Known: corrected, running"),
    ],
)
def test_bad_settings(settings: dict[str, object], text: str) -> None:
    with pytest.raises(ConfigError, match=f"UtilityPerturbation.{text}"):
        UtilityPerturbation(**settings)
