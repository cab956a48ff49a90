"""Images from files: parquet in the Hugging Face layout, and IDX as MNIST and its relatives are given out."""

import gzip
import io
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from regrow.errors import DataError
from regrow.streams.reduction import reduced

if TYPE_CHECKING:
    import polars

Images = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.int64]


def read_parquet(paths: Iterable[str | Path], size: int | None = None) -> tuple[Images, Labels]:
    """Return the images and labels of Hugging Face parquet files, one after the other.

    They need a column of encoded images, struct{bytes, path}, and an integer column `label`, or `fine_label` as
    CIFAR-100 has it. If every image is grey the result is [n, height, width], else [n, height, width, 3].

    Args:
        paths: local files, or addresses that polars opens (`hf://datasets/owner/name/file.parquet`).
        size: reduce the images to so many pixels on a side (`reduction.reduced`).

    Raises:
        DataError: a file cannot be opened, a column is missing, or the images cannot be decoded, differ in size or
            cannot be reduced to `size`.
    """
    try:
        import polars
    except ModuleNotFoundError:
        raise DataError("Reading parquet needs polars: pip install 'regrow[studies]' (or polars).") from None
    pictures: list[Images] = []
    sizes: set[tuple[int, int]] = set()
    labels: list[Labels] = []
    for path in paths:
        try:
            frame = polars.read_parquet(path)
        except (OSError, polars.exceptions.PolarsError) as error:
            raise DataError(f"Cannot read {path}: {error}. Is it a parquet file, and can it be reached?") from error
        image, label = _columns(frame, path)
        labels.append(frame[label].to_numpy().astype(np.int64))
        encoded = frame[image].struct.field("bytes")
        for row, data in enumerate(encoded):
            picture = _decode(data, f"row {row} of {path}")
            sizes.add((picture.shape[1], picture.shape[0]))
            # One at a time: all of them unreduced may not fit into memory.
            pictures.append(picture if size is None or len(sizes) > 1 else reduced(picture, size))
    _check_alike(sizes)
    return _stack(pictures), np.concatenate(labels)


def _columns(frame: "polars.DataFrame", path: str | Path) -> tuple[str, str]:
    import polars

    images = [
        name
        for name, kind in frame.schema.items()
        if isinstance(kind, polars.Struct) and any(field.name == "bytes" for field in kind.fields)
    ]
    label = "label" if "label" in frame.columns else "fine_label"
    if not images or not frame.schema.get(label, polars.Null()).is_integer() or frame[label].has_nulls():
        raise DataError(
            f"{path} has the columns {dict(frame.schema)}: it needs one of encoded images, struct{{bytes, path}}, and "
            "one of integers without gaps called 'label' (or 'fine_label')."
        )
    if frame.is_empty():
        raise DataError(f"{path} has no rows: choose a file with images.")
    return images[0], label


def _decode(data: bytes | None, where: str) -> Images:
    try:
        from PIL import Image
    except ModuleNotFoundError:
        raise DataError("Decoding images needs Pillow: pip install pillow.") from None
    try:
        picture = Image.open(io.BytesIO(data or b""))
        picture.load()
    except (OSError, SyntaxError, ValueError) as error:
        raise DataError(f"The image in {where} cannot be decoded: {error}.") from error
    if picture.mode not in ("1", "L", "LA", "P", "RGB", "RGBA"):
        raise DataError(f"The image in {where} has mode {picture.mode!r}: only 8-bit grey and RGB images are read.")
    return np.asarray(picture.convert("L" if picture.mode in ("1", "L") else "RGB"))


def _check_alike(sizes: set[tuple[int, int]]) -> None:
    if len(sizes) > 1:
        shown = ", ".join(f"{width}×{height}" for width, height in sorted(sizes)[:4])
        raise DataError(f"The images have {len(sizes)} different sizes ({shown}): bring them to one size first.")


def _stack(pictures: list[Images]) -> Images:
    if all(picture.ndim == 2 for picture in pictures):
        return np.stack(pictures)
    result = np.empty((len(pictures), *pictures[0].shape[:2], 3), dtype=np.uint8)
    for row, picture in zip(result, pictures, strict=True):
        row[:] = picture if picture.ndim == 3 else picture[..., None]
    return result


def read_idx(path: Path) -> npt.NDArray[np.uint8]:
    """Return the array of one IDX file of unsigned bytes, gzipped or not.

    The format: two zero bytes, 8 (unsigned byte), the number of dimensions, each size as a big-endian 32-bit
    integer, then the values, last dimension fastest.

    Raises:
        DataError: the file cannot be read, is no IDX file of unsigned bytes, or has too few or too many values.
    """
    try:
        data = path.read_bytes()
        if data[:2] == b"\x1f\x8b":
            data = gzip.decompress(data)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"Cannot read {path}: {error}. Copy or download it again.") from error
    if len(data) < 4 or data[:3] != b"\x00\x00\x08":
        raise DataError(f"{path} is not an IDX file of unsigned bytes: it begins with {data[:4].hex(' ')}.")
    start = 4 + 4 * data[3]
    sizes = np.frombuffer(data[4:start], dtype=">u4").astype(np.int64) if len(data) >= start else np.empty(0, np.int64)
    if len(sizes) != data[3] or len(data) - start != np.prod(sizes):
        raise DataError(
            f"{path} announces {' × '.join(map(str, sizes))} values and has {max(len(data) - start, 0)}: "
            "it is cut off or damaged. Copy or download it again."
        )
    return np.frombuffer(data, dtype=np.uint8, offset=start).reshape(sizes).copy()
