"""Labelled images on their way into a stream."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from regrow.errors import DataError


class Labelled:
    """Images with their classes.

    Args:
        images: uint8, or other numbers, [n, height, width, colours] or [n, height, width].
        labels: integers [n], the classes from 0.

    Attributes:
        images: as given.
        by_class: for each class the rows of its images, in the order in which they are given.

    Raises:
        DataError: they do not fit each other, or a class has no image.
    """

    def __init__(self, images: npt.NDArray[Any], labels: npt.NDArray[Any]) -> None:
        if images.ndim not in (3, 4) or len(images) == 0:
            raise DataError(
                f"images is {images.dtype} {list(images.shape)}, but must be [n, height, width] or "
                "[n, height, width, colours], one image or more."
            )
        if labels.shape != images.shape[:1] or not np.issubdtype(labels.dtype, np.integer):
            raise DataError(
                f"labels is {labels.dtype} {list(labels.shape)}: there must be integers [{len(images)}], one an image."
            )
        if labels.min() < 0:
            raise DataError(f"labels has {labels.min()}: classes count from 0.")
        self.images = images
        order = np.argsort(labels, kind="stable")
        counts = np.bincount(labels)
        self.by_class = np.split(order, np.cumsum(counts)[:-1])

    def require(self, count: int, classes: int | None = None) -> None:
        """Check that there are so many images of every class, and so many classes.

        Raises:
            DataError: there are not.
        """
        if classes is not None and len(self.by_class) != classes:
            raise DataError(
                f"There are test images of {len(self.by_class)} classes and training images of {classes}: they must "
                "be of the same."
            )
        for name, rows in enumerate(self.by_class):
            if len(rows) < count:
                raise DataError(
                    f"Class {name} has {len(rows)} images, and {count} of each class are needed: take fewer images of "
                    "each, or other data."
                )


def scaled(
    images: npt.NDArray[Any], white: int = 255, mean: Sequence[float] | None = None, std: Sequence[float] | None = None
) -> Tensor:
    """Turn images into what a network takes.

    Args:
        images: [n, height, width, colours] or [n, height, width].
        white: the value that becomes 1.0.
        mean: to be subtracted of each colour then.
        std: to be divided by then.

    Returns:
        float32 [n, colours, height, width].
    """
    if images.ndim == 3:
        images = images[..., None]
    values = torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2))).float().div_(white)
    if mean is not None:
        values.sub_(torch.tensor(mean)[:, None, None])
    if std is not None:
        values.div_(torch.tensor(std)[:, None, None])
    return values


def colour_statistics(images: npt.NDArray[Any], white: int = 255) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation of each colour over all pixels of all images, once `white` is 1.0.

    Worked out from counts of pixel values, so that it is exact, and the same in whatever order images are read.

    Args:
        images: uint8 [n, height, width, colours] or [n, height, width].
        white: the value that becomes 1.0.

    Raises:
        DataError: the pixels are not uint8.
    """
    if images.dtype != np.uint8:
        raise DataError(f"images is {images.dtype}: statistics are for uint8; floats are taken as they are.")
    if images.ndim == 3:
        images = images[..., None]
    values = np.arange(256) / white
    means, deviations = [], []
    for colour in range(images.shape[3]):
        counts = sum(np.bincount(part[..., colour].reshape(-1), minlength=256) for part in np.array_split(images, 64))
        share = counts / np.sum(counts)
        means.append(float(share @ values))
        deviations.append(float(np.sqrt(share @ (values - means[-1]) ** 2)))
    return tuple(means), tuple(deviations)
