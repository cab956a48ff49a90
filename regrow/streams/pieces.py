"""Images that come piece by piece, so that never all of them need be in memory."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from regrow.errors import DataError

Pixels = npt.NDArray[Any]
Labels = npt.NDArray[np.int64]
# Images [n, height, width] or [n, height, width, 3] and their labels [n]. A piece is grey if all of it is.
Pieces = Iterator[tuple[Pixels, Labels]]

_AT_ONCE = 1000


def slices(count: int) -> Iterator[slice]:
    """Cut `count` rows into slices of a thousand."""
    return (slice(start, start + _AT_ONCE) for start in range(0, count, _AT_ONCE))


def together(pieces: Iterable[tuple[Pixels, Labels]]) -> tuple[Pixels, Labels]:
    """Return all images and labels in memory; in colour if any piece is."""
    parts = list(pieces)
    colour = any(images.ndim == 4 for images, _ in parts)
    images = np.concatenate([in_colour(images) if colour else images for images, _ in parts])
    return images, np.concatenate([labels for _, labels in parts])


def in_colour(images: Pixels) -> Pixels:
    """Return grey images [n, height, width] as [n, height, width, 3], and colour images as they are."""
    return images if images.ndim == 4 else np.repeat(images[..., None], 3, axis=3)


class GrowingFile:
    """An .npy file that images are appended to, for use in a `with` block; it is complete at its end.

    Args:
        path: where to write.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: BinaryIO = path.open("wb")
        self._count = 0
        self._shape: tuple[int, ...] = ()
        self._kind = np.dtype(np.uint8)

    def append(self, images: Pixels) -> None:
        """Write images behind those that are there; once one piece has colour, all do.

        Raises:
            OSError: they cannot be written.
        """
        if self._count == 0:
            self._shape, self._kind = images.shape[1:], images.dtype
            self._write_header()
        elif images.ndim > len(self._shape) + 1:
            self._give_colour()
        elif images.ndim < len(self._shape) + 1:
            images = in_colour(images)
        self._file.write(np.ascontiguousarray(images).data)
        self._count += len(images)

    def _write_header(self) -> None:
        # Its length does not depend on the count: the format leaves room for one that grows.
        self._file.seek(0)
        header = {
            "descr": np.lib.format.dtype_to_descr(self._kind),
            "fortran_order": False,
            "shape": (self._count, *self._shape),
        }
        np.lib.format.write_array_header_1_0(self._file, header)

    def _give_colour(self) -> None:
        self._finish()
        grey = np.load(self._path, mmap_mode="r")
        self._path.unlink()  # its bytes stay until `grey` is gone
        self._file = self._path.open("wb")
        self._count = 0
        for some in slices(len(grey)):
            self.append(in_colour(grey[some]))

    def _finish(self) -> None:
        with self._file:
            self._write_header()

    def __enter__(self) -> "GrowingFile":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if kind is None:
            self._finish()
        else:
            self._file.close()


def check_alike(images: Pixels, where: str, first: Pixels, first_where: str) -> None:
    """Check that images have the size and type of those that came first.

    Raises:
        DataError: they do not.
    """
    if images.shape[1:3] != first.shape[1:3] or images.dtype != first.dtype:
        raise DataError(
            f"{where} has images of {images.dtype} {_size(images)}, and {first_where} of {first.dtype} {_size(first)}: "
            "all must be alike. Bring them to one size and type first."
        )


def _size(images: Pixels) -> str:
    return "×".join(map(str, images.shape[1:3]))
