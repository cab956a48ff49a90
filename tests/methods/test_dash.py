import numpy as np
import pytest
import torch
from torch import nn

import regrow
from regrow.errors import ConfigError
from regrow.methods import DASH
from tests.methods.by_hand import assert_equal, attached, does_nothing, gradients, loss_of, values


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float((a * b).sum() / np.sqrt((a**2).sum() * (b**2).sum()))


def test_rows_shrink_by_how_little_they_agree_with_the_new_data() -> None:
    model, _, plastic = attached(DASH(0.3, 0.2))
    w = values(model)
    wanted = {n: np.zeros_like(v) for n, v in w.items()}
    for seed in range(3):
        g = gradients(w, seed)  # all under the weights of the moment
        wanted = {n: 0.7 * wanted[n] - 0.3 * g[n] for n in w}
    expected, factors = {}, []
    for name, value in w.items():
        rows = value if value.ndim == 2 else value[None]
        cosines = [cosine(*pair) for pair in zip(np.atleast_2d(wanted[name]), rows, strict=True)]
        factors += cosines
        shrink = np.clip(cosines, 0.2, 1)
        expected[name] = (rows * shrink[:, None]).reshape(value.shape)
    assert min(factors) < 0.2 < max(factors)
    plastic.task_changed(loss_of(model, seed) for seed in range(3))
    assert_equal(model, expected)


def test_each_kernel_of_a_convolution_is_a_row() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 3, 2), nn.ReLU(), nn.Flatten(), nn.Linear(12, 1))
    images = torch.randn(4, 2, 3, 3)
    model, _, plastic = attached(DASH(1.0, 0.1), model, example=images)
    w = values(model)["0.weight"]
    (gradient,) = torch.autograd.grad(model(images).mean(), [model[0].weight])
    plastic.task_changed([model(images).mean()])
    for out, into in np.ndindex(3, 2):
        factor = max(cosine(-gradient.double().numpy()[out, into], w[out, into]), 0.1)
        np.testing.assert_allclose(values(model)["0.weight"][out, into], factor * w[out, into], atol=1e-6)


def test_what_the_losses_do_not_depend_on_is_left_alone() -> None:
    torch.manual_seed(0)
    model = nn.ModuleDict({"used": nn.Linear(3, 2), "unused": nn.Linear(3, 2)})
    plastic = regrow.attach(model, torch.optim.SGD(model.parameters(), lr=0.1), DASH(1.0, 0.1))
    before = values(model)
    plastic.task_changed([model["used"](torch.randn(4, 3)).square().mean()])
    after = values(model)
    assert (after["unused.weight"] == before["unused.weight"]).all()
    assert (after["used.weight"] != before["used.weight"]).any()


def test_its_forwards_do_not_count_as_training() -> None:
    model, _, plastic = attached([DASH(), regrow.ContinualBackprop()])
    plastic.task_changed(loss_of(model, seed) for seed in range(3))
    assert not any(reader.seen for worker in plastic.unit_workers for site in worker.sites for reader in site.readers)


@pytest.mark.parametrize(
    ("losses", "text"),
    [
        (None, r"DASH looks at the gradients of the new data: give task_changed\(\) their losses, one per batch"),
        ([], r"DASH was given losses that depend on no weight, or none: task_changed\(\) needs some"),
        ([0.5], "DASH needs losses with autograd, one number for each batch, but got 0.5"),
        ([torch.tensor(1.0)], r"DASH needs losses with autograd, one number for each batch, but got tensor\(1.\)"),
    ],
)
def test_losses_that_cannot_be_used(losses: object, text: str) -> None:
    model, _, plastic = attached(DASH())
    before = values(model)
    with pytest.raises(ConfigError, match=text):
        plastic.task_changed(losses)
    assert_equal(model, before, 0)


def test_a_floor_of_1_is_nothing() -> None:
    assert does_nothing(DASH(least=1.0), lambda plastic: plastic.task_changed())


@pytest.mark.parametrize("setting", ["momentum", "least"])
def test_bad_settings(setting: str) -> None:
    with pytest.raises(ConfigError, match=rf"DASH.{setting} is a share and must lie in \[0, 1\], but is 1.5"):
        DASH(**{setting: 1.5})
