"""Runs on a Ray cluster, or on one that is started on this machine: one task of Ray's per run.

A task does what a local worker does, in a folder that all machines see; how far it has come is read off that folder.
"""

import collections
import os
import socket
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

from regrow.errors import ConfigError, StoreError
from regrow.experiments.execute import BUSY_SECONDS, Display, Ended, Failure, Job, hear, lose

_TICK_SECONDS = 0.5
_ANSWER_SECONDS = 10.0
_PORT = 10001  # where `ray start --head` listens for clients


def execute_on_ray(
    jobs: Sequence[Job], workers: int | None, display: Display, address: str, until: float | None = None
) -> Ended:
    """See `execute`. Without `workers`, as many runs at once as the cluster has cores.

    Raises:
        ConfigError: Ray is not installed, or the cluster does not answer.
    """
    ray, is_ours = _connect(address, workers)
    pool = _Pool(ray, jobs, display, until)
    try:
        return pool.drain(workers or max(1, int(ray.cluster_resources().get("CPU", 1))))
    finally:
        pool.close()
        if is_ours:
            ray.shutdown()


def _connect(address: str, workers: int | None) -> tuple[Any, bool]:
    """Ray, connected to the cluster at an address; for "ray", to the one that this process has, that runs on this
    machine, or that is started. And whether the connection is to be closed.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nobody is told of what is run
    try:
        import ray
    except ModuleNotFoundError:
        raise ConfigError(
            "--on ray needs Ray, which is not installed: pip install 'regrow[cluster]', here and on all machines."
        ) from None
    if address == "ray" and ray.is_initialized():
        return ray, False
    quietly: dict[str, Any] = {"logging_level": "ERROR", "log_to_driver": False}
    if address != "ray":
        place = urlsplit(address)
        try:  # Ray itself would try for minutes
            socket.create_connection((place.hostname or "", place.port or _PORT), _ANSWER_SECONDS).close()
            ray.init(address, **quietly)
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"No Ray cluster answers at {address} ({error}): start one by `ray start --head`, and give "
                f"ray://HOST:{_PORT} with the host that it runs on, or --on ray for this machine alone."
            ) from error
        return ray, True
    try:
        ray.init("auto", **quietly)
    except ConnectionError:
        ray.init(num_cpus=workers, include_dashboard=False, **quietly)
    return ray, True


class _Pool:
    def __init__(self, ray: Any, jobs: Sequence[Job], display: Display, until: float | None) -> None:
        # Retries are counted here as for local workers, so that a run that kills its worker is given up. Ray itself
        # lets a task of one core have one thread. No environment of its own: that would take Ray long to make.
        self._do = ray.remote(num_cpus=1, max_retries=0)(_work)
        self._modules = [path or os.getcwd() for path in sys.path]
        self._ray = ray
        self._jobs = jobs
        self._display = display
        self._until = until
        self._waiting = collections.deque(jobs)
        self._running: dict[Any, Job] = {}
        self._ended = Ended()

    def drain(self, workers: int) -> Ended:
        ended = self._ended
        while ended.done + ended.left + len(ended.failures) < len(self._jobs):
            self._fill(workers)
            ready, _ = self._ray.wait(list(self._running), timeout=_TICK_SECONDS) if self._running else ([], [])
            for reference in ready:
                self._take(self._running.pop(reference), reference)
            if not self._running:
                time.sleep(_TICK_SECONDS)
            for job in self._running.values():
                _look(job)
            self._display.update(self._jobs, list(self._running.values()), ended.done, len(ended.failures))
        return ended

    def close(self) -> None:
        """End what still runs."""
        for reference in self._running:
            self._ray.cancel(reference, force=True)

    def _fill(self, workers: int) -> None:
        if self._until is not None and time.time() >= self._until:
            self._ended.left += len(self._waiting)
            self._waiting.clear()
        now = time.monotonic()
        for _ in range(len(self._waiting)):
            if len(self._running) >= workers:
                return
            job = self._waiting.popleft()
            if job.not_before > now:
                self._waiting.append(job)
                continue
            message = {"folder": os.path.abspath(job.folder.path), "module": job.module, "until": self._until}
            self._running[self._do.remote(message, self._modules)] = job

    def _take(self, job: Job, reference: Any) -> None:
        """Take in how a run ended."""
        from ray.exceptions import RayError

        try:
            message = self._ray.get(reference)
        except RayError as error:
            _look(job)
            failure = lose(job, f"was lost ({type(error).__name__})", self._display)
            if failure is None:
                self._waiting.appendleft(job)
            else:
                self._ended.failures.append(failure)
            return
        if message["kind"] == "done":
            job.task = job.spec.tasks
            self._ended.done += 1
        elif message["kind"] == "stopped":
            self._ended.left += 1
        elif message["kind"] == "busy":
            job.not_before = time.monotonic() + BUSY_SECONDS
            self._waiting.append(job)
        else:
            self._ended.failures.append(Failure(job, message["error"]))


def _work(message: dict[str, Any], modules: list[str]) -> dict[str, Any]:
    """Do a run in a process of Ray's, which is to find the modules that this one finds."""
    sys.path += [path for path in modules if path not in sys.path]
    from regrow.experiments.worker import work

    return work(message, lambda row: None)


def _look(job: Job) -> None:
    """See in its folder how far a run has come."""
    with suppress(StoreError, IndexError):
        hear(job, job.folder.rows()[-1])
