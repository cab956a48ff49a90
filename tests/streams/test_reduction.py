import numpy as np
import pytest

from regrow.errors import DataError
from regrow.streams.reduction import reduced


@pytest.mark.parametrize("shape", [(6, 6), (6, 6, 3), (5, 6, 6), (5, 6, 6, 3)])
@pytest.mark.parametrize("size", [1, 2, 3])
def test_each_pixel_is_the_mean_of_its_square_rounded_half_up(shape, size):
    images = np.random.default_rng(0).integers(256, size=shape, dtype=np.uint8)
    colours = shape[-1] if shape[-1] == 3 else 1
    flat = images.reshape(-1, 6, 6, colours)
    factor = 6 // size
    expected = np.empty((len(flat), size, size, colours), dtype=np.uint8)
    for place in np.ndindex(*expected.shape):
        image, row, column, colour = place
        rows, columns = (slice(factor * start, factor * (start + 1)) for start in (row, column))
        expected[place] = np.floor(flat[image, rows, columns, colour].mean() + 0.5)
    result = reduced(images, size)
    assert result.dtype == np.uint8
    assert np.array_equal(result, expected.reshape(result.shape)) and result.ndim == images.ndim


def test_images_of_that_size_are_left_alone():
    images = np.zeros((2, 4, 4, 3), dtype=np.float32)
    assert reduced(images, 4) is images


def test_what_cannot_be_reduced():
    for shape, size, words in [
        ((2, 6, 6), 4, "6×6 pixels and cannot be reduced to 4×4"),
        ((2, 4, 8), 2, "4×8 pixels"),
        ((2, 4, 4), 8, "4×4 pixels and cannot be reduced to 8×8: they must be square, and their side a multiple of 8"),
        ((2, 4, 4), 0, "to 0×0"),
    ]:
        with pytest.raises(DataError, match=words):
            reduced(np.zeros(shape, dtype=np.uint8), size)
    with pytest.raises(DataError, match="images are float32, and only uint8 is reduced: bring them to 2×2 first"):
        reduced(np.zeros((2, 4, 4), dtype=np.float32), 2)
