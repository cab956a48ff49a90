import numpy as np
import pytest
import torch

from regrow.errors import ConfigError, ModelError, StateError
from regrow.methods import ReGraMa
from tests.methods.by_hand import attached, batch, does_nothing, gradients, make_network, step, values


def test_units_of_little_gradient_are_redrawn() -> None:
    model = make_network()
    with torch.no_grad():
        model[2].weight[:, 2] *= 0.001  # nearly nothing flows back
    model, optimizer, plastic = attached(ReGraMa(period=2, threshold=0.05), model)
    step(model, optimizer, 0)
    assert not plastic.events
    g = np.abs(gradients(values(model), 1)["0.weight"]).mean(axis=1)
    score = g / g.mean()
    step(model, optimizer, 1)
    assert [event.unit for event in plastic.events] == list(np.flatnonzero(score <= 0.05)) == [2]
    after = values(model)
    assert not after["2.weight"][:, 2].any() and after["0.weight"][2].all()


def test_the_score_is_the_one_of_the_equation_and_leaves_biases_out() -> None:
    model, optimizer, plastic = attached(ReGraMa(period=1, largest_share=0.0))
    g = np.abs(gradients(values(model))["0.weight"]).mean(axis=1)
    step(model, optimizer)
    np.testing.assert_allclose(plastic.state_of("0")["utility"].numpy(), g / g.mean(), rtol=1e-5)


def test_a_group_that_no_backward_pass_has_reached_is_left_alone() -> None:
    _, optimizer, plastic = attached(ReGraMa(period=1, threshold=5.0))
    optimizer.step()
    assert not plastic.events


def test_what_has_no_gradient_to_rank_by_is_refused() -> None:
    model = make_network()
    torch.nn.utils.parametrizations.weight_norm(model[0])
    with pytest.raises(
        ModelError, match=r"0.weight is computed by a parametrization, so it has no gradient to rank by"
    ):
        attached(ReGraMa(), model)
    import regrow

    plastic = regrow.attach(make_network(), None, ReGraMa(period=1), example=batch()[0])
    with pytest.raises(StateError, match=r"found no gradients, by which the units of 0 are ranked"):
        plastic.step()


def test_a_largest_share_of_0_is_nothing() -> None:
    assert does_nothing(ReGraMa(period=1, threshold=10.0, largest_share=0.0))


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"period": 2.0}, "period must be a whole number of at least 1, but is 2.0"),
        ({"threshold": float("nan")}, "threshold must be a finite number ≥ 0, but is nan"),
        ({"largest_share": -0.1}, r"largest_share is a share and must lie in \[0, 1\], but is -0.1"),
    ],
)
def test_bad_settings(settings: dict[str, object], text: str) -> None:
    with pytest.raises(ConfigError, match=f"ReGraMa.{text}"):
        ReGraMa(**settings)
