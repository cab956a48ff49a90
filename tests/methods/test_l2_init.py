import numpy as np
import pytest
import torch

import regrow
from regrow.errors import ConfigError
from regrow.methods import L2Init
from tests.methods.by_hand import (
    LEARNING_RATE,
    assert_equal,
    attached,
    does_nothing,
    gradients,
    make_network,
    step,
    values,
)


def test_pulls_by_twice_the_distance_to_the_initial_weights() -> None:
    model, optimizer, _ = attached(L2Init(0.3))
    initial = values(model)
    w = initial
    for seed in range(4):
        gradient = gradients(w, seed)
        w = {n: v - LEARNING_RATE * (gradient[n] + 2 * 0.3 * (v - initial[n])) for n, v in w.items()}
        step(model, optimizer, seed)
    assert_equal(model, w)
    assert np.abs(w["0.weight"] - initial["0.weight"]).max() > 0.01


def test_with_a_period_it_acts_at_every_nth_step_n_times_as_strong() -> None:
    model, optimizer, _ = attached(L2Init(0.1, period=3))
    initial = values(model)
    w = initial
    for seed in range(7):
        gradient = gradients(w, seed)
        pull = 3 * 2 * 0.1 if seed % 3 == 2 else 0.0
        w = {n: v - LEARNING_RATE * (gradient[n] + pull * (v - initial[n])) for n, v in w.items()}
        step(model, optimizer, seed)
    assert_equal(model, w)


def test_decoupled_it_pulls_the_weights_themselves() -> None:
    """Adam moves them not at all here, since it is given gradients of 0; it would follow those of the penalty."""
    model = make_network()
    optimizer = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE)
    regrow.attach(model, optimizer, L2Init(0.3, period=2, decoupled=True))
    initial = values(model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1.0)
    w = values(model)
    for number in range(1, 5):
        for parameter in model.parameters():
            parameter.grad = torch.zeros_like(parameter)
        optimizer.step()
        if number % 2 == 0:
            w = {n: v - LEARNING_RATE * 2 * 2 * 0.3 * (v - initial[n]) for n, v in w.items()}
        assert all(not parameter.grad.any() for parameter in model.parameters())
        assert_equal(model, w)


def test_with_plain_sgd_both_forms_are_the_same_step() -> None:
    (one, first, _), (other, second, _) = attached(L2Init(0.3)), attached(L2Init(0.3, decoupled=True))
    for seed in range(5):
        step(one, first, seed)
        step(other, second, seed)
    for here, there in zip(one.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(here, there)


def test_the_gradient_is_that_of_the_penalty_in_the_loss() -> None:
    model, optimizer, _ = attached(L2Init(0.2))
    start = [parameter.detach().clone() for parameter in model.parameters()]
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1.0)
    optimizer.zero_grad()
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    leaves = [parameter.detach().clone().requires_grad_() for parameter in model.parameters()]
    (0.2 * sum((leaf - first).square().sum() for leaf, first in zip(leaves, start, strict=True))).backward()
    optimizer.step()
    for parameter, leaf in zip(model.parameters(), leaves, strict=True):
        torch.testing.assert_close(parameter.grad, leaf.grad)


def test_without_strength_nothing_happens_and_without_gradient_neither() -> None:
    for decoupled in (False, True):
        assert does_nothing(L2Init(0.0, decoupled=decoupled))
        model, optimizer, _ = attached(L2Init(0.3, decoupled=decoupled))
        with torch.no_grad():
            model[0].weight.add_(1.0)
        before = values(model)
        optimizer.step()  # no gradients at all
        assert_equal(model, before, 0)


@pytest.mark.parametrize("bad", [-1.0, float("nan"), float("inf"), "1"])
def test_bad_settings(bad: float) -> None:
    with pytest.raises(ConfigError, match=f"L2Init.strength must be a finite number ≥ 0, but is {bad!r}"):
        L2Init(bad)


def test_a_period_is_at_least_one_step() -> None:
    with pytest.raises(ConfigError, match="L2Init.period must be .* but is 0"):
        L2Init(period=0)
