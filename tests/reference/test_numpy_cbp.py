"""The reference must itself be right: against finite differences, closed forms, torch's optimizers and hand counts."""

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch

from .numpy_cbp import (
    Adam,
    Event,
    ReferenceCBP,
    Sgd,
    initial_mlp,
    reference_bit_flipping,
    replay,
    uniform_draw,
)


def sgd(param: np.ndarray) -> Sgd:
    return Sgd(param, lr=0.01, momentum=0.9)


def frozen(param: np.ndarray) -> Sgd:
    return Sgd(param, lr=0.0)


def adam(param: np.ndarray) -> Adam:
    return Adam(param, lr=0.01)


def build(widths: tuple[int, ...], make_optimizer: Any = sgd, **options: Any) -> ReferenceCBP:
    weights, biases = initial_mlp(widths, seed=1)
    rng = np.random.default_rng(2)
    biases = [rng.normal(0, 0.3, b.shape) for b in biases]
    options.setdefault("draw", uniform_draw(3))
    return ReferenceCBP(weights, biases, make_optimizer=make_optimizer, **options)


def batches(widths: tuple[int, ...], steps: int, loss: str = "squared", size: int = 8) -> list[tuple[Any, Any]]:
    rng = np.random.default_rng(4)
    make_y = {
        "squared": lambda: rng.normal(size=(size, widths[-1])),
        "cross_entropy": lambda: rng.integers(0, widths[-1], size),
    }[loss]
    return [(rng.normal(size=(size, widths[0])), make_y()) for _ in range(steps)]


def parameters(net: ReferenceCBP) -> list[np.ndarray]:
    return [*net.weights, *net.biases]


@pytest.mark.parametrize("hidden", ["relu", "tanh"])
@pytest.mark.parametrize("loss", ["squared", "cross_entropy"])
def test_gradients_agree_with_finite_differences(hidden: str, loss: str) -> None:
    widths = (4, 6, 5, 3)
    net = build(widths, hidden=hidden, loss=loss)
    ((x, y),) = batches(widths, 1, loss)
    _, weight_grads, bias_grads, _ = net.gradients(x, y)
    for param, grad in zip(parameters(net), [*weight_grads, *bias_grads], strict=True):
        numeric = np.empty_like(param)
        for index in np.ndindex(param.shape):
            kept, sides = param[index], []
            for shift in (1e-6, -1e-6):
                param[index] = kept + shift
                sides.append(net.gradients(x, y)[0])
            param[index] = kept
            numeric[index] = (sides[0] - sides[1]) / 2e-6
        np.testing.assert_allclose(grad, numeric, rtol=1e-6, atol=1e-8)
        assert np.abs(grad).max() > 1e-3


def test_squared_error_of_one_example_has_gradient_2e() -> None:
    net = build((3, 1))
    x, y = np.array([[1.0, 2.0, -1.0]]), np.array([0.5])
    error = net.forward(x)[0][0, 0] - 0.5
    loss, weight_grads, bias_grads, _ = net.gradients(x, y)
    assert loss == pytest.approx(error**2)
    assert bias_grads[0] == pytest.approx(2 * error)
    np.testing.assert_allclose(weight_grads[0], 2 * error * x)


def test_adam_follows_its_closed_form_on_a_scalar() -> None:
    gradients = [0.3, -1.2, 0.05, 2.0, -0.7]
    param = np.array([1.0])
    optimizer = Adam(param, lr=0.1)
    expected = 1.0
    for t, gradient in enumerate(gradients, start=1):
        optimizer.update(param, np.array([gradient]))
        past = list(enumerate(gradients[:t], start=1))
        first = sum(0.1 * 0.9 ** (t - i) * g for i, g in past) / (1 - 0.9**t)
        second = sum(0.001 * 0.999 ** (t - i) * g * g for i, g in past) / (1 - 0.999**t)
        expected -= 0.1 * first / (second**0.5 + 1e-8)
        assert param[0] == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("loss", ["squared", "cross_entropy"])
@pytest.mark.parametrize("name", ["sgd", "adam"])
def test_training_without_replacement_agrees_with_torch(name: str, loss: str) -> None:
    widths = (4, 6, 5, 3)
    net = build(widths, {"sgd": sgd, "adam": adam}[name], loss=loss, rate=0)
    twin = [torch.tensor(p, requires_grad=True) for p in parameters(net)]
    optimizer: torch.optim.Optimizer = (
        torch.optim.SGD(twin, lr=0.01, momentum=0.9) if name == "sgd" else torch.optim.Adam(twin, lr=0.01)
    )
    for x, y in batches(widths, 30, loss):
        h = torch.tensor(x)
        for i in range(3):
            h = h @ twin[i].T + twin[3 + i]
            h = torch.relu(h) if i < 2 else h
        target = torch.tensor(y)
        value = ((h - target) ** 2).sum(1).mean() if loss == "squared" else torch.nn.functional.cross_entropy(h, target)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        assert net.step(x, y) == pytest.approx(value.item(), rel=1e-10)
    for ours, theirs in zip(parameters(net), twin, strict=True):
        np.testing.assert_allclose(ours, theirs.detach().numpy(), rtol=1e-9, atol=1e-12)
    assert net.events == []


@pytest.mark.parametrize("hidden", ["relu", "tanh"])
def test_contribution_is_equation_1_written_as_a_sum(hidden: str) -> None:
    widths, eta = (4, 6, 3), 0.9
    net = build(widths, hidden=hidden, rate=0, decay=eta)
    terms = []
    for x, y in batches(widths, 7):
        (h,) = net.forward(x)[1]  # before the step
        net.step(x, y)
        terms.append([np.mean(np.abs(h[:, i])) * sum(abs(w) for w in net.weights[1][:, i]) for i in range(6)])
    expected = sum((1 - eta) * eta ** (len(terms) - 1 - t) * np.array(term) for t, term in enumerate(terms))
    np.testing.assert_allclose(net.utility[0], expected, rtol=1e-12)
    np.testing.assert_allclose(net.corrected(0), expected / (1 - eta**7), rtol=1e-12)


def test_adaptable_contribution_of_a_frozen_network_is_spread_times_outgoing_over_incoming() -> None:
    widths = (4, 6, 3)
    net = build(widths, frozen, rate=0, utility="adaptable_contribution")
    ((x, y),) = batches(widths, 1)
    for _ in range(20):  # the same batch: f / (1 - eta^age) is its mean from the first step on
        net.step(x, y)
        (h,) = net.forward(x)[1]
        spread = np.abs(h - h.mean(axis=0)).mean(axis=0)
        expected = spread * np.abs(net.weights[1]).sum(axis=0) / np.abs(net.weights[0]).sum(axis=1)
        np.testing.assert_allclose(net.corrected(0), expected, rtol=1e-12)


def test_adaptable_contribution_centres_on_a_mean_that_holds_the_current_batch() -> None:
    net = build((1, 1, 1), frozen, hidden="tanh", rate=0, decay=0.5, utility="adaptable_contribution")
    inputs = np.array([[0.2], [1.5], [-0.7]])
    h = [float(net.forward(row[None])[1][0][0, 0]) for row in inputs]
    for row in inputs:
        net.step(row[None], np.zeros(1))
    factor = abs(net.weights[1][0, 0]) / abs(net.weights[0][0, 0])
    means = [h[0], (h[0] + 2 * h[1]) / 3, (h[0] + 2 * h[1] + 4 * h[2]) / 7]
    new = [factor * abs(a - b) for a, b in zip(h, means, strict=True)]
    assert net.corrected(0)[0] == pytest.approx((new[0] + 2 * new[1] + 4 * new[2]) / 7)


@pytest.mark.parametrize("rate", [0.001, 0.03, 0.29, 1.0])
@pytest.mark.parametrize("maturity", [0, 5])
def test_replacements_are_the_whole_part_of_rate_times_eligible(rate: float, maturity: int) -> None:
    widths = (4, 20, 15, 2)
    net = build(widths, rate=rate, maturity=maturity)
    born, eligible = [np.zeros(20, int), np.zeros(15, int)], [0, 0]
    seen = 0
    for step, (x, y) in enumerate(batches(widths, 60), start=1):
        for layer in range(2):
            eligible[layer] += int(np.sum(step - born[layer] > maturity))
        net.step(x, y)
        for event in net.events[seen:]:
            assert event.step == step
            assert step - born[event.layer][event.unit] > maturity
            born[event.layer][event.unit] = step
        seen = len(net.events)
        for layer in range(2):
            done = sum(e.layer == layer for e in net.events)
            assert done == Fraction(str(rate)) * eligible[layer] // 1 == net.replaced[layer]
            np.testing.assert_array_equal(net.age[layer], step - born[layer])
    assert seen > 0


def test_rate_is_read_as_the_decimal_written() -> None:
    assert int(0.29 * 100) == 28  # what binary floating point makes of it
    net = build((4, 100, 2), rate=0.29, maturity=0)
    net.step(*batches((4, 100, 2), 1)[0])
    assert net.replaced == [29]


def test_the_least_useful_eligible_unit_goes_and_ties_go_to_the_lower_index() -> None:
    net = build((1, 5, 1), frozen, rate=0.2, maturity=2, decay=0.0)
    net.weights[0][:], net.biases[0][:] = 1.0, 0.0
    net.weights[1][:] = [[3.0, 0.5, 2.0, -0.5, 1.0]]
    for _ in range(3):
        net.step(np.ones((1, 1)), np.zeros(1))
    assert net.events == [Event(3, 0, 1)]
    # Unit 1 is worth nothing now but too young; the four others make the next 0.8, then the next whole replacement.
    for _ in range(2):
        net.step(np.ones((1, 1)), np.zeros(1))
    assert net.events == [Event(3, 0, 1), Event(5, 0, 3)]


def test_a_young_unit_is_ranked_by_its_bias_corrected_utility() -> None:
    net = build((1, 4, 1), frozen, rate=0.0625, maturity=0, draw=lambda layer, units, shape: np.ones(shape))
    net.weights[0][:], net.biases[0][:] = 1.0, 0.0
    net.weights[1][:] = [[0.1, 1.0, 2.0, 2.0]]
    for _ in range(4):
        net.step(np.ones((1, 1)), np.zeros(1))
    assert net.events == [Event(4, 0, 0)]
    net.weights[1][0, 0] = 1.5  # more useful than unit 1, which is four steps older
    for _ in range(4):
        net.step(np.ones((1, 1)), np.zeros(1))
    assert net.events == [Event(4, 0, 0), Event(8, 0, 1)]


@pytest.mark.parametrize("make_optimizer", [sgd, adam])
def test_replacement_changes_the_newborns_elements_and_no_others(make_optimizer: Any) -> None:
    widths = (4, 10, 8, 3)
    net = build(widths, make_optimizer, rate=0.3, maturity=9)
    twin = build(widths, make_optimizer, rate=0)
    for x, y in batches(widths, 10):
        assert net.events == []
        net.step(x, y)
        twin.step(x, y)
    first, second = ([e.unit for e in net.events if e.layer == layer] for layer in range(2))
    assert (len(first), len(second)) == (3, 2)

    reborn = [np.zeros(w.shape, bool) for w in net.weights]  # re-drawn incoming weights
    reborn[0][first], reborn[1][second] = True, True
    cut = [np.zeros(w.shape, bool) for w in net.weights]  # zeroed outgoing weights
    cut[1][:, first], cut[2][:, second] = True, True
    cut[1][second] = False
    draws = {record.layer: record.rows for record in net.draws}
    for i in range(3):
        kept = ~(reborn[i] | cut[i])
        np.testing.assert_array_equal(net.weights[i][kept], twin.weights[i][kept])
        assert (net.weights[i][cut[i]] == 0).all() and (twin.weights[i][cut[i]] != 0).all()
        for ours, theirs in zip(net.weight_optimizers[i].moments, twin.weight_optimizers[i].moments, strict=True):
            np.testing.assert_array_equal(ours, np.where(kept, theirs, 0))
    np.testing.assert_array_equal(net.weights[0][first], draws[0])
    np.testing.assert_array_equal(net.weights[1][second], draws[1])
    assert (net.weights[1][np.ix_(second, first)] != 0).all()  # between two newborns the new draw wins

    for i, units in enumerate((first, second, [])):
        old = np.setdiff1d(np.arange(widths[i + 1]), units)
        np.testing.assert_array_equal(net.biases[i][old], twin.biases[i][old])
        assert (net.biases[i][units] == 0).all()
        for ours, theirs in zip(net.bias_optimizers[i].moments, twin.bias_optimizers[i].moments, strict=True):
            np.testing.assert_array_equal(ours[old], theirs[old])
            assert (ours[units] == 0).all()
    for layer, units in enumerate((first, second)):
        for state in (net.age, net.utility, net.mean):
            assert (state[layer][units] == 0).all()
        old = np.setdiff1d(np.arange(widths[layer + 1]), units)
        np.testing.assert_array_equal(net.utility[layer][old], twin.utility[layer][old])
        assert twin.corrected(layer)[units].max() < twin.corrected(layer)[old].min()
    if make_optimizer is adam:
        assert {o.step for o in (*net.weight_optimizers, *net.bias_optimizers)} == {10}


def test_outputs_do_not_move_when_a_unit_of_the_last_hidden_layer_is_born() -> None:
    widths = (4, 12, 3)
    net = build(widths, rate=0.05, maturity=0)
    for x, y in batches(widths, 40):
        net.step(x, y)
        newborn = [e.unit for e in net.events if e.step == net.steps]
        before = net.forward(x)[0]
        net.weights[0][newborn] *= 2
        np.testing.assert_array_equal(net.forward(x)[0], before)
    assert len(net.events) == 24


def test_recorded_draws_replay_the_same_run_and_other_units_are_refused() -> None:
    widths = (4, 10, 8, 3)
    data = batches(widths, 50)
    net = build(widths, adam, rate=0.05, maturity=3)
    for x, y in data:
        net.step(x, y)
    again = build(widths, adam, rate=0.05, maturity=3, draw=replay(net.draws))
    for x, y in data:
        again.step(x, y)
    assert again.events == net.events and len(net.events) > 30
    for ours, theirs in zip(parameters(again), parameters(net), strict=True):
        np.testing.assert_array_equal(ours, theirs)

    other = build(widths, adam, rate=1.0, maturity=0, draw=replay(net.draws))
    with pytest.raises(ValueError, match="but the next recorded draw is for layer"):
        other.step(*data[0])
    empty = build(widths, adam, rate=1.0, maturity=0, draw=replay([]))
    with pytest.raises(ValueError, match="no recorded draw is left"):
        empty.step(*data[0])


@pytest.mark.parametrize("make_optimizer", [sgd, adam])
@pytest.mark.parametrize("utility", ["contribution", "adaptable_contribution"])
def test_float32_stays_float32_and_near_float64(make_optimizer: Any, utility: str) -> None:
    widths = (4, 10, 3)
    data = batches(widths, 30)
    nets = [build(widths, make_optimizer, utility=utility, rate=0.02, maturity=3, dtype=d) for d in (np.float32, float)]
    for net in nets:
        for x, y in data:
            net.step(x, y)
    single, double = nets
    assert single.events == double.events and single.events
    arrays = [*parameters(single), *single.utility, *single.mean, single.corrected(0)]
    arrays += [m for o in (*single.weight_optimizers, *single.bias_optimizers) for m in o.moments]
    assert {a.dtype for a in arrays} == {np.dtype(np.float32)}
    for ours, theirs in zip(parameters(single), parameters(double), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"hidden": "gelu"}, "hidden is 'gelu'; use one of"),
        ({"loss": "l1"}, "loss is 'l1'; use one of"),
        ({"utility": "weight"}, "utility is 'weight'; use one of"),
        ({"rate": 1.5}, "rate is 1.5; use a share between 0 and 1"),
    ],
)
def test_unknown_settings_are_refused(options: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        build((2, 2, 1), **options)


def test_bit_flipping_flips_one_slow_bit_a_period_and_tosses_the_rest() -> None:
    x, y = reference_bit_flipping(seed=0, steps=4_300, period=100)
    assert x.shape == (4_300, 20) and y.shape == (4_300,)
    assert set(np.unique(x)) == {0.0, 1.0}
    changes = np.abs(np.diff(x[:, :15], axis=0)).sum(axis=1)
    expected = np.zeros(4_299)
    expected[99::100] = 1  # between examples 99 and 100, 199 and 200, ...
    np.testing.assert_array_equal(changes, expected)
    assert np.abs(x[:, 15:].mean(axis=0) - 0.5).max() < 0.04
    assert len({tuple(np.flatnonzero(a != b)) for a, b in zip(x[99:-1:100, :15], x[100::100, :15], strict=True)}) > 5
    np.testing.assert_array_equal(reference_bit_flipping(seed=0, steps=250, period=100)[0], x[:250])
    assert not np.array_equal(reference_bit_flipping(seed=1, steps=250, period=100)[0], x[:250])


@pytest.mark.parametrize("authors_threshold", [False, True])
def test_bit_flipping_target_counts_matching_bits(authors_threshold: bool) -> None:
    # w.x + b > 14.7 - S says: of the 21 bits, the constant one included, at least 15 are as the weights' signs ask.
    # The authors' threshold is the same for a bias of 1 (up to 0.5), and 2 bits (up to 0.5) dearer for one of -1.
    x, y = reference_bit_flipping(seed=5, steps=300, period=50, authors_threshold=authors_threshold)
    rng = np.random.default_rng(5)
    w, v = rng.choice([-1.0, 1.0], (100, 21)), rng.choice([-1.0, 1.0], 101)
    for row, target in zip(x, y, strict=True):
        wanted = w > 0
        matches = (wanted == (np.append(row, 1.0) > 0.5)).sum(axis=1)
        needed = np.where(authors_threshold & (w[:, 20] < 0), 17, 15)
        assert target == v[:100][matches >= needed].sum() + v[100]
    assert len(np.unique(y)) > 4
