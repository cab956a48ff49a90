"""Random changes of images that leave their class as it is."""

import math

import torch
from torch import Generator, Tensor


def augment(images: Tensor, generator: Generator, padding: int = 4, degrees: float = 15.0) -> Tensor:
    """Flip, crop and rotate each image of a batch by its own draws, as for class-incremental CIFAR.

    In this order (Dohare et al., Nature 632, 2024): a flip from left to right with probability ½; a crop of the size of
    the image out of the image with a reflected border; a rotation by an angle drawn from U(0, `degrees`),
    anticlockwise, each pixel from the nearest one and 0 where there is none.

    Args:
        images: float [n, colours, height, width].
        generator: what draws, on the device of the images.
        padding: width of the border in pixels, less than height and width.
        degrees: the largest angle.

    Returns:
        new images of the same shape.
    """
    count, _, height, width = images.shape
    flip = torch.rand(count, generator=generator, device=images.device) < 0.5
    shift = torch.randint(2 * padding + 1, (2, count), generator=generator, device=images.device) - padding
    angle = torch.rand(count, generator=generator, device=images.device) * math.radians(degrees)
    return gather(images, flip, shift, angle)


def gather(images: Tensor, flip: Tensor, shift: Tensor, angle: Tensor) -> Tensor:
    """Flip, shift with a reflected border, and rotate.

    All three only say which pixel goes where, so they are put together, and each pixel is copied once.

    Args:
        images: float [n, colours, height, width].
        flip: bool [n].
        shift: int64 [2, n]: by how many rows and columns the crop lies below and to the right of the image.
        angle: float [n], anticlockwise, in radians.

    Returns:
        new images of the same shape.
    """
    count, colours, height, width = images.shape
    row, column, inside = _rotated(height, width, angle)
    row = _reflected(row + shift[0, :, None, None], height)
    column = _reflected(column + shift[1, :, None, None], width)
    column = torch.where(flip[:, None, None], width - 1 - column, column)
    place = (row * width + column).view(count, 1, -1).expand(-1, colours, -1)
    found = images.reshape(count, colours, -1).gather(2, place).view(images.shape)
    return found * inside[:, None]


def _rotated(height: int, width: int, angle: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Which row and column each pixel of a rotated image comes from, [n, height, width], and whether that is inside."""
    cosine, sine = angle.cos()[:, None, None], angle.sin()[:, None, None]
    down = torch.arange(height, device=angle.device)[None, :, None] - (height - 1) / 2
    right = torch.arange(width, device=angle.device)[None, None, :] - (width - 1) / 2
    # Rows count downwards: what an anticlockwise turn brings here lay further on in the clockwise direction.
    row = (right * sine + down * cosine + (height - 1) / 2).round().long()
    column = (right * cosine - down * sine + (width - 1) / 2).round().long()
    inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
    return row.clamp(0, height - 1), column.clamp(0, width - 1), inside


def _reflected(position: Tensor, size: int) -> Tensor:
    """Where a position beyond the border lies when the border is a mirror through the outermost pixels."""
    position = position.abs()
    return torch.where(position >= size, 2 * (size - 1) - position, position)
