"""Runs side by side, on this machine or on a cluster.

A run may be killed at any moment (see `store.py`), so stopping is killing: Ctrl-C, a lost worker and a lost
supervisor all leave what the next call takes up again.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from regrow.errors import ConfigError
from regrow.experiments.spec import RunSpec
from regrow.experiments.store import Row, RunFolder

ONE_THREAD = dict.fromkeys(
    ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS", "POLARS_MAX_THREADS"), "1"
)
"""Environment of the processes that do runs."""


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


@dataclass
class Ended:
    """How jobs ended.

    Attributes:
        failures: runs that did not come to their end, and why.
        done: how many runs are done.
        left: how many are not, since the time was over.
    """

    failures: list[Failure] = field(default_factory=list)
    done: int = 0
    left: int = 0


def execute(
    jobs: Sequence[Job], workers: int | None, display: Display, on: str = "local", until: float | None = None
) -> Ended:
    """Do all jobs, `workers` at a time.

    A worker that is killed is replaced and its run resumed. A run that raises is given up, the others go on. A run
    that another process is at is left to it, and counts as done when it is. KeyboardInterrupt ends all workers at
    once and is passed on; the same call then goes on from there.

    Args:
        jobs: what to do; each folder is there.
        workers: runs at once; if None, as many as there are cores.
        display: shows how it goes.
        on: "local", "ray" or the address of a cluster, "ray://host:port".
        until: when, in seconds of the system's clock, all runs are to be saved and left; None for never.

    Raises:
        ConfigError: there is no such place, Ray is not installed, or the cluster does not answer.
    """
    if on == "local":
        from regrow.experiments.local import execute_locally

        return execute_locally(jobs, workers or cores(), display, until)
    if on == "ray" or on.startswith("ray://"):
        from regrow.experiments.on_ray import execute_on_ray

        return execute_on_ray(jobs, workers, display, on, until)
    raise ConfigError(f"--on {on} is no place to run: give local, ray, or the address of a cluster, ray://host:port.")


def cores() -> int:
    """How many processes can run at once on this machine."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
