"""A long-lived process that does one run at a time for the supervisor in `local.py`.

`python -m regrow.experiments.worker` reads jobs from its standard input and writes messages to its standard output,
one JSON object a line. A process of its own, rather than multiprocessing, because then nothing is inherited from
the supervisor, and its death is seen as the end of the input.
"""

import importlib
import json
import os
import platform
import queue
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

from regrow.errors import StoreError
from regrow.experiments.store import Row, RunFolder

Message = dict[str, Any]


def main() -> None:
    """Serve until the supervisor is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the supervisor's business: it ends its workers
    send = _take_over_output()
    jobs: queue.SimpleQueue[Message] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(jobs,), daemon=True).start()
    while True:
        job = jobs.get()
        send(work(job, lambda row: send({"kind": "progress", "row": row})))


def _take_over_output() -> Callable[[Message], None]:
    """Keep the pipe for messages; whatever a library prints goes to the standard error."""
    pipe = os.dup(1)
    os.dup2(2, 1)

    def send(message: Message) -> None:
        data = json.dumps(message).encode() + b"\n"
        try:
            while data:
                data = data[os.write(pipe, data) :]
        except BrokenPipeError:
            _leave()

    return send


def _listen(jobs: "queue.SimpleQueue[Message]") -> None:
    for line in sys.stdin:
        jobs.put(json.loads(line))
    _leave()


def _leave() -> NoReturn:
    # The supervisor ended, or was killed. A run may be cut at any moment, so there is nothing to tidy up.
    os._exit(0)


def work(job: Message, report_progress: Callable[[Row], None]) -> Message:
    """Do a run, if no other process is at it, as far as its time goes.

    Args:
        job: "folder" of the run, "module" that registers its study, and "until" when, in seconds of the system's clock,
            or None.
        report_progress: receives the row of each task that was done.

    Returns:
        "kind", what came of it: "done", "stopped" as the time was over, "busy" as another process is at it, or
        "failed", with the "error".
    """
    folder = RunFolder(Path(job["folder"]))
    try:
        if not folder.path.is_dir():
            raise StoreError(
                f"{folder.path} is not there on {platform.node()}: all machines must see the folder of all runs under "
                "the same name. Give a folder of a shared file system by --out."
            )
        with folder.locked() as free:
            if not free:
                return {"kind": "busy"}
            try:
                return {"kind": "done" if _run(job, folder, report_progress) else "stopped"}
            except Exception:
                with suppress(StoreError):  # on a full disk, the error that came first is the one to tell
                    folder.fail(traceback.format_exc())
                raise
    except Exception as error:
        return {"kind": "failed", "error": f"{type(error).__name__}: {error}"}


def _run(job: Message, folder: RunFolder, report_progress: Callable[[Row], None]) -> bool:
    importlib.import_module(job["module"])  # registers the study
    from regrow.experiments.run import run

    until = job["until"]
    return run(folder, report_progress, lambda: until is not None and time.time() >= until)


if __name__ == "__main__":
    main()
