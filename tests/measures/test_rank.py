import math

import pytest
import torch

from regrow.measures import article_rank, effective_rank, ranks, stable_rank


def _with(sigma: list[float]) -> torch.Tensor:
    """A matrix with given singular values."""
    generator = torch.Generator().manual_seed(0)
    left, _ = torch.linalg.qr(torch.randn(50, len(sigma), generator=generator))
    right, _ = torch.linalg.qr(torch.randn(len(sigma), len(sigma), generator=generator))
    return left @ torch.diag(torch.tensor(sigma)) @ right


def test_three_ranks_on_known_singular_values() -> None:
    matrix = _with([4.0, 2.0, 1.0, 1.0])
    p = [0.5, 0.25, 0.125, 0.125]
    assert effective_rank(matrix) == pytest.approx(math.exp(-sum(x * math.log(x) for x in p)), rel=1e-5)
    assert stable_rank(matrix) == pytest.approx((16 + 4 + 1 + 1) / 16, rel=1e-5)
    assert article_rank(matrix) == 4
    assert article_rank(_with([100.0, 50.0, 1.0])) == 2  # 150 of 151 is 99.3 %
    assert article_rank(_with([100.0, 50.0, 1.0]), share=0.5) == 1


def test_article_rank_counts_to_more_than_99_percent_of_the_sum() -> None:
    assert article_rank(_with([90.0, 9.9, 0.1])) == 2
    assert article_rank(_with([90.0, 8.0, 2.0])) == 3


def test_equal_singular_values_have_full_rank_in_every_sense() -> None:
    assert ranks(_with([3.0] * 5)) == pytest.approx(
        {"effective_rank": 5, "article_rank": 5, "stable_rank": 5}, rel=1e-4
    )


def test_zeros_have_rank_0_and_nan_has_none() -> None:
    assert set(ranks(torch.zeros(10, 4)).values()) == {0.0}
    assert all(math.isnan(value) for value in ranks(torch.full((10, 4), float("nan"))).values())
