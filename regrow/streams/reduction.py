"""Smaller images: the mean over squares of pixels."""

from typing import Any

import numpy as np
import numpy.typing as npt

from regrow.errors import DataError


def reduced(images: npt.NDArray[Any], size: int) -> npt.NDArray[Any]:
    """Bring images to `size`×`size` pixels; each is the mean of the square that it stands for, rounded half up.

    Args:
        images: uint8 [..., height, width] or [..., height, width, 3], square.
        size: pixels on a side; the side of the images must be a multiple of it.

    Returns:
        the images themselves if they have that size.

    Raises:
        DataError: the images are not square, their side is not a multiple of `size`, or they are not uint8.
    """
    colours = 3 if images.shape[-1] == 3 else 1
    lead = images.shape[: images.ndim - (3 if colours == 3 else 2)]
    height, width = images.shape[len(lead) : len(lead) + 2]
    if height == width == size:
        return images
    if size < 1 or height != width or height % size:
        raise DataError(
            f"The images have {height}×{width} pixels and cannot be reduced to {size}×{size}: they must be square, and "
            f"their side a multiple of {size}."
        )
    if images.dtype != np.uint8:
        raise DataError(f"The images are {images.dtype}, and only uint8 is reduced: bring them to {size}×{size} first.")
    factor = height // size
    area = factor * factor
    squares = images.reshape(-1, size, factor, size, factor, colours)
    total = np.full((len(squares), size, size, colours), area // 2, dtype=np.uint32)
    for row in range(factor):
        for column in range(factor):
            total += squares[:, :, row, :, column]
    means: npt.NDArray[np.uint8] = (total // area).astype(np.uint8)
    return means.reshape(*lead, size, size, *images.shape[len(lead) + 2 :])
