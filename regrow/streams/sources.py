"""Where image sets come from: the package, a local path, or the Hugging Face hub. One loader for all."""

import os
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Literal

import numpy as np

from regrow.errors import DataError, nearest
from regrow.streams.image_files import Images, Labels, read_idx, read_parquet

Split = Literal["train", "test"]

_PACKAGED = "optical-digits"
_DEBIAN = Path("/usr/share/datasets")
_IDX_STEM = {"train": "train", "test": "t10k"}


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Labelled images, and where they come from.

    Attributes:
        images: uint8 [n, height, width], or [n, height, width, 3] in colour.
        labels: int64 [n], classes from 0.
        origin: what was read and from where, in words.
        white: the pixel value that stands for full ink or light (255; 16 in the packaged digits).
    """

    images: Images
    labels: Labels
    origin: str
    white: int = 255

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.labels)


def load(name: str | os.PathLike[str] = _PACKAGED, split: Split = "train") -> ImageSet:
    """Find an image set, read it, and say in `origin` what was read.

    Args:
        name: one of
            `"optical-digits"`, packaged: 1,797 handwritten digits of 8×8 pixels (UCI, Alpaydin and Kaynak 1998);
            a file or folder, or its name below the folder in the environment variable REGROW_DATA, or below
            /usr/share/datasets where Debian's packages put theirs: parquet in the Hugging Face layout, or IDX;
            an address `hf://datasets/owner/name/file.parquet`.
        split: which part of a folder: `train*.parquet` or `test*.parquet`, `train-images-idx3-ubyte` or
            `t10k-images-idx3-ubyte`. A single file is read as it is.

    Raises:
        DataError: there is no such set (with the three ways to get one), or it cannot be read.
    """
    name = os.fspath(name)
    if name == _PACKAGED:
        return _packaged()
    if name.startswith("hf://"):
        return _described(*read_parquet([name]), name)
    return _local(_find(name), split)


def _packaged() -> ImageSet:
    source = resources.files("regrow.streams") / "data" / "optical_digits.npz"
    with source.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
        images, labels = arrays["images"], arrays["labels"].astype(np.int64)
    origin = "the package (UCI optical recognition of handwritten digits, test part, CC BY 4.0)"
    return _described(images, labels, origin, white=16)


def _described(images: Images, labels: Labels, place: str, white: int = 255) -> ImageSet:
    if len(images) != len(labels):
        raise DataError(f"{place} has {len(images)} images and {len(labels)} labels: they do not belong together.")
    size = "×".join(map(str, images.shape[1:3]))
    colour = " in colour" if images.ndim == 4 else ""
    classes = len(np.unique(labels))
    origin = f"{len(images):,} images of {size} pixels{colour}, {classes} classes, from {place}"
    return ImageSet(images, labels, origin, white)


def _find(name: str) -> Path:
    folder = os.environ.get("REGROW_DATA")
    below = [Path(folder).expanduser()] if folder else []
    roots = [*below, _DEBIAN]
    for place in [Path(name).expanduser(), *(root / name for root in roots)]:
        if place.exists():
            return place
    known = {_PACKAGED, *(entry.name for root in roots if root.is_dir() for entry in root.iterdir() if entry.is_dir())}
    looked = f"REGROW_DATA={folder}" if folder else "REGROW_DATA, which is not set"
    raise DataError(
        f"There is no image set {name!r}: it is not packaged, not a path, and not below {looked}; "
        f"{nearest(name, known)} Three ways to get one: use {_PACKAGED!r}, which comes with regrow; pass the path of "
        "parquet or IDX files, or their name below the folder in the environment variable REGROW_DATA "
        "(on Debian, `apt install dataset-fashion-mnist` gives 'fashion-mnist'); "
        "or pass an address, 'hf://datasets/owner/name/file.parquet'."
    )


def _local(path: Path, split: Split) -> ImageSet:
    if path.is_dir():
        return _folder(path, split)
    if path.suffix == ".parquet":
        return _described(*read_parquet([path]), str(path))
    return _idx_pair(path)


def _folder(path: Path, split: Split) -> ImageSet:
    if split not in _IDX_STEM:
        raise DataError(f"split={split!r} is not a part of an image set: {nearest(split, _IDX_STEM)}")
    tables = sorted([*path.glob(f"{split}*.parquet"), *path.glob(f"*/{split}*.parquet")])
    if tables:
        return _described(*read_parquet(tables), ", ".join(map(str, tables)))
    pairs = sorted(path.glob(f"{_IDX_STEM[split]}-images*idx3-ubyte*"))
    if pairs:
        return _idx_pair(pairs[0])
    raise DataError(
        f"{path} has no {split} images: looked for {split}*.parquet and {_IDX_STEM[split]}-images-idx3-ubyte(.gz). "
        "Pass the path of the file itself if it is called something else."
    )


def _idx_pair(path: Path) -> ImageSet:
    labels = path.with_name(path.name.replace("images", "labels").replace("idx3", "idx1"))
    if "images" not in path.name or not labels.is_file():
        raise DataError(
            f"{path} is neither a .parquet file nor an IDX file of images with its labels beside it "
            "(train-images-idx3-ubyte and train-labels-idx1-ubyte, .gz or not): choose one of these."
        )
    images, classes = read_idx(path), read_idx(labels)
    if images.ndim < 3 or classes.ndim != 1 or len(images) == 0:
        raise DataError(
            f"{path} holds {list(images.shape)} and {labels.name} {list(classes.shape)}: "
            "they must be images [n, height, width], at least one, and labels [n]."
        )
    return _described(images, classes.astype(np.int64), str(path))
