"""Images from files of plain arrays: ImageNet-32 as given out, one array a class, CIFAR-100's binary version.

Pickles run whatever code is in them, so none is opened: neither those of CIFAR's Python version, nor arrays of objects.
"""

import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from regrow.errors import DataError
from regrow.streams.image_files import Images, Labels

Pixels = npt.NDArray[Any]  # uint8, or float32 as it is in the files

_CIFAR_ROW = 2 + 3 * 32 * 32
_SIDE = 32


def read_batches(paths: Sequence[Path]) -> tuple[Images, Labels]:
    """Return the images and labels of the downsampled ImageNet's files, one after the other.

    Each is an .npz of `data`, uint8 [n, 3·side·side], colour by colour and row by row, and `labels`, integers [n] from
    1 (Chrabaszcz, Loshchilov and Hutter 2017, arXiv 1707.08819).

    Returns:
        uint8 [n, side, side, 3], and labels that count from 0.

    Raises:
        DataError: a file cannot be read, is cut off, or has other arrays.
    """
    parts = [_batch(path) for path in paths]
    widths = sorted({images.shape[1] for images, _ in parts})
    if len(widths) > 1:
        shown = ", ".join(f"{width}×{width}" for width in widths)
        raise DataError(f"The images in {_names(paths)} have different sizes ({shown}): choose files of one size.")
    return np.concatenate([images for images, _ in parts]), np.concatenate([labels for _, labels in parts])


def _batch(path: Path) -> tuple[Images, Labels]:
    arrays = {name: _array(path, name) for name in ("data", "labels")}
    data, labels = arrays["data"], arrays["labels"].reshape(-1)
    side = round((data.shape[-1] / 3) ** 0.5)
    if data.ndim != 2 or data.dtype != np.uint8 or 3 * side * side != data.shape[1] or len(data) == 0:
        raise DataError(
            f"{path} has data of {data.dtype} {list(data.shape)}: it must be uint8 [n, 3·side·side], one row or more."
        )
    if labels.shape != data.shape[:1] or not np.issubdtype(labels.dtype, np.integer):
        raise DataError(f"{path} has labels of {labels.dtype} {list(labels.shape)}: it needs integers [{len(data)}].")
    if labels.min() < 1:
        raise DataError(f"{path} has the label {labels.min()}: in this layout classes count from 1.")
    images = np.ascontiguousarray(data.reshape(-1, 3, side, side).transpose(0, 2, 3, 1))
    return images, labels.astype(np.int64) - 1


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
        raise DataError(f"Cannot read {path}: {error}. Copy or download it again.") from error


def class_files(folder: Path) -> list[Path]:
    """Return the .npy files of a folder in the order of their classes: by number if all are called so, else by name."""
    files = sorted(folder.glob("*.npy"))
    numbered = all(path.stem.isdigit() for path in files)
    return sorted(files, key=lambda path: int(path.stem)) if numbered else files


def read_classes(paths: Sequence[Path]) -> tuple[Pixels, Labels]:
    """Return the images of files that have one class each, as the article's code keeps Continual ImageNet.

    Each is an .npy of [n, 3, height, width] or [n, height, width, 3], uint8, or floats that are taken as they are.

    Args:
        paths: the file of class 0, of class 1 and so on.

    Returns:
        uint8 or float32 [n, height, width, 3], and labels.

    Raises:
        DataError: a file cannot be read, is cut off, or has another shape or type than the first.
    """
    parts = [_one_class(path) for path in paths]
    for path, part in zip(paths, parts, strict=True):
        if part.shape[1:] != parts[0].shape[1:] or part.dtype != parts[0].dtype:
            raise DataError(
                f"{path} has images of {part.dtype} {list(part.shape[1:])}, and {paths[0].name} of {parts[0].dtype} "
                f"{list(parts[0].shape[1:])}: all classes must be alike."
            )
    kind = np.uint8 if parts[0].dtype == np.uint8 else np.float32
    images = np.empty((sum(map(len, parts)), *parts[0].shape[1:]), dtype=kind)
    np.concatenate(parts, out=images, casting="same_kind")
    return images, np.repeat(np.arange(len(parts)), [len(part) for part in parts])


def _one_class(path: Path) -> Pixels:
    try:
        # Mapped, so that a thousand of them are not all in memory beside their copy.
        images: Pixels = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"Cannot read {path}: {error}. Copy or download it again.") from error
    if images.ndim == 4 and images.shape[1] == 3:
        images = images.transpose(0, 2, 3, 1)
    fits = images.ndim == 4 and images.shape[3] == 3 and len(images) > 0
    if not fits or not (images.dtype == np.uint8 or np.issubdtype(images.dtype, np.floating)):
        raise DataError(
            f"{path} has {images.dtype} {list(images.shape)}: it must be uint8 or floats [n, 3, height, width] or "
            "[n, height, width, 3], one image or more."
        )
    return images


def read_cifar_binary(path: Path) -> tuple[Images, Labels]:
    """Return the images and fine labels of CIFAR-100's binary version, `train.bin` or `test.bin`.

    An image is a byte for the coarse label, one for the fine label, and 3,072 for the pixels, colour by colour and row
    by row (Krizhevsky 2009).

    Returns:
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
            "It is damaged, or not CIFAR-100."
        )
    images = rows[:, 2:].reshape(-1, 3, _SIDE, _SIDE).transpose(0, 2, 3, 1)
    return np.ascontiguousarray(images), rows[:, 1].astype(np.int64)


def _names(paths: Sequence[Path]) -> str:
    return ", ".join(path.name for path in paths)
