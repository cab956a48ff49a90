import torch

from regrow.units.graph import Slice
from regrow.units.surgery import Region


def _region(tensor: torch.Tensor, rows: dict[int, torch.Tensor], fresh: float | None = 0.0) -> Region:
    return Region(Slice("w", "outgoing", tuple(tensor.shape), rows, fresh), tensor)


def test_columns() -> None:
    weight = torch.arange(12.0).reshape(3, 4)
    region = _region(weight, {1: torch.tensor([[0], [2]])})
    units = torch.tensor([1])
    assert region.read(units).tolist() == [[2.0, 6.0, 10.0]]
    assert region.abs_sums().tolist() == [12.0, 18.0]
    assert weight[region.part.index(1)].flatten().tolist() == [2.0, 6.0, 10.0]
    region.fill(units, 0.0)
    assert weight[:, 2].tolist() == [0, 0, 0] and weight[:, 3].tolist() == [3, 7, 11]


def test_several_positions_of_a_unit_as_after_a_flatten() -> None:
    weight = torch.arange(12.0).reshape(2, 6)
    region = _region(weight, {1: torch.tensor([[0, 1, 2], [3, 4, 5]])})
    assert region.unit_shape == (3, 2)
    assert region.abs_sums().tolist() == [0 + 1 + 2 + 6 + 7 + 8, 3 + 4 + 5 + 9 + 10 + 11]
    region.write(torch.tensor([1]), torch.full((1, 3, 2), -1.0))
    assert weight.tolist() == [[0, 1, 2, -1, -1, -1], [6, 7, 8, -1, -1, -1]]


def test_a_block_in_two_dimensions_as_of_a_grouped_convolution() -> None:
    """Also on a tensor that is not contiguous."""
    weight = torch.arange(4 * 2 * 3 * 3.0).reshape(4, 2, 3, 3).to(memory_format=torch.channels_last)
    rows = {0: torch.tensor([[0, 1], [2, 3]]), 1: torch.tensor([[1], [0]])}
    region = _region(weight, rows)
    expected = weight.clone()
    assert region.unit_shape == (2, 3, 3)
    torch.testing.assert_close(region.abs_sums(), torch.stack([weight[:2, 1].sum(), weight[2:, 0].sum()]))
    assert torch.equal(weight[region.part.index(1)].squeeze(1), weight[2:, 0])
    region.fill(torch.tensor([1]), 0.0)
    expected[2:, 0] = 0
    assert torch.equal(weight, expected)


def test_restore_goes_to_the_fresh_value_or_to_that_at_attach() -> None:
    gain = torch.tensor([0.5, 0.25])
    fresh, learned = (
        _region(gain, {0: torch.tensor([[0], [1]])}, 1.0),
        _region(gain, {0: torch.tensor([[0], [1]])}, None),
    )
    gain.fill_(9.0)
    learned.restore(torch.tensor([1]))
    assert gain.tolist() == [9.0, 0.25]
    fresh.restore(torch.tensor([0]))
    assert gain.tolist() == [1.0, 0.25]
