"""Runs side by side on this machine: a supervisor with one single-threaded process per core.

A run may be killed at any moment (see `store.py`), so stopping is killing: Ctrl-C, a lost worker and a lost
supervisor all leave what the next call takes up again.
"""

import collections
import json
import os
import selectors
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import IO, Any, Protocol

from regrow.experiments.spec import RunSpec
from regrow.experiments.store import Row, RunFolder

_KILLS = 3  # of one run, with no task done in between
_BUSY_SECONDS = 1.0  # before asking again for a run that another process holds
_TICK_SECONDS = 0.2
_ONE_THREAD = dict.fromkeys(
    ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS", "POLARS_MAX_THREADS"), "1"
)


@dataclass(eq=False)
class Job:
    """A run on its way.

    Attributes:
        spec: what is run.
        folder: where.
        module: the module that registers its study.
        task: how many tasks are done, as far as is known.
        row: the last row.
        kills: how often its worker was lost since the last task was done.
        not_before: when to try again, in seconds of the monotonic clock.
    """

    spec: RunSpec
    folder: RunFolder
    module: str
    task: int = 0
    row: Row = field(default_factory=dict)
    kills: int = 0
    not_before: float = 0.0


class Display(Protocol):
    """Shows how it goes. `jobs` are the same objects all the time."""

    def update(self, jobs: Sequence[Job], active: Sequence[Job], done: int, failed: int) -> None:
        """Something may have changed; called several times a second."""

    def note(self, text: str) -> None:
        """Say something that is worth a line."""


@dataclass(frozen=True)
class Failure:
    """A run that did not come to its end, and why."""

    job: Job
    error: str


def cores() -> int:
    """How many processes can run at once."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def execute(jobs: Sequence[Job], workers: int, display: Display) -> list[Failure]:
    """Do all jobs, `workers` at a time.

    A worker that is killed is replaced and its run resumed. A run that raises is given up, the others go on. A run
    that another process is at is left to it, and counts as done when it is. KeyboardInterrupt ends all workers at
    once and is passed on; the same call then goes on from there.

    Returns:
        the runs that failed.
    """
    pool = _Pool(jobs, display)
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
            env=os.environ | _ONE_THREAD | {"PYTHONPATH": modules},
            bufsize=0,
            process_group=0,
        )

    @property
    def output(self) -> IO[bytes]:
        """The pipe that its messages come through."""
        assert self._process.stdout is not None  # for the type checker: it was opened as a pipe
        return self._process.stdout

    def give(self, job: Job) -> None:
        """Hand it a job; if it has died, the end of its output will say so."""
        self.job = job
        data = json.dumps({"folder": str(job.folder.path), "module": job.module}).encode() + b"\n"
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
    def __init__(self, jobs: Sequence[Job], display: Display) -> None:
        self._jobs = jobs
        self._display = display
        self._waiting = collections.deque(jobs)
        self._workers: list[_Worker] = []
        self._selector = selectors.DefaultSelector()
        self._failures: list[Failure] = []
        self._done = 0

    def drain(self, workers: int) -> list[Failure]:
        while self._done + len(self._failures) < len(self._jobs):
            self._fill(workers)
            for key, _ in self._selector.select(_TICK_SECONDS):
                self._hear(key.data)
            active = [worker.job for worker in self._workers if worker.job]
            self._display.update(self._jobs, active, self._done, len(self._failures))
        return self._failures

    def close(self) -> None:
        for worker in list(self._workers):
            self._drop(worker)
        self._selector.close()

    def _fill(self, workers: int) -> None:
        """Give the jobs that may begin to idle workers, new ones as far as allowed."""
        idle = [worker for worker in self._workers if worker.job is None]
        now = time.monotonic()
        for _ in range(len(self._waiting)):
            if not idle and len(self._workers) >= workers:
                return
            job = self._waiting.popleft()
            if job.not_before > now:
                self._waiting.append(job)
                continue
            (idle.pop() if idle else self._new_worker()).give(job)

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
            self._lost(worker, self._drop(worker))
            return
        for message in messages:
            job = worker.job
            if job is None:
                continue
            if message["kind"] == "progress":
                job.row = message["row"]
                if job.row["task"] >= job.task:  # not one that is done again after a kill
                    job.task, job.kills = job.row["task"] + 1, 0
                continue
            worker.job = None
            if message["kind"] == "done":
                job.task = job.spec.tasks
                self._done += 1
            elif message["kind"] == "busy":
                job.not_before = time.monotonic() + _BUSY_SECONDS
                self._waiting.append(job)
            else:
                self._failures.append(Failure(job, message["error"]))

    def _lost(self, worker: _Worker, how: str) -> None:
        job = worker.job
        if job is None:
            return
        job.kills += 1
        if job.kills < _KILLS:
            self._display.note(f"A worker {how}; {job.spec.method}, seed {job.spec.seed} goes on from its checkpoint.")
            self._waiting.appendleft(job)
        else:
            error = f"Its worker was lost {_KILLS} times with no task done in between; the last one {how}."
            self._failures.append(Failure(job, error))
