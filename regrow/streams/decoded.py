"""Images that took long to decode, kept in the user's cache folder, from where they are mapped into memory.

Each run is a process of its own, and decoding 50,000 small pictures takes longer than many a run.
"""

import contextlib
import functools
import hashlib
import itertools
import json
import os
import shutil
import sys
import tempfile
import time
import warnings
import zlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from regrow.errors import DataError
from regrow.streams.pieces import GrowingFile, Labels, Pieces, Pixels, together

# Fewer images than this are decoded faster than one looks.
WORTH_KEEPING = 5000
_LAYOUT = 1  # of what is kept; another number makes old folders unused
_UNFINISHED = ".new-"


def cache_folder() -> Path:
    """Where decoded images are kept: the folder in the environment variable REGROW_CACHE, or the platform's own."""
    chosen = os.environ.get("REGROW_CACHE")
    if chosen:
        return Path(chosen).expanduser()
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "regrow"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "regrow"


def decoded(files: Sequence[Path], options: Sequence[Any], read: Callable[[], Pieces]) -> tuple[Pixels, Labels]:
    """Return what `read()` yields, from the cache folder if it is there.

    It is found again by the files' places, sizes and times of change, and by `options`. What was cut off or changed in
    the cache folder is noticed by its checksum, and made anew. Several processes may do this at once: each writes
    beside, and puts its work in place in one move.

    Args:
        files: what is read; none if `options` say it all.
        options: what else decides on the result; anything that JSON takes.
        read: reads and decodes; once more if that cannot be kept.

    Returns:
        images and labels; those from the cache folder cannot be written to, and the images are mapped from there.
    """
    stats = [(str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    key = hashlib.sha256(json.dumps([_LAYOUT, stats, list(options)]).encode()).hexdigest()[:32]
    folder = cache_folder() / "images" / key
    kept = _kept(folder)
    if kept is not None:
        return kept
    pieces, start = read(), list[tuple[Pixels, Labels]]()
    for piece in pieces:
        start.append(piece)
        if sum(len(labels) for _, labels in start) >= WORTH_KEEPING:
            break
    else:
        return together(start)
    try:
        _keep(folder, itertools.chain(start, pieces))
    except DataError:
        raise
    except OSError as error:
        warnings.warn(
            f"The decoded images cannot be kept in {folder.parent} ({error}), so every run decodes them again: "
            "make room there, or set the environment variable REGROW_CACHE to another folder.",
            stacklevel=2,
        )
        return together(read())
    return _kept(folder) or together(read())


def _keep(folder: Path, pieces: Iterable[tuple[Pixels, Labels]]) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(folder.parent)
    beside = Path(tempfile.mkdtemp(prefix=_UNFINISHED, dir=folder.parent))
    try:
        labels = []
        with GrowingFile(beside / "images.npy") as file:
            for images, some in pieces:
                file.append(images)
                labels.append(some)
        np.save(beside / "labels.npy", np.concatenate(labels))
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


def _remove_abandoned(parent: Path) -> None:
    """Remove what processes left that were killed: nobody decodes for a day."""
    for left in parent.glob(f"{_UNFINISHED}*"):
        with contextlib.suppress(FileNotFoundError):  # another process has just put it in place
            if left.stat().st_mtime < time.time() - 24 * 3600:
                shutil.rmtree(left, ignore_errors=True)


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
    labels = np.load(folder / "labels.npy", allow_pickle=False)
    labels.setflags(write=False)  # as the images are: others are given the same array
    return images, labels


def _checksums(folder: Path) -> dict[str, int]:
    return {name: _checksum(folder / name) for name in ("images.npy", "labels.npy")}


def _checksum(file: Path) -> int:
    total = 0
    with file.open("rb") as opened:
        while block := opened.read(1 << 20):
            total = zlib.crc32(block, total)
    return total
