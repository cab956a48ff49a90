import numpy as np
import pytest

from regrow.errors import DataError
from regrow.streams.pieces import GrowingFile, check_alike, slices, together

GREY = np.arange(2500 * 6, dtype=np.int64).astype(np.uint8).reshape(2500, 2, 3)
COLOUR = np.arange(36, dtype=np.uint8).reshape(2, 2, 3, 3)


@pytest.mark.parametrize(
    "parts",
    [[GREY], [COLOUR], [GREY, GREY[:3]], [COLOUR, GREY, COLOUR], [GREY, COLOUR, GREY], [GREY, GREY, COLOUR]],
    ids=["grey", "colour", "grey twice", "colour first", "grey first", "colour last"],
)
def test_a_file_has_what_would_be_in_memory(tmp_path, parts):
    labelled = [(part, np.full(len(part), name)) for name, part in enumerate(parts)]
    images, labels = together(labelled)
    with GrowingFile(tmp_path / "a.npy") as file:
        for part in parts:
            file.append(part)
    written = np.load(tmp_path / "a.npy", mmap_mode="r")
    assert written.dtype == images.dtype and np.array_equal(written, images)
    assert images.ndim == (4 if any(part.ndim == 4 for part in parts) else 3)
    assert labels.tolist() == np.repeat(np.arange(len(parts)), list(map(len, parts))).tolist()


def test_grey_among_colour_has_the_same_value_in_each():
    images, _ = together([(GREY[:1], np.zeros(1, int)), (COLOUR, np.zeros(2, int))])
    for colour in range(3):
        assert np.array_equal(images[:1, ..., colour], GREY[:1])
    assert np.array_equal(images[1:], COLOUR)


def test_floats_and_arrays_that_do_not_lie_in_a_row(tmp_path):
    values = np.random.default_rng(0).random((4, 3, 2, 2), dtype=np.float32).transpose(0, 2, 3, 1)
    with GrowingFile(tmp_path / "a.npy") as file:
        for row in range(4):
            file.append(values[row : row + 1])
    assert np.array_equal(np.load(tmp_path / "a.npy"), values)


def test_slices():
    assert [(some.start, some.stop) for some in slices(1001)] == [(0, 1000), (1000, 2000)]
    assert list(slices(0)) == []


def test_pieces_that_differ():
    with pytest.raises(DataError, match=r"^b has images of uint8 2×3, and a of uint8 2×2: all must be alike\. Bring"):
        check_alike(GREY, "b", GREY[:, :, :2], "a")
    with pytest.raises(DataError, match=r"^b has images of float32 2×3, and a of uint8 2×3"):
        check_alike(GREY.astype(np.float32), "b", GREY, "a")
    check_alike(COLOUR, "b", COLOUR[:1], "a")
