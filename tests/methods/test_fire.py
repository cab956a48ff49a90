import numpy as np
import pytest
import torch
from torch import nn

from regrow.errors import ConfigError
from regrow.methods import FIRE
from tests.methods.by_hand import assert_equal, attached, does_nothing, values


def polar(w: np.ndarray) -> np.ndarray:
    left, _, right = np.linalg.svd(w, full_matrices=False)
    return left @ right


@pytest.mark.parametrize("skip_output", [False, True])
def test_matrices_become_their_polar_factor_at_the_task_change(skip_output: bool) -> None:
    model, _, plastic = attached(FIRE(40, skip_output))
    w = values(model)
    plastic.task_changed()
    w["0.weight"] = polar(w["0.weight"]) * (4 / 3) ** 0.5
    if not skip_output:
        w["2.weight"] = polar(w["2.weight"]) * (2 / 4) ** 0.5
    assert_equal(model, w, 1e-5)


def test_ten_iterations_are_those_of_newton_and_schulz() -> None:
    model, _, plastic = attached(FIRE())
    w = values(model)
    x = w["0.weight"] / np.sqrt((w["0.weight"] ** 2).sum())
    for _ in range(10):
        x = 1.5 * x - 0.5 * x @ x.T @ x
    plastic.task_changed()
    np.testing.assert_allclose(values(model)["0.weight"], x * (4 / 3) ** 0.5, atol=1e-6)


def test_each_tap_of_a_convolution_is_a_matrix_and_norms_stay() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 2), nn.BatchNorm2d(4), nn.ReLU(), nn.ConvTranspose2d(4, 2, 3))
    model, _, plastic = attached(FIRE(60), model, example=torch.zeros(2, 3, 4, 4))
    w = values(model)
    plastic.task_changed()
    for row, column in np.ndindex(2, 2):
        tap = w["0.weight"][:, :, row, column]
        w["0.weight"][:, :, row, column] = polar(tap) * (4 / 3) ** 0.5 / 4
    for row, column in np.ndindex(3, 3):  # [in, out, ...]
        tap = w["3.weight"][:, :, row, column]
        w["3.weight"][:, :, row, column] = polar(tap) * (2 / 4) ** 0.5 / 9
    assert_equal(model, w, 1e-5)


class Words(nn.Module):
    """An embedding of one's own, which torch does not know as one."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(6, 4))

    def forward(self, words: torch.Tensor) -> torch.Tensor:
        return self.weight[words]


def test_a_table_that_torch_does_not_know_as_one_is_refused_where_the_output_shares_it() -> None:
    words, head = Words(), nn.Linear(4, 6, bias=False)
    head.weight = words.weight
    model = nn.Sequential(words, nn.Linear(4, 4), nn.ReLU(), head)
    with pytest.raises(ConfigError, match="FIRE cannot take 0.weight, which the model has in several places"):
        attached(FIRE(), model, example=torch.randint(6, (2, 5)))


class Tied(nn.Module):
    def __init__(self, head_first: bool) -> None:
        super().__init__()
        if head_first:
            self.head = nn.Linear(4, 6, bias=False)
        self.table = nn.Embedding(6, 4)
        self.hidden = nn.Linear(4, 4)
        if not head_first:
            self.head = nn.Linear(4, 6, bias=False)
        self.head.weight = self.table.weight

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.head(torch.relu(self.hidden(self.table(tokens))))


@pytest.mark.parametrize("head_first", [False, True])
def test_a_tied_head_is_refused_and_may_be_left_out(head_first: bool) -> None:
    tokens = torch.tensor([[1, 2, 3]])
    with pytest.raises(
        ConfigError, match=r"FIRE cannot take (table|head).weight, which the model has in several places"
    ):
        attached(FIRE(), Tied(head_first), example=tokens)
    model, _, plastic = attached(FIRE(), Tied(head_first), example=tokens, exclude=["table", "head"])
    table, hidden = model.table.weight.detach().clone(), model.hidden.weight.detach().clone()
    plastic.task_changed()
    assert torch.equal(model.table.weight, table) and not torch.equal(model.hidden.weight, hidden)


def test_a_table_is_no_matrix() -> None:
    model = nn.Sequential(nn.Embedding(6, 4), nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    table = model[0].weight.detach().clone()
    model, _, plastic = attached(FIRE(), model, example=torch.tensor([[1, 2, 3]]))
    plastic.task_changed()
    assert torch.equal(model[0].weight, table)


def test_no_iterations_and_no_task_change_are_nothing() -> None:
    assert does_nothing(FIRE(0), lambda plastic: plastic.task_changed())
    assert does_nothing(FIRE())


def test_bad_settings() -> None:
    with pytest.raises(ConfigError, match=r"FIRE.iterations must be a whole number of at least 0, but is -1"):
        FIRE(-1)
