import os
import threading
import time
import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from regrow.errors import DataError
from regrow.streams import decoded as module
from regrow.streams.decoded import cache_folder, decoded
from regrow.streams.pieces import GrowingFile, together


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A cache folder of its own, where small sets are kept too."""
    monkeypatch.setattr(module, "WORTH_KEEPING", 3)
    monkeypatch.setenv("REGROW_CACHE", str(tmp_path / "kept"))
    module._opened.cache_clear()
    return tmp_path / "kept" / "images"


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "source"
    path.write_text("data")
    return path


class Reader:
    def __init__(self, count=4):
        self.calls, self.count = 0, count

    def __call__(self):
        self.calls += 1
        images = np.arange(self.count * 12, dtype=np.uint8).reshape(-1, 2, 2, 3)
        return ((images[row : row + 1], np.array([row])) for row in range(self.count))


def expected(count=4):
    return together(Reader(count)())


def same(found, count=4):
    return all(np.array_equal(one, other) for one, other in zip(found, expected(count), strict=True))


def test_it_is_read_once(folder, source):
    read = Reader()
    for _ in range(3):
        assert same(decoded([source], [1], read))
        module._opened.cache_clear()  # as in another process
    assert read.calls == 1
    images, labels = decoded([source], [1], read)
    assert isinstance(images, np.memmap) and not images.flags.writeable and not labels.flags.writeable
    assert images.dtype == np.uint8 and labels.dtype == np.int64
    assert [path.name for path in folder.iterdir() if path.name.startswith(".new")] == []


def test_a_changed_file_or_other_options_are_read_anew(folder, source):
    read = Reader()
    decoded([source], [1], read)
    decoded([source], [2], read)
    source.write_text("other data")
    decoded([source], [1], read)
    assert read.calls == 3 and len(list(folder.iterdir())) == 3


def test_few_images_are_not_kept(folder, source):
    read = Reader(count=2)
    assert same(decoded([source], [], read), 2) and same(decoded([source], [], read), 2)
    assert read.calls == 2 and not folder.exists()


@pytest.mark.parametrize("name", ["images.npy", "labels.npy"])
@pytest.mark.parametrize("damage", ["cut", "flip", "remove"])
def test_what_is_damaged_is_made_anew(folder, source, name, damage):
    read = Reader()
    decoded([source], [], read)
    module._opened.cache_clear()
    (kept,) = folder.iterdir()
    data = bytearray((kept / name).read_bytes())
    (kept / name).unlink()
    if damage == "cut":
        (kept / name).write_bytes(data[:-5])
    elif damage == "flip":
        data[-7] ^= 1
        (kept / name).write_bytes(data)
    assert same(decoded([source], [], read)) and read.calls == 2
    module._opened.cache_clear()
    assert same(decoded([source], [], read)) and read.calls == 2


@pytest.mark.parametrize("text", ["", "{}", "[1]", "null"])
def test_checksums_that_cannot_be_read(folder, source, text):
    read = Reader()
    decoded([source], [], read)
    (kept,) = folder.iterdir()
    (kept / "checksums.json").write_text(text)
    assert same(decoded([source], [], read)) and read.calls == 2


def test_a_folder_that_cannot_be_written_costs_time_only(folder, source):
    folder.parent.write_text("a file, no folder")
    with pytest.warns(UserWarning, match="cannot be kept in .*every run decodes them again: make room.*REGROW_CACHE"):
        assert same(decoded([source], [], Reader()))


def test_a_disk_that_is_full_costs_time_only(folder, source, monkeypatch):
    def append(self, images):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(GrowingFile, "append", append)
    with pytest.warns(UserWarning, match="No space left on device.*make room there"):
        assert same(decoded([source], [], Reader()))
    assert list(folder.iterdir()) == []


def test_never_all_images_are_in_memory(folder, source):
    count, piece = 200, np.zeros((10, 64, 64, 3), dtype=np.uint8)

    def read():
        return ((piece.copy(), np.arange(10)) for _ in range(count))

    tracemalloc.start()
    try:
        images, _ = decoded([source], [], read)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(images) == 10 * count
    assert peak < 0.25 * count * piece.nbytes


def test_damage_that_shows_late_leaves_nothing(folder, source):
    def read():
        yield from Reader()()
        raise DataError("damaged")

    with pytest.raises(DataError, match="^damaged$"):
        decoded([source], [], read)
    assert list(folder.iterdir()) == []


def test_what_was_abandoned_is_removed(folder, source):
    for name, age in ((".new-old", 25 * 3600), (".new-recent", 60)):
        (folder / name).mkdir(parents=True)
        os.utime(folder / name, (time.time() - age,) * 2)
    decoded([source], [], Reader())
    assert not (folder / ".new-old").exists() and (folder / ".new-recent").exists()


def test_another_process_was_faster(folder, source):
    def read():
        decoded([source], [], Reader())
        return Reader()()

    assert same(decoded([source], [], read))
    assert len(list(folder.iterdir())) == 1


def test_several_at_once(folder, source):
    barrier = threading.Barrier(4)

    def read():
        barrier.wait(timeout=30)  # so that none finds what another has kept
        return Reader()()

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: decoded([source], [], read), range(4)))
    assert all(map(same, found))
    assert len(list(folder.iterdir())) == 1


def test_where_it_is_kept(monkeypatch, tmp_path):
    monkeypatch.setenv("REGROW_CACHE", "~/somewhere")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr("sys.platform", "linux")
    assert cache_folder() == tmp_path / "somewhere"
    monkeypatch.delenv("REGROW_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "x"))
    assert cache_folder() == tmp_path / "x" / "regrow"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == tmp_path / ".cache" / "regrow"
    monkeypatch.setattr("sys.platform", "darwin")
    assert cache_folder() == tmp_path / "Library" / "Caches" / "regrow"
