"""Images from files: parquet in the Hugging Face layout, and IDX as MNIST and its relatives are given out."""

import gzip
import io
import json
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from regrow.errors import DataError
from regrow.streams.pieces import Labels, Pieces, slices
from regrow.streams.reduction import reduced

if TYPE_CHECKING:
    import polars

Images = npt.NDArray[np.uint8]


def read_parquet(paths: Iterable[str | Path], size: int | None = None) -> Pieces:
    """Yield the images and labels of Hugging Face parquet files, one after the other.

    They need a column of encoded images, struct{bytes, path}, and an integer column `label`, or `fine_label` as
    CIFAR-100 has it, or `labels`. One file at a time is in memory as it is, and a thousand of its images decoded.

    Args:
        paths: local files, or addresses that polars opens (`hf://datasets/owner/name/file.parquet`).
        size: reduce the images to so many pixels on a side (`reduction.reduced`).

    Yields:
        uint8 [n, height, width, 3], or [n, height, width] where all n are grey; and labels.

    Raises:
        DataError: a file cannot be opened, a column is missing, a label is not among the classes that the file names,
            or the images cannot be decoded, differ in size or cannot be reduced to `size`.
    """
    try:
        import polars
    except ModuleNotFoundError:
        raise DataError("Reading parquet needs polars: pip install 'regrow[studies]' (or polars).") from None
    first = None
    for path in paths:
        try:
            frame = polars.read_parquet(path)
            names = _class_names(path)
        except (OSError, polars.exceptions.PolarsError) as error:
            raise DataError(f"Cannot read {path}: {error}. Is it a parquet file, and can it be reached?") from error
        image, label = _columns(frame, path)
        labels = frame[label].to_numpy().astype(np.int64)
        _check_named(labels, names.get(label), path)
        encoded = frame[image].struct.field("bytes")
        for some in slices(len(labels)):
            pictures = []
            for row, data in enumerate(encoded[some], some.start):
                where = f"row {row} of {path}"
                picture = _decode(data, where)
                first = first or (picture.shape[:2], where)
                _check_size(picture, where, *first)
                pictures.append(picture if size is None else reduced(picture, size))
            yield _stack(pictures), labels[some]


def _class_names(path: str | Path) -> dict[str, int]:
    """How many classes the file names, for each column of which it does; an address is not asked a second time."""
    import polars

    if str(path).startswith("hf://"):
        return {}
    try:
        features = json.loads(polars.read_parquet_metadata(path).get("huggingface", "{}"))["info"]["features"]
        return {name: len(feature["names"]) for name, feature in features.items() if "names" in feature}
    except (ValueError, LookupError, TypeError, AttributeError):
        return {}  # another layout of what is not needed


def _check_named(labels: Labels, names: int | None, path: str | Path) -> None:
    if names is not None and labels.max() >= names:
        row = int(labels.argmax())
        raise DataError(
            f"{path} has the label {labels[row]} in row {row} and names {names} classes: labels must be below {names}. "
            "It is damaged or put together wrongly: download or make it again."
        )


def _columns(frame: "polars.DataFrame", path: str | Path) -> tuple[str, str]:
    import polars

    images = [
        name
        for name, kind in frame.schema.items()
        if isinstance(kind, polars.Struct) and any(field.name == "bytes" for field in kind.fields)
    ]
    label = next((name for name in ("label", "fine_label", "labels") if name in frame.columns), "label")
    if not images or not frame.schema.get(label, polars.Null()).is_integer() or frame[label].has_nulls():
        raise DataError(
            f"{path} has the columns {dict(frame.schema)}: it needs one of encoded images, struct{{bytes, path}}, and "
            "one of integers without gaps called 'label' (or 'fine_label', or 'labels'). Rename or fill them, or "
            "choose another file."
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
        raise DataError(
            f"The image in {where} cannot be decoded: {error}. Download or make the file again, or leave it out."
        ) from error
    if picture.mode not in ("1", "L", "LA", "P", "RGB", "RGBA"):
        raise DataError(
            f"The image in {where} has mode {picture.mode!r}: only 8-bit grey and RGB images are read. Convert it."
        )
    return np.asarray(picture.convert("L" if picture.mode in ("1", "L") else "RGB"))


def _check_size(picture: Images, where: str, first: tuple[int, ...], first_where: str) -> None:
    if picture.shape[:2] != first:
        sizes = [f"{width}×{height}" for height, width in (first, picture.shape[:2])]
        raise DataError(
            f"The images have different sizes ({sizes[0]} in {first_where}, {sizes[1]} in {where}): bring them to one "
            "size first."
        )


def _stack(pictures: list[Images]) -> Images:
    if all(picture.ndim == 2 for picture in pictures):
        return np.stack(pictures)
    return np.stack(
        [picture if picture.ndim == 3 else np.repeat(picture[..., None], 3, axis=2) for picture in pictures]
    )


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
        raise DataError(
            f"{path} is not an IDX file of unsigned bytes: it begins with {data[:4].hex(' ')}. "
            "Choose another, or download it again."
        )
    start = 4 + 4 * data[3]
    sizes = np.frombuffer(data[4:start], dtype=">u4").astype(np.int64) if len(data) >= start else np.empty(0, np.int64)
    if len(sizes) != data[3] or len(data) - start != np.prod(sizes):
        raise DataError(
            f"{path} announces {' × '.join(map(str, sizes))} values and has {max(len(data) - start, 0)}: "
            "it is cut off or damaged. Copy or download it again."
        )
    return np.frombuffer(data, dtype=np.uint8, offset=start).reshape(sizes).copy()
