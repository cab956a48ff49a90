"""Smaller images: the mean over squares of pixels."""

import numpy as np
import numpy.typing as npt

from regrow.errors import DataError


def reduced(images: npt.NDArray[np.uint8], size: int) -> npt.NDArray[np.uint8]:
    """Bring images to `size`×`size` pixels; each is the mean of the square that it stands for, rounded half up.

    Args:
        images: [..., height, width] or [..., height, width, 3], square.
        size: pixels on a side; the side of the images must be a multiple of it.

    Returns:
        the images themselves if they have that size.

    Raises:
        DataError: the images are not square, or their side is not a multiple of `size`.
    """
    across = images.ndim - 2 if images.shape[-1] == 3 else images.ndim - 1
    height, width = images.shape[across - 1], images.shape[across]
    if height == width == size:
        return images
    if size < 1 or height != width or height % size:
        raise DataError(
            f"The images have {height}×{width} pixels and cannot be reduced to {size}×{size}: they must be square, and "
            f"their side a multiple of {size}."
        )
    factor = height // size
    lead, colours = images.shape[: across - 1], images.shape[across + 1 :]
    squares = images.reshape(*lead, size, factor, size, factor, *colours)
    total = squares.sum(axis=(len(lead) + 1, len(lead) + 3), dtype=np.uint32)
    area = factor * factor
    means: npt.NDArray[np.uint8] = ((total + area // 2) // area).astype(np.uint8)
    return means
