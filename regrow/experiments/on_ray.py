"""Runs on a Ray cluster, or on one that is started on this machine: one task of Ray's per run.

A task does what a local worker does, in a folder that all machines see; how far it has come is read off that folder.
"""

import os
import socket
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from regrow.errors import ConfigError, StoreError
from regrow.experiments.execute import Display, Ended, Job
from regrow.experiments.ledger import Ledger

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
    pool = _Pool(ray, Ledger(jobs, display, until))
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
    if address != "ray" and _has_token():
        # `ray start` asks for a token as soon as there is one, and a client sends it only when told to.
        os.environ.setdefault("RAY_AUTH_MODE", "token")
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
                f"ray://HOST:{_PORT} with the host that it runs on, or --on ray for this machine alone. Where it asks "
                "for a token, `ray get-auth-token` there has it: put it into RAY_AUTH_TOKEN here."
            ) from error
        return ray, True
    try:
        ray.init("auto", **quietly)
    except ConnectionError:
        ray.init(num_cpus=workers, include_dashboard=False, **quietly)
    return ray, True


def _has_token() -> bool:
    """Whether this user has a token for clusters, where Ray looks for it."""
    named = any(os.environ.get(name) for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"))
    return named or (Path.home() / ".ray" / "auth_token").exists()


class _Pool:
    def __init__(self, ray: Any, ledger: Ledger) -> None:
        # Retries are counted by the ledger as for local workers, so that a run that kills its worker is given up. Ray
        # itself lets a task of one core have one thread. No environment of its own: that would take Ray long to make.
        self._do = ray.remote(num_cpus=1, max_retries=0)(_work)
        self._modules = [path or os.getcwd() for path in sys.path]
        self._ray = ray
        self._ledger = ledger
        self._running: dict[Any, Job] = {}

    def drain(self, workers: int) -> Ended:
        while self._ledger.is_open:
            self._fill(workers)
            ready, _ = self._ray.wait(list(self._running), timeout=_TICK_SECONDS) if self._running else ([], [])
            for reference in ready:
                self._take(self._running.pop(reference), reference)
            if not self._running:
                time.sleep(_TICK_SECONDS)
            for job in self._running.values():
                self._look(job)
            self._ledger.show(list(self._running.values()))
        return self._ledger.ended

    def close(self) -> None:
        """End what still runs."""
        for reference in self._running:
            self._ray.cancel(reference, force=True)

    def _fill(self, workers: int) -> None:
        while len(self._running) < workers:
            job = self._ledger.next()
            if job is None:
                return
            message = {"folder": os.path.abspath(job.folder.path), "module": job.module, "until": self._ledger.until}
            self._running[self._do.remote(message, self._modules)] = job

    def _take(self, job: Job, reference: Any) -> None:
        """Take in how a run ended."""
        from ray.exceptions import RayError

        try:
            message = self._ray.get(reference)
        except RayError as error:
            self._look(job)
            self._ledger.lose(job, f"was lost ({type(error).__name__})")
        else:
            self._ledger.end(job, message)

    def _look(self, job: Job) -> None:
        """See in its folder how far a run has come."""
        with suppress(StoreError, IndexError):
            self._ledger.hear(job, job.folder.rows()[-1])


def _work(message: dict[str, Any], modules: list[str]) -> dict[str, Any]:
    """Do a run in a process of Ray's, which is to find the modules that this one finds."""
    sys.path += [path for path in modules if path not in sys.path]
    from regrow.experiments.worker import work

    return work(message, lambda row: None)
