"""Images that took long to decode, kept in the user's cache folder, from where they are mapped into memory.

Each run is a process of its own, and decoding 50,000 small pictures takes longer than many a run.
"""

import functools
import hashlib
import json
import os
import shutil
import sys
import tempfile
import warnings
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from regrow.streams.image_files import Labels

Pixels = npt.NDArray[Any]

# Fewer images than this are decoded faster than one looks.
WORTH_KEEPING = 5000
_LAYOUT = 1  # of what is kept; another number makes old folders unused


def cache_folder() -> Path:
    """Where decoded images are kept: the folder in the environment variable REGROW_CACHE, or the platform's own."""
    chosen = os.environ.get("REGROW_CACHE")
    if chosen:
        return Path(chosen).expanduser()
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "regrow"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "regrow"


def decoded(
    files: Sequence[Path], options: Sequence[Any], read: Callable[[], tuple[Pixels, Labels]]
) -> tuple[Pixels, Labels]:
    """Return what `read()` returns, from the cache folder if it is there.

    It is found again by the files' places, sizes and times of change, and by `options`. What was cut off or changed in
    the cache folder is noticed by its checksum, and made anew. Several processes may do this at once: each writes
    beside, and puts its work in place in one move.

    Args:
        files: what is read; none if `options` say it all.
        options: what else decides on the result; anything that JSON takes.
        read: reads and decodes.

    Returns:
        images and labels; the images may be mapped from a file, and cannot be written to.
    """
    stats = [(str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    key = hashlib.sha256(json.dumps([_LAYOUT, stats, list(options)]).encode()).hexdigest()[:32]
    folder = cache_folder() / "images" / key
    kept = _kept(folder)
    if kept is not None:
        return kept
    images, labels = read()
    if len(images) < WORTH_KEEPING:
        return images, labels
    try:
        _keep(folder, images, labels)
    except OSError as error:
        warnings.warn(
            f"The decoded images cannot be kept in {folder.parent} ({error}), so every run decodes them again: "
            "make room there, or set the environment variable REGROW_CACHE to another folder.",
            stacklevel=2,
        )
        return images, labels
    return _kept(folder) or (images, labels)


def _keep(folder: Path, images: Pixels, labels: Labels) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(prefix=".new-", dir=folder.parent))
    try:
        np.save(beside / "images.npy", images)
        np.save(beside / "labels.npy", labels)
        (beside / "checksums.json").write_text(json.dumps(_checksums(beside)))
        if folder.exists() and _kept(folder) is None:
            shutil.rmtree(folder, ignore_errors=True)
        try:
            beside.rename(folder)
        except OSError:
            if _kept(folder) is None:  # else another process was faster
                raise
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _kept(folder: Path) -> tuple[Pixels, Labels] | None:
    try:
        file = folder / "checksums.json"
        return _opened(folder, file.stat().st_mtime_ns, file.read_text())
    except (OSError, ValueError):
        return None


@functools.lru_cache(maxsize=4)
def _opened(folder: Path, _changed: int, checksums: str) -> tuple[Pixels, Labels]:
    if _checksums(folder) != json.loads(checksums):
        raise ValueError("damaged")
    images = np.load(folder / "images.npy", mmap_mode="r", allow_pickle=False)
    return images, np.load(folder / "labels.npy", allow_pickle=False)


def _checksums(folder: Path) -> dict[str, int]:
    return {name: _checksum(folder / name) for name in ("images.npy", "labels.npy")}


def _checksum(file: Path) -> int:
    total = 0
    with file.open("rb") as opened:
        while block := opened.read(1 << 20):
            total = zlib.crc32(block, total)
    return total
