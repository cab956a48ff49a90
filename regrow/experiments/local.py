"""Runs on this machine: a supervisor with one single-threaded process per core."""

import json
import os
import selectors
import subprocess
import sys
from collections.abc import Sequence
from typing import IO, Any

from regrow.experiments.execute import ONE_THREAD, Display, Ended, Job
from regrow.experiments.ledger import Ledger

_TICK_SECONDS = 0.2


def execute_locally(jobs: Sequence[Job], workers: int, display: Display, until: float | None = None) -> Ended:
    """See `execute`."""
    pool = _Pool(Ledger(jobs, display, until))
    try:
        return pool.drain(max(1, min(workers, len(jobs))))
    finally:
        pool.close()


class _Worker:
    """One process, the job that it has, and the part of a message that has arrived."""

    def __init__(self) -> None:
        self.job: Job | None = None
        self._received = b""
        # With -P, it imports what this process would, and nothing that only happens to lie in the current folder.
        modules = os.pathsep.join(path or os.getcwd() for path in sys.path)
        # In a process group of its own, so that Ctrl-C in a terminal reaches the supervisor alone.
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "regrow.experiments.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ | ONE_THREAD | {"PYTHONPATH": modules},
            bufsize=0,
            process_group=0,
        )

    @property
    def output(self) -> IO[bytes]:
        """The pipe that its messages come through."""
        assert self._process.stdout is not None  # for the type checker: it was opened as a pipe
        return self._process.stdout

    def give(self, job: Job, until: float | None) -> None:
        """Hand it a job; if it has died, the end of its output will say so."""
        self.job = job
        data = json.dumps({"folder": str(job.folder.path), "module": job.module, "until": until}).encode() + b"\n"
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(data)
        except BrokenPipeError:
            pass

    def receive(self) -> list[dict[str, Any]] | None:
        """The messages that have arrived; None if the process has ended."""
        data = self.output.read(1 << 16)
        if not data:
            return None
        *lines, self._received = (self._received + data).split(b"\n")
        return [json.loads(line) for line in lines]

    def end(self) -> str:
        """Kill it if it is alive, wait for it, and say how it ended."""
        self._process.kill()
        code = self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        return f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"


class _Pool:
    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._workers: list[_Worker] = []
        self._selector = selectors.DefaultSelector()

    def drain(self, workers: int) -> Ended:
        while self._ledger.is_open:
            self._fill(workers)
            for key, _ in self._selector.select(_TICK_SECONDS):
                self._hear(key.data)
            self._ledger.show([worker.job for worker in self._workers if worker.job])
        return self._ledger.ended

    def close(self) -> None:
        for worker in list(self._workers):
            self._drop(worker)
        self._selector.close()

    def _fill(self, workers: int) -> None:
        """Give the jobs that may begin to idle workers, and to new ones as far as allowed."""
        idle = [worker for worker in self._workers if worker.job is None]
        while idle or len(self._workers) < workers:
            job = self._ledger.next()
            if job is None:
                return
            (idle.pop() if idle else self._new_worker()).give(job, self._ledger.until)

    def _new_worker(self) -> _Worker:
        worker = _Worker()
        self._workers.append(worker)
        self._selector.register(worker.output, selectors.EVENT_READ, worker)
        return worker

    def _drop(self, worker: _Worker) -> str:
        self._workers.remove(worker)
        self._selector.unregister(worker.output)
        return worker.end()

    def _hear(self, worker: _Worker) -> None:
        messages = worker.receive()
        if messages is None:
            how = self._drop(worker)
            if worker.job is not None:
                self._ledger.lose(worker.job, how)
            return
        for message in messages:
            if worker.job is None:
                continue
            if message["kind"] == "progress":
                self._ledger.hear(worker.job, message["row"])
                continue
            self._ledger.end(worker.job, message)
            worker.job = None
