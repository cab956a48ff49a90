"""The folder of a run, and how it survives being killed at any moment.

    runs/<study>/<key of the spec>/
        spec.json               what is run
        curve.jsonl             one row a task while running; timing.jsonl likewise, with what depends on the machine
        checkpoint.safetensors  the learner after some task; the rows after that task are dropped at resume
        curve.parquet           the rows, when done
        DONE                    written last, holds the digest of the curve and the versions
        error.txt               the traceback of an attempt that failed
        lock                    held (flock) by the process that runs it

A resumed run leaves the same bytes as an undisturbed one, in all but `timing.jsonl`.
"""

import fcntl
import hashlib
import io
import json
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Literal

import regrow
from regrow.errors import StoreError
from regrow.experiments.spec import RunSpec

Row = dict[str, Any]
"""What was found in a task, by name: a number or None; where seeds are learned side by side, a list with one for each.
"""
State = Literal["waiting", "running", "stopped", "failed", "done"]


def over_seeds(value: Any) -> Any:
    """A value of a row; the mean, where seeds are learned side by side."""
    return value if not isinstance(value, list) else None if None in value else sum(value) / len(value)


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file so that, whatever happens, it is there as a whole or as it was before.

    Raises:
        StoreError: it cannot be written, for instance because the disk is full; nothing half-written is left.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        try:
            with open(temporary, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        _sync(path.parent)
    except OSError as error:
        raise _unwritable(path, error) from error


class RunFolder:
    """One run's folder. Reading needs no lock; everything that writes a result needs `locked`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._curve = path / "curve.jsonl"
        self._timing = path / "timing.jsonl"
        self._checkpoint = path / "checkpoint.safetensors"
        self._error = path / "error.txt"
        self.parquet = path / "curve.parquet"
        self._done = path / "DONE"

    @classmethod
    def create(cls, out: Path, spec: RunSpec) -> "RunFolder":
        """Make the folder of a run below `out`, or find it.

        Raises:
            StoreError: it cannot be written, or what is there belongs to another spec.
        """
        folder = cls(out / spec.study / spec.key)
        make_folder(folder.path)
        if _exists(folder.path / "spec.json"):
            folder.spec()
        else:
            write_atomically(folder.path / "spec.json", spec.to_json())
        return folder

    def spec(self) -> RunSpec:
        """Read the spec and check that the folder is its own.

        Raises:
            StoreError: it is missing, damaged or does not match the folder's name.
        """
        place = self.path / "spec.json"
        spec = RunSpec.from_json(_read(place), str(place))
        if spec.key != self.path.name:
            raise StoreError(
                f"{place} does not match its folder: its key is {spec.key}, so it was changed. Delete {self.path} to "
                "run it again."
            )
        return spec

    def is_done(self) -> bool:
        """Whether the run came to its end.

        Raises:
            StoreError: it is marked as done, but its curve is gone.
        """
        done = _exists(self._done)
        if done and not _exists(self.parquet):
            raise _damaged(self._done, f"it says that the run is done, but {self.parquet.name} is missing")
        return done

    def state(self) -> State:
        """How the run stands. Writes nothing; a folder that is not there yet is "waiting".

        Raises:
            StoreError: the folder cannot be read.
        """
        if _exists(self._done):
            return "done"
        try:
            lock = open(self.path / "lock", "rb")
        except FileNotFoundError:
            pass
        except OSError as error:
            raise _unreadable(self.path / "lock", error) from error
        else:
            with lock:
                if not _flock(lock, fcntl.LOCK_SH):
                    return "running"
        if _exists(self._error):
            return "failed"
        return "stopped" if _exists(self._curve) else "waiting"

    @contextmanager
    def locked(self) -> Iterator[bool]:
        """Hold the run for oneself: True, or False if another process holds it. Its death releases it.

        Raises:
            StoreError: the folder cannot be written.
        """
        place = self.path / "lock"
        try:
            lock = open(place, "ab")
        except OSError as error:
            raise _unwritable(place, error) from error
        with lock:  # closing the file releases it
            free = _flock(lock, fcntl.LOCK_EX)
            if free:
                for place in (self._error, *self.path.glob(".*.tmp")):
                    try:
                        place.unlink(missing_ok=True)
                    except OSError as error:
                        raise _unwritable(place, error) from error
            yield free

    def resume(self) -> tuple[int, Any]:
        """Bring the rows back to the last checkpoint.

        Returns:
            the task to go on with, and the state saved before it; (0, None) at the start.

        Raises:
            StoreError: the checkpoint is damaged, or the rows before it are.
        """
        from regrow.experiments.checkpoint import decode

        saved: Row = {"task": 0, "rows": None, "state": None}
        if _exists(self._checkpoint):
            saved = decode(self._checkpoint)
        _keep_rows(self._curve, saved["task"], saved["rows"])
        _keep_rows(self._timing, saved["task"])
        return saved["task"], saved["state"]

    def append(self, row: Row, timing: Row) -> None:
        """Add the row of one task, and what its machine needed for it."""
        for place, values in ((self._curve, row), (self._timing, timing)):
            try:
                with open(place, "ab") as file:
                    file.write(json.dumps(values, separators=(",", ":")).encode() + b"\n")
            except OSError as error:
                raise _unwritable(place, error) from error

    def save(self, task: int, state: Any) -> None:
        """Write the checkpoint from which task number `task` can begin."""
        from regrow.experiments.checkpoint import encode

        for place in (self._curve, self._timing):  # a checkpoint must not outlive the rows before it
            if place.exists():
                _sync(place)
        rows = _digest(b"".join(_whole_lines(self._curve)))
        write_atomically(self._checkpoint, encode({"task": task, "rows": rows, "state": state}))

    def rows(self) -> list[Row]:
        """The whole rows of a run that is not done, as they are now.

        Raises:
            StoreError: one is damaged.
        """
        return _rows(self._curve)

    def length(self) -> int:
        """How many whole rows there are, be they sound or not: those after the checkpoint will be dropped anyway."""
        return len(_whole_lines(self._curve))

    def timings(self) -> list[Row]:
        """For each task, what depends on the machine.

        Raises:
            StoreError: a row is damaged.
        """
        return _rows(self._timing)

    def finish(self) -> None:
        """Turn the rows into `curve.parquet` and mark the run as done."""
        import polars
        import torch

        buffer = io.BytesIO()
        polars.DataFrame(self.rows()).write_parquet(buffer)
        write_atomically(self.parquet, buffer.getvalue())
        versions = {"regrow": regrow.__version__, "torch": torch.__version__, "python": platform.python_version()}
        done = {"curve": _digest(buffer.getvalue())} | versions
        write_atomically(self._done, json.dumps(done).encode() + b"\n")
        self._curve.unlink(missing_ok=True)

    def finished(self) -> bytes:
        """What is in the `curve.parquet` of a run that is done.

        Raises:
            StoreError: it is not as it was written.
        """
        data = _read(self.parquet)
        try:
            expected = json.loads(_read(self._done))["curve"]
        except (ValueError, KeyError, TypeError) as error:
            raise _damaged(self._done, f"it has no digest of {self.parquet.name}") from error
        if _digest(data) != expected:
            raise _damaged(self.parquet, f"it is not what was written when the run was done ({self._done.name})")
        return data

    def fail(self, traceback: str) -> None:
        """Keep the traceback of an attempt that failed."""
        write_atomically(self._error, traceback.encode())


def find_folders(place: Path) -> list[RunFolder]:
    """The run folders in a folder, or one below it (`runs`, `runs/permuted-digits` or a run's own), with whole paths.

    Raises:
        StoreError: there is none.
    """
    found = sorted({file.parent for depth in ("", "*/", "*/*/") for file in place.glob(f"{depth}spec.json")})
    if not found:
        raise StoreError(f"There are no runs in {place}: give the folder that `regrow run` wrote, such as runs.")
    # Whole, for a run is known by the names of its folders, and "." has none.
    return [RunFolder(Path(os.path.abspath(path))) for path in found]


def make_folder(path: Path) -> None:
    """Make a folder and those above it, unless it is there.

    Raises:
        StoreError: it cannot be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unwritable(path, error) from error


def _keep_rows(path: Path, count: int, digest: str | None = None) -> None:
    """Drop what follows the first `count` rows, the torn line of a killed run included."""
    lines = _whole_lines(path)
    _check_rows(path, lines[:count])
    if len(lines) < count:
        raise _damaged(path, f"it has {len(lines)} rows and its checkpoint needs {count}")
    if digest is not None and _digest(b"".join(lines[:count])) != digest:
        raise _damaged(path, "its rows are not those that were there when its checkpoint was saved")
    try:
        if path.exists():
            os.truncate(path, sum(map(len, lines[:count])))
    except OSError as error:
        raise _unwritable(path, error) from error


def _rows(path: Path) -> list[Row]:
    return _check_rows(path, _whole_lines(path))


def _check_rows(path: Path, lines: list[bytes]) -> list[Row]:
    rows: list[Row] = []
    for number, line in enumerate(lines):
        try:
            row = json.loads(line)
            right = row["task"] == number
        except (ValueError, KeyError, TypeError):
            right = False
        if not right:
            raise _damaged(path, f"line {number + 1} is not the row of task {number}")
        rows.append(row)
    return rows


def _whole_lines(path: Path) -> list[bytes]:
    try:
        lines = path.read_bytes().splitlines(keepends=True)
    except FileNotFoundError:  # not begun, or ended just now
        return []
    except OSError as error:
        raise _unreadable(path, error) from error
    return lines[:-1] if lines and not lines[-1].endswith(b"\n") else lines


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise _unreadable(path, error) from error


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError as error:  # above all, a folder that may not be searched
        raise _unreadable(path, error) from error


def _flock(file: IO[bytes], kind: int) -> bool:
    """Lock a file unless another process has; says whether it is locked."""
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _damaged(path: Path, what: str) -> StoreError:
    return StoreError(f"{path} is damaged: {what}. Delete the folder {path.parent} to run it again.")


def _unreadable(path: Path, error: OSError) -> StoreError:
    what = "make it readable, or delete" if isinstance(error, PermissionError) else "delete"
    return StoreError(
        f"{path} cannot be read ({error.strerror or error}): {what} the folder {path.parent} to run it again."
    )


def _unwritable(path: Path, error: OSError) -> StoreError:
    return StoreError(
        f"{path} could not be written ({error.strerror or error}): nothing half-written is ever read. Make room or "
        "choose another folder, then give the same command to go on."
    )


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
