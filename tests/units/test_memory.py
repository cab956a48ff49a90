import torch

from regrow.units.labels import NONE, Units, constant
from regrow.units.memory import Atlas, Memory, geometry


def memory(**tensors: torch.Tensor) -> Memory:
    units = Units()
    units.new(100)
    return Memory(Atlas(tensors), units)


def test_views_follow_from_their_base() -> None:
    value, known = torch.zeros(2, 3), memory()
    known.write(value, torch.arange(6).view(2, 3))
    assert known.labels(value.T).tolist() == [[0, 3], [1, 4], [2, 5]]
    assert known.labels(value[1, 1:]).tolist() == [4, 5]
    assert known.labels(torch.zeros(2)).tolist() == [NONE, NONE]


def test_a_write_through_a_view_shows_in_the_base_and_in_other_views() -> None:
    value, known = torch.zeros(2, 3), memory()
    column = value[:, 0]
    assert known.labels(column).tolist() == [NONE, NONE]
    known.write(value, constant(7, (2, 3)))
    known.write(value[1], torch.tensor([8, 9, 10]))
    assert known.labels(value).tolist() == [[7, 7, 7], [8, 9, 10]]
    assert known.labels(column).tolist() == [7, 8]


def test_a_copy_has_the_value_of_its_source_until_it_is_written() -> None:
    one, other, known = torch.zeros(3), torch.zeros(3), memory()
    known.note_copy(other, one)
    assert known.value(other) == known.value(one)
    known.note_write(other)
    assert known.value(other) != known.value(one)


def test_views_of_parameters_are_recognised() -> None:
    flat = torch.zeros(12)
    first, second = flat[:8].view(2, 4), flat[8:]
    known = memory(first=first, second=second)
    assert known.owners(first.T) == ["first"]
    assert known.owners(second[1:]) == ["second"]
    assert known.owners(torch.zeros(2)) == []
    assert known.owners(flat) == ["first", "second"]  # no view of either: whatever is done with it concerns both
    assert known.addresses(first.T).tolist() == [[0, 4], [1, 5], [2, 6], [3, 7]]
    assert known.addresses(second).tolist() == [8, 9, 10, 11]
    window = known.atlas.window(first[1])
    assert window is not None
    assert (window.name, window.place) == ("first", (4, (4,), (1,)))


def test_a_whole_copy_is_known_by_its_place_until_it_is_written() -> None:
    first, second = torch.zeros(2), torch.zeros(3, 4)
    known = memory(first=first, second=second)
    cast, transposed = second.bfloat16(), second.T.contiguous()
    known.note_copy(cast, second)
    window = known.window(cast[1].unsqueeze(0))
    assert window is not None
    assert (window.name, window.place) == ("second", (4, (1, 4), (4, 1)))
    assert known.owners(cast) == ["second"]
    assert known.addresses(cast[:, 1]).tolist() == [3, 7, 11]
    assert known.window(cast.view(torch.int16)) is None

    known.note_copy(transposed, second.T)  # in another order
    assert known.window(transposed) is None
    known.note_write(cast)
    assert known.owners(cast) == []


def test_what_stands_for_a_parameter_has_its_elements() -> None:
    known = memory(first=torch.zeros(2), computed=torch.empty(3, 4, device="meta"))
    for result in (torch.zeros(3, 4), torch.zeros(4, 3).T):
        known.note_stand_in(result, "computed")
        assert known.owners(result) == ["computed"]
        assert known.addresses(result[1]).tolist() == [6, 7, 8, 9]


def test_a_geometry_counts_from_the_start_of_the_storage() -> None:
    assert geometry(torch.zeros(3, 4)[1:, 2]) == (6, (2,), (4,))


def test_memory_read_as_elements_of_another_size() -> None:
    value, known = torch.zeros(2, 4), memory()
    known.write(value, torch.tensor([[0, 0, 1, 1], [2, 2, 3, NONE]]))
    pairs = torch.view_as_complex(value.view(2, 2, 2))
    assert known.labels(pairs).tolist() == [[0, 1], [2, 3]]
    assert known.labels(value.view(torch.uint8)[0, 2:10]).tolist() == [0] * 6 + [1] * 2
    known.write(pairs[:, 0], torch.tensor([5, 6]))
    assert known.labels(value).tolist() == [[5, 5, 1, 1], [6, 6, 3, 3]]


def test_memory_that_grows() -> None:
    value, known = torch.zeros(2), memory()
    known.write(value, torch.tensor([1, 2]))
    known.write(value[:1], torch.tensor([3]))
    assert known.labels(value.resize_(4)).tolist() == [3, 2, NONE, NONE]
