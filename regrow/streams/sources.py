"""Where image sets come from: the package, a local path, or the Hugging Face hub. One loader for all."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Literal

import numpy as np

from regrow.errors import DataError, nearest
from regrow.streams.array_files import class_files, read_batches, read_cifar_binary, read_classes
from regrow.streams.decoded import decoded
from regrow.streams.generated_images import generated_images
from regrow.streams.image_files import read_idx, read_parquet
from regrow.streams.pieces import Labels, Pieces, Pixels
from regrow.streams.reduction import reduced

Split = Literal["train", "test"]

_PACKAGED = "optical-digits"
_GENERATED = "generated-images"
_DEBIAN = Path("/usr/share/datasets")
# What the parts of a set are called in file names; where there is no test part, that for validation is it.
_TABLES = {"train": ("train*",), "test": ("test*", "valid*", "val*")}
_IDX_STEM = {"train": "train", "test": "t10k"}


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Labelled images, and where they come from.

    Attributes:
        images: uint8 [n, height, width], or [n, height, width, 3] in colour; float32 if the file had floats. They may
            be mapped from a file: not to be written to.
        labels: int64 [n], classes from 0.
        origin: what was read and from where, in words.
        white: the pixel value that stands for full ink or light (255; 16 in the packaged digits; 1 for floats, which
            are taken as they are).
    """

    images: Pixels
    labels: Labels
    origin: str
    white: int = 255

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.labels)


def load(name: str | os.PathLike[str] = _PACKAGED, split: Split = "train", size: int | None = None) -> ImageSet:
    """Find an image set, read it, and say in `origin` what was read.

    What takes long to decode is kept in the cache folder (see `decoded`), so that not every run decodes it.

    Args:
        name: one of
            `"optical-digits"`, packaged: 1,797 handwritten digits of 8×8 pixels (UCI, Alpaydin and Kaynak 1998);
            `"generated-images"`, made on the spot: 20 classes of 32×32 pixels in colour, for tests;
            a file or folder, or its name below the folder in the environment variable REGROW_DATA, or below
            /usr/share/datasets where Debian's packages put theirs: parquet in the Hugging Face layout (columns
            `image` or `img`, and `label`, `fine_label` or `labels`), IDX, the .npz files of the downsampled ImageNet,
            one .npy a class, or CIFAR-100's binary version;
            an address `hf://datasets/owner/name@revision/file.parquet`, which is fetched once: it is kept under its
            address, so name a revision if the file may change.
        split: which part of a folder: `train*.parquet` or `test*.parquet` (else `valid*.parquet`),
            `train-images-idx3-ubyte` or `t10k-images-idx3-ubyte`, `*train*.npz` or `*val*.npz`, `train.bin` or
            `test.bin`. A single file is read as it is.
        size: reduce the images to so many pixels on a side (`reduction.reduced`).

    Raises:
        DataError: there is no such set (with the three ways to get one), or it cannot be read or reduced.
    """
    name = os.fspath(name)
    if split not in _IDX_STEM:
        raise DataError(f"split={split!r} is not a part of an image set: {nearest(split, _IDX_STEM)}")
    if name == _PACKAGED:
        return _packaged(size)
    if name == _GENERATED:
        place = "regrow itself: they are generated, not real"
        return _described(*generated_images(split), place, size)
    if name.startswith("hf://"):
        return _described(*decoded([], ["hub", name, size], lambda: read_parquet([name], size)), name)
    return _local(_find(name), split, size)


def first_of(names: Sequence[str]) -> str:
    """Return the first of these sets that is there. An address on the hub counts as there.

    Raises:
        DataError: none is.
    """
    for name in names:
        if name in (_PACKAGED, _GENERATED) or name.startswith("hf://") or _place(name):
            return name
    raise DataError(
        f"None of these image sets is there: {', '.join(names)}. Looked below {_data_folder()} and {_DEBIAN}. "
        f"Set REGROW_DATA to a folder that has one, or use {_PACKAGED!r}."
    )


def why_not_first(names: Sequence[str], chosen: str) -> str:
    """Say what `chosen`, one of `names` in order of preference, stands in for, and why: a sentence.

    Nothing if it is the first, or if one before it is there, so that it must have been wanted.
    """
    if first_of(names) != chosen:
        return ""
    missing = names[: list(names).index(chosen)]
    if not missing:
        return ""
    verb = "is" if len(missing) == 1 else "are"
    places = f"neither below {_data_folder()} nor below {_DEBIAN}"
    return f"{chosen} stands in for {' and '.join(missing)}, which {verb} {places}."


def _packaged(size: int | None) -> ImageSet:
    source = resources.files("regrow.streams") / "data" / "optical_digits.npz"
    with source.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
        images, labels = arrays["images"], arrays["labels"].astype(np.int64)
    origin = "the package (UCI optical recognition of handwritten digits, test part, CC BY 4.0)"
    return _described(images, labels, origin, size, white=16)


def _described(
    images: Pixels, labels: Labels, place: str, size: int | None = None, white: int | None = None
) -> ImageSet:
    if labels.min() < 0:
        raise DataError(
            f"{place} has the label {labels.min()} (image {int(labels.argmin())}): classes count from 0. Sets whose "
            "labels are kept secret give out -1; take another part of it."
        )
    if size is not None:
        images = reduced(images, size)
    pixels = "×".join(map(str, images.shape[1:3]))
    colour = " in colour" if images.ndim == 4 else ""
    classes = len(np.unique(labels))
    origin = f"{len(images):,} images of {pixels} pixels{colour}, {classes} classes, from {place}"
    return ImageSet(images, labels, origin, white or (255 if images.dtype == np.uint8 else 1))


def _data_folder() -> str:
    folder = os.environ.get("REGROW_DATA")
    return f"REGROW_DATA={folder}" if folder else "REGROW_DATA, which is not set"


def _roots() -> list[Path]:
    folder = os.environ.get("REGROW_DATA")
    return [*([Path(folder).expanduser()] if folder else []), _DEBIAN]


def _place(name: str) -> Path | None:
    places = [Path(name).expanduser(), *(root / name for root in _roots())]
    return next((place for place in places if place.exists()), None)


def _find(name: str) -> Path:
    found = _place(name)
    if found is not None:
        return found
    folders = (entry for root in _roots() if root.is_dir() for entry in root.iterdir() if entry.is_dir())
    known = {_PACKAGED, _GENERATED, *(entry.name for entry in folders)}
    raise DataError(
        f"There is no image set {name!r}: it is not packaged, not a path, and not below {_data_folder()}; "
        f"{nearest(name, known)} Three ways to get one: use {_PACKAGED!r}, which comes with regrow; pass the path of "
        "a file or folder of images, or its name below the folder in the environment variable REGROW_DATA "
        "(on Debian, `apt install dataset-fashion-mnist` gives 'fashion-mnist'); "
        "or pass an address, 'hf://datasets/owner/name/file.parquet'."
    )


def _local(path: Path, split: Split, size: int | None) -> ImageSet:
    if path.is_dir():
        return _folder(path, split, size)
    readers = {".parquet": _parquet, ".npz": _batches, ".npy": _classes, ".bin": _cifar}
    return readers.get(path.suffix, _idx_pair)([path], size)


def _folder(path: Path, split: Split, size: int | None) -> ImageSet:
    for stem in _TABLES[split]:
        tables = _files(path, f"{stem}.parquet")
        if tables:
            return _parquet(tables, size)
    pairs = _files(path, f"{_IDX_STEM[split]}-images*idx3-ubyte*")
    if pairs:
        return _idx_pair(pairs[:1], size)
    binary = _files(path, f"{split}.bin")
    if binary:
        return _cifar(binary[:1], size)
    batches = _files(path, "*train*.npz" if split == "train" else "*val*.npz")
    if batches:
        return _batches(batches, size)
    classes = class_files(path)
    if classes and split == "train":
        return _classes(classes, size)
    raise DataError(_nothing_in(path, split, bool(classes)))


def _nothing_in(path: Path, split: Split, classes: bool) -> str:
    if classes:
        return f"{path} has one array a class and no {split} part: load it as train, and set some images apart."
    batches = "*train*.npz, one .npy a class" if split == "train" else "*val*.npz"
    pickles = [name for name in ("train", "test", "data_batch_1") if any(entry.is_file() for entry in path.rglob(name))]
    why = "since opening one can run anything: take the binary version, or parquet"
    found = f" The pickles in it ({', '.join(pickles)}) are not opened, {why}." if pickles else ""
    return (
        f"{path} has no {split} images: looked for {', '.join(f'{stem}.parquet' for stem in _TABLES[split])}, "
        f"{_IDX_STEM[split]}-images-idx3-ubyte(.gz), {split}.bin and {batches}.{found} "
        "Pass the path of the file itself if it is called something else."
    )


def _files(path: Path, pattern: str) -> list[Path]:
    return sorted([*path.glob(pattern), *path.glob(f"*/{pattern}")])


def _parquet(paths: list[Path], size: int | None) -> ImageSet:
    # Reduced while it is read: all images in their first size may not fit into memory.
    return _read(paths, size, "parquet", lambda: read_parquet(paths, size))


def _batches(paths: list[Path], size: int | None) -> ImageSet:
    return _read(paths, size, "batches", lambda: read_batches(paths))


def _classes(paths: list[Path], size: int | None) -> ImageSet:
    return _read(paths, size, "classes", lambda: read_classes(paths))


def _cifar(paths: list[Path], size: int | None) -> ImageSet:
    return _read(paths, size, "cifar", lambda: read_cifar_binary(paths[0]))


def _read(paths: list[Path], size: int | None, layout: str, read: Callable[[], Pieces]) -> ImageSet:
    def read_and_reduce() -> Pieces:
        return ((images if size is None else reduced(images, size), labels) for images, labels in read())

    images, labels = decoded(paths, [layout, size], read_and_reduce)
    place = ", ".join(map(str, paths)) if len(paths) < 5 else f"{len(paths)} files in {paths[0].parent}"
    return _described(images, labels, place)


def _idx_pair(paths: list[Path], size: int | None) -> ImageSet:
    path = paths[0]
    labels = path.with_name(path.name.replace("images", "labels").replace("idx3", "idx1"))
    if "images" not in path.name or not labels.is_file():
        raise DataError(
            f"{path} is neither a .parquet, .npz, .npy or .bin file nor an IDX file of images with its labels beside "
            "it (train-images-idx3-ubyte and train-labels-idx1-ubyte, .gz or not): choose one of these."
        )
    images, classes = decoded([path, labels], ["idx"], lambda: _read_pair(path, labels))
    return _described(images, classes, str(path), size)


def _read_pair(path: Path, labels: Path) -> Pieces:
    images, classes = read_idx(path), read_idx(labels).astype(np.int64)
    if images.ndim < 3 or classes.ndim != 1 or len(images) == 0:
        raise DataError(
            f"{path} holds {list(images.shape)} and {labels.name} {list(classes.shape)}: "
            "they must be images [n, height, width], at least one, and labels [n]. Download both again."
        )
    _check_counts(images, classes, str(path))
    yield images, classes


def _check_counts(images: Pixels, labels: Labels, place: str) -> None:
    if len(images) != len(labels):
        raise DataError(
            f"{place} has {len(images)} images and {len(labels)} labels: they do not belong together. Take both from "
            "the same set."
        )
