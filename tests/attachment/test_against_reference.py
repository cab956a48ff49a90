"""The attachment against continual backpropagation written independently in NumPy from Eq. 1."""

import numpy as np
import pytest
import torch
from torch import nn

import regrow
from tests.reference.numpy_cbp import Adam, ReferenceCBP, Sgd, initial_mlp, reference_bit_flipping

STEPS = 3000
WIDTHS = (20, 24, 16, 1)
RATE, MATURITY = 0.002, 50


def _network(weights, biases, activation) -> nn.Sequential:
    layers: list[nn.Module] = []
    for weight, bias in zip(weights, biases, strict=True):
        linear = nn.Linear(weight.shape[1], weight.shape[0], dtype=torch.float64)
        linear.weight.data, linear.bias.data = torch.tensor(weight), torch.tensor(bias)
        layers += [linear, activation()]
    return nn.Sequential(*layers[:-1])


@pytest.mark.parametrize("utility", ["contribution", "adaptable_contribution"])
@pytest.mark.parametrize("hidden", ["relu", "tanh"])
@pytest.mark.parametrize("optimizer", ["sgd", "momentum", "adam"])
def test_equals_the_reference_step_by_step(optimizer: str, hidden: str, utility: str) -> None:
    inputs, targets = reference_bit_flipping(seed=1, steps=STEPS, period=500)
    weights, biases = initial_mlp(WIDTHS, seed=2)
    rng = np.random.default_rng(3)

    make, torch_optimizer = {
        "sgd": (lambda p: Sgd(p, lr=0.01), lambda ps: torch.optim.SGD(ps, lr=0.01)),
        "momentum": (lambda p: Sgd(p, lr=0.003, momentum=0.9), lambda ps: torch.optim.SGD(ps, lr=0.003, momentum=0.9)),
        "adam": (lambda p: Adam(p, lr=0.003), lambda ps: torch.optim.Adam(ps, lr=0.003)),
    }[optimizer]
    network = _network(
        [np.array(w, dtype=np.float64) for w in weights], biases, {"relu": nn.ReLU, "tanh": nn.Tanh}[hidden]
    )
    trained = torch_optimizer(network.parameters())

    drawn: dict[tuple[str, int], np.ndarray] = {}

    def init(group, units, shape, generator):
        rows = rng.uniform(-0.5, 0.5, shape)
        for unit, row in zip(units.tolist(), rows, strict=True):
            drawn[group.name, unit] = row
        return torch.tensor(rows)

    def draw(layer: int, units, shape) -> np.ndarray:
        return np.stack([drawn[names[layer], int(unit)] for unit in units])

    method = regrow.ContinualBackprop(RATE, MATURITY, utility_rule=utility, weight_sums="each_step")
    plastic = regrow.attach(network, trained, method, init=init, example=torch.zeros(2, 20, dtype=torch.float64))
    names = [group.name for group in plastic.groups]
    assert names == ["0", "2"]
    reference = ReferenceCBP(
        weights, biases, make_optimizer=make, draw=draw, hidden=hidden, utility=utility, rate=RATE, maturity=MATURITY
    )

    for step in range(STEPS):
        x, y = inputs[step : step + 1], targets[step : step + 1].reshape(1, 1)
        trained.zero_grad()
        nn.functional.mse_loss(
            network(torch.tensor(x, dtype=torch.float64)), torch.tensor(y, dtype=torch.float64)
        ).backward()
        trained.step()
        reference.step(x, y)
        if step % 100 == 99:
            for layer, name in enumerate(names):
                state = plastic.state_of(name)
                np.testing.assert_array_equal(state["age"].numpy(), reference.age[layer])
                np.testing.assert_allclose(
                    state["contribution"].numpy(), reference.utility[layer], rtol=2e-4, atol=1e-7
                )
                old = reference.age[layer] > 0
                np.testing.assert_allclose(
                    state["utility"].numpy()[old], reference.corrected(layer)[old], rtol=2e-4, atol=1e-7
                )
            for mine, theirs in zip(network[::2], zip(reference.weights, reference.biases, strict=True), strict=True):
                np.testing.assert_allclose(mine.weight.detach().numpy(), theirs[0], rtol=2e-4, atol=1e-7)
                np.testing.assert_allclose(mine.bias.detach().numpy(), theirs[1], rtol=2e-4, atol=1e-7)

    mine = [(event.step, names.index(event.group), event.unit) for event in plastic.events]
    theirs = [(event.step, event.layer, event.unit) for event in reference.events]
    assert sorted(mine) == sorted(theirs)
    assert len(mine) > 150
