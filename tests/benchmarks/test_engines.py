"""The loop by hand does the work of the engines that it is compared with; no times."""

import pytest
import torch
from torch import Tensor

from benchmarks.by_hand import PlainCBP, learn
from benchmarks.engines import METHODS, Problem, bit_flipping_problem, compared
from regrow.engines.learner import build_learner
from regrow.engines.training import Training
from regrow.methods import ContinualBackprop


def examples() -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(0)
    return torch.rand(400, 6, generator=random), torch.rand(400, 2, generator=random)


TINY = Problem("tiny", (6, 9, 7, 2), Training("squared_error"), 0.01, examples, (5, 20))


@pytest.mark.parametrize("rate", [0.0, 0.01])
@pytest.mark.parametrize("rule", ["contribution", "adaptable_contribution"])
def test_the_loop_by_hand_has_the_weights_utilities_and_replacements_of_the_engines(rule: str, rate: float) -> None:
    inputs, labels = examples()
    method = ContinualBackprop(rate, 20, utility_rule=rule, weight_sums="each_step")
    engine = build_learner(
        TINY.network(), 0.01, [method], init="kaiming_uniform", engine="fused", training=TINY.training
    )
    network = TINY.network()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01)
    cbp = PlainCBP(network, optimizer, rate, 20, 0.99, adaptable=rule != "contribution")
    losses = learn(network, optimizer, cbp, inputs, labels)
    errors = engine.learn(inputs, labels)
    assert cbp.replaced == sum(engine.replacements().values())
    if rate:  # what is drawn anew differs
        assert cbp.replaced > 20
        return
    torch.testing.assert_close(losses, errors, rtol=1e-4, atol=1e-6)
    utilities = torch.cat([layer.utility for layer in cbp.layers])
    torch.testing.assert_close(utilities, engine.state_dict()["running"], rtol=1e-4, atol=1e-6)
    for one, other in zip(network.parameters(), engine.network().parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=2e-6)


def test_every_way_to_learn_is_timed_over_its_own_steps() -> None:
    for name, method in METHODS.items():
        rows = compared(TINY, name, method, rounds=2)
        names = ["by hand", "by hand (again)", "plain", "fused"]
        assert [row.case for row in rows] == [f"tiny, {name}, {engine}" for engine in names]
        assert {row.baseline for row in rows} == {f"tiny, {name}, by hand"}


def test_bit_flipping_is_the_articles() -> None:
    inputs, labels = bit_flipping_problem().examples()
    assert inputs.shape == (200_000, 20) and labels.shape == (200_000, 1)
