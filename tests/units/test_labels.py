import torch

from regrow.units.labels import NONE, ZERO, Units, align, compress, constant, meet, units_in, varying


def test_joined_units_go_by_the_earliest_number() -> None:
    units = Units()
    assert units.new(3).tolist() == [0, 1, 2]
    assert units.new(2).tolist() == [3, 4]
    units.join(torch.tensor([4, 3]), torch.tensor([3, 1]))
    assert units.find(torch.tensor([0, 1, 2, 3, 4, NONE, ZERO])).tolist() == [0, 1, 2, 1, 1, NONE, ZERO]
    assert units.joins == 2
    units.join(torch.tensor([1]), torch.tensor([4]))
    assert units.joins == 2


def test_a_constant_dimension_costs_nothing() -> None:
    plane = compress(torch.arange(3)[None, :, None].repeat(4, 1, 5))
    assert plane.shape == (4, 3, 5)
    assert plane.untyped_storage().nbytes() // 8 == 60
    assert [plane.stride(dim) for dim in (0, 2)] == [0, 0]
    assert varying(plane) == (1,)
    assert varying(compress(plane.permute(1, 0, 2).flatten(1))) == (0,)


def test_what_a_plane_holds_along_a_dimension() -> None:
    met = meet(torch.tensor([[0, 0, ZERO], [1, 2, 1], [3, NONE, 3], [NONE, ZERO, NONE]]), [1])
    assert met.label.flatten().tolist() == [0, 2, 3, NONE]
    assert (met.left.tolist(), met.right.tolist()) == ([2], [1])
    assert met.foreign.flatten().tolist() == [False, False, True, False]
    assert met.several.flatten().tolist() == [False, True, True, False]


def test_an_empty_plane_holds_nothing() -> None:
    met = meet(constant(NONE, (0, 3)), [0])
    assert met.label.tolist() == [[NONE] * 3]
    assert not met.several.any()


def test_planes_are_broadcast_and_stacked() -> None:
    stacked = align([torch.tensor([0, 1]), constant(NONE, (3, 1))], (3, 2))
    assert stacked.shape == (3, 2, 2)
    assert stacked[2].tolist() == [[0, NONE], [1, NONE]]
    assert units_in(stacked).tolist() == [0, 1]
