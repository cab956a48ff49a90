"""Blocks cover tensors exactly, and what is computed in them is what is computed from the whole."""

import pytest
import torch
from torch import Tensor

from regrow.units.blocks import in_blocks, sums_along

SHAPES = [
    (3,),
    (70_001,),
    (300_000,),
    (1000, 700),
    (333, 1201),
    (64, 64, 3, 3),
    (256, 300, 3, 3),
    (200_003, 1),
    (2, 99_999),
]


@pytest.mark.parametrize("shape", SHAPES)
def test_draws_into_blocks_are_those_into_the_whole(shape: tuple[int, ...]) -> None:
    whole = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    drawn, generator = torch.empty(shape), torch.Generator().manual_seed(1)
    for (block,) in in_blocks(drawn):
        block.copy_(torch.randn(block.shape, generator=generator))
    assert torch.equal(drawn, whole)


@pytest.mark.parametrize("shape", SHAPES)
def test_blocks_of_several_tensors_stay_together(shape: tuple[int, ...]) -> None:
    one, other = torch.arange(2.0 * torch.Size(shape).numel()).view(2, *shape).unbind()
    blocks = list(in_blocks(one, other))
    assert torch.equal(torch.cat([block for block, _ in blocks]), one)
    assert torch.equal(torch.cat([block for _, block in blocks]), other)
    assert (len(blocks) > 1) == (one.numel() > 1 << 17 and shape[0] > 16)


def test_a_scalar_is_one_block() -> None:
    assert [block.item() for (block,) in in_blocks(torch.tensor(2.0))] == [2.0]


@pytest.mark.parametrize("shape", [(4,), (0, 4), (5, 4), (300, 1000), (2, 500, 600), (40, 16, 30, 30)])
def test_sums_are_those_over_all_other_dimensions(shape: tuple[int, ...]) -> None:
    one, other = torch.randn(2, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).unbind()
    for dim in range(-1, len(shape)):
        others = [place for place in range(len(shape)) if place != dim % len(shape)]
        expected = (one * other).abs().sum(dim=others) if others else (one * other).abs()
        found = sums_along(dim, lambda left, right: (left * right).abs(), one, other)
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, expected.float())


def test_blocks_follow_strides() -> None:
    weight: Tensor = torch.randn(64, 300, 4, 4).to(memory_format=torch.channels_last)
    before = weight.clone()
    for (block,) in in_blocks(weight):
        block.add_(1)
    assert torch.equal(weight, before + 1)
