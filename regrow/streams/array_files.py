"""Images from files of plain arrays: ImageNet-32 as given out, one array a class, CIFAR-100's binary version.

Pickles run whatever code is in them, so none is opened: neither those of CIFAR's Python version, nor arrays of objects.
"""

import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from regrow.errors import DataError
from regrow.streams.pieces import Pieces, Pixels, check_alike, slices

_CIFAR_ROW = 2 + 3 * 32 * 32
_SIDE = 32


def read_batches(paths: Sequence[Path]) -> Pieces:
    """Yield the images and labels of the downsampled ImageNet's files, one after the other.

    Each is an .npz of `data`, uint8 [n, 3·side·side], colour by colour and row by row, and `labels`, integers [n] from
    1 (Chrabaszcz, Loshchilov and Hutter 2017, arXiv 1707.08819). One file at a time is in memory.

    Yields:
        uint8 [n, side, side, 3], and labels that count from 0.

    Raises:
        DataError: a file cannot be read, is cut off, or has other arrays; or the images differ in size.
    """
    first = None
    for path in paths:
        for images, labels in _batch(path):
            first = images[:1] if first is None else first
            check_alike(images, str(path), first, paths[0].name)
            yield images, labels


def _batch(path: Path) -> Pieces:
    data, labels = _array(path, "data"), _array(path, "labels").reshape(-1)
    side = _side(path, data)
    if labels.shape != data.shape[:1] or not np.issubdtype(labels.dtype, np.integer):
        raise DataError(
            f"{path} has labels of {labels.dtype} {list(labels.shape)}: it needs integers [{len(data)}]. Copy or "
            "download it again."
        )
    if labels.min() < 1:
        raise DataError(
            f"{path} has the label {labels.min()}: in this layout classes count from 1. Add 1 to all labels, or "
            "download it again."
        )
    images = data.reshape(-1, 3, side, side).transpose(0, 2, 3, 1)
    for some in slices(len(images)):
        yield np.ascontiguousarray(images[some]), labels[some].astype(np.int64) - 1


def _side(path: Path, data: Pixels) -> int:
    side = round((data.shape[-1] / 3) ** 0.5) if data.ndim == 2 else 0
    if data.dtype != np.uint8 or data.size == 0 or 3 * side * side != data.shape[1]:
        raise DataError(
            f"{path} has data of {data.dtype} {list(data.shape)}: it must be uint8 [n, 3·side·side], one row or more. "
            "Take the files of the downsampled ImageNet as they are given out."
        )
    return side


def _array(path: Path, name: str) -> Pixels:
    try:
        with path.open("rb") as file:
            arrays = np.load(file, allow_pickle=False)
            if isinstance(arrays, np.ndarray):
                raise DataError(f"{path} is a single array: it must be an .npz with 'data' and 'labels'.")
            if name not in arrays:
                raise DataError(f"{path} has the arrays {list(arrays)}: it needs 'data' and 'labels'.")
            found: Pixels = arrays[name]
            return found
    except DataError:
        raise
    except (OSError, ValueError, EOFError, zlib.error, zipfile.BadZipFile) as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> DataError:
    if "pickle" in str(error) or "object" in str(error):
        return DataError(
            f"Cannot read {path}: it holds Python objects, or is no file of arrays. Objects are pickles, which can run "
            "anything, so none is opened: save plain arrays of numbers, or copy or download it again."
        )
    return DataError(f"Cannot read {path}: {error}. Copy or download it again.")


def class_files(folder: Path) -> list[Path]:
    """Return the .npy files of a folder in the order of their classes: by number if all are called so, else by name."""
    files = sorted(folder.glob("*.npy"))
    numbered = all(path.stem.isdigit() for path in files)
    return sorted(files, key=lambda path: int(path.stem)) if numbered else files


def read_classes(paths: Sequence[Path]) -> Pieces:
    """Yield the images of files that have one class each, as the article's code keeps Continual ImageNet.

    Each is an .npy of [n, 3, height, width] or [n, height, width, 3], uint8, or floats that are taken as they are.

    Args:
        paths: the file of class 0, of class 1 and so on.

    Yields:
        uint8 or float32 [n, height, width, 3] of one class, and labels.

    Raises:
        DataError: a file cannot be read, is cut off, has another shape or type than the first, or values that are not
            finite.
    """
    first = None
    for label, path in enumerate(paths):
        images = _one_class(path)
        first = images[:1] if first is None else first
        check_alike(images, str(path), first, paths[0].name)
        kind = np.uint8 if images.dtype == np.uint8 else np.float32
        yield np.ascontiguousarray(images, dtype=kind), np.full(len(images), label, dtype=np.int64)


def _one_class(path: Path) -> Pixels:
    try:
        images: Pixels = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise _unreadable(path, error) from error
    if images.ndim == 4 and images.shape[1] == 3:
        images = images.transpose(0, 2, 3, 1)
    fits = images.ndim == 4 and images.shape[3] == 3 and len(images) > 0
    if not fits or not (images.dtype == np.uint8 or np.issubdtype(images.dtype, np.floating)):
        raise DataError(
            f"{path} has {images.dtype} {list(images.shape)}: it must be uint8 or floats [n, 3, height, width] or "
            "[n, height, width, 3], one image or more. Save it so, one file a class."
        )
    if not np.isfinite(images).all():
        raise DataError(f"{path} has values that are not finite: copy or make it again.")
    return images


def read_cifar_binary(path: Path) -> Pieces:
    """Yield the images and fine labels of CIFAR-100's binary version, `train.bin` or `test.bin`.

    An image is a byte for the coarse label, one for the fine label, and 3,072 for the pixels, colour by colour and row
    by row (Krizhevsky 2009).

    Yields:
        uint8 [n, 32, 32, 3], and labels from 0 to 99.

    Raises:
        DataError: the file cannot be read, is cut off, or has a label out of range.
    """
    try:
        data = np.fromfile(path, dtype=np.uint8)
    except OSError as error:
        raise DataError(f"Cannot read {path}: {error}. Copy or download it again.") from error
    if len(data) == 0 or len(data) % _CIFAR_ROW:
        raise DataError(
            f"{path} has {len(data)} bytes, which is no whole number of images of {_CIFAR_ROW}: it is cut off or "
            "damaged, or not CIFAR-100. Copy or download it again."
        )
    rows = data.reshape(-1, _CIFAR_ROW)
    wrong = np.flatnonzero((rows[:, 0] >= 20) | (rows[:, 1] >= 100))
    if len(wrong):
        coarse, fine = rows[wrong[0], :2]
        raise DataError(
            f"Image {wrong[0]} of {path} has the labels {coarse} and {fine}: they must be below 20 and below 100. "
            "It is damaged, or not CIFAR-100. Copy or download it again."
        )
    images = rows[:, 2:].reshape(-1, 3, _SIDE, _SIDE).transpose(0, 2, 3, 1)
    yield np.ascontiguousarray(images), rows[:, 1].astype(np.int64)
