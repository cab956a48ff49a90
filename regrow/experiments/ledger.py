"""Which runs wait, and how those that were begun have ended: what all places to run keep alike."""

import collections
import time
from collections.abc import Sequence
from typing import Any

from regrow.experiments.execute import Display, Ended, Failure, Job
from regrow.experiments.store import Row

KILLS = 3
"""So often a run may lose its worker with no task done in between."""
_BUSY_SECONDS = 1.0  # before asking again for a run that another process holds


class Ledger:
    """The books of one `execute`.

    Attributes:
        jobs: all of them.
        until: when, in seconds of the system's clock, no job is to begin any more; None for never.
        ended: how jobs ended so far.
    """

    def __init__(self, jobs: Sequence[Job], display: Display, until: float | None) -> None:
        self.jobs = jobs
        self.until = until
        self.ended = Ended()
        self._display = display
        self._waiting = collections.deque(jobs)

    @property
    def is_open(self) -> bool:
        """Whether any job has not ended."""
        ended = self.ended
        return ended.done + ended.left + len(ended.failures) < len(self.jobs)

    def next(self) -> Job | None:
        """Hand out a job that may begin now; None if there is none. All are left when the time is over."""
        if self.until is not None and time.time() >= self.until:
            self.ended.left += len(self._waiting)
            self._waiting.clear()
        now = time.monotonic()
        for job in self._waiting:
            if job.not_before <= now:
                self._waiting.remove(job)
                return job
        return None

    def hear(self, job: Job, row: Row) -> None:
        """Take in the row of a task that a run has done."""
        job.row = row
        if row["task"] >= job.task:  # not one that is done again after a kill
            job.task, job.kills = row["task"] + 1, 0

    def end(self, job: Job, message: dict[str, Any]) -> None:
        """Take in what came of a run: what `worker.work` returned."""
        if message["kind"] == "done":
            job.task = job.spec.tasks
            self.ended.done += 1
        elif message["kind"] == "stopped":
            self.ended.left += 1
        elif message["kind"] == "busy":
            job.not_before = time.monotonic() + _BUSY_SECONDS
            self._waiting.append(job)
        else:
            self.ended.failures.append(Failure(job, message["error"]))

    def lose(self, job: Job, how: str) -> None:
        """Note that the worker of a run was lost: it begins again, unless that has happened too often."""
        job.kills += 1
        if job.kills < KILLS:
            self._display.note(f"A worker {how}; {job.spec.title} goes on from its checkpoint.")
            self._waiting.appendleft(job)
            return
        error = f"Its worker was lost {KILLS} times with no task done in between; the last one {how}."
        self.ended.failures.append(Failure(job, error))

    def show(self, active: Sequence[Job]) -> None:
        """Show how it stands."""
        self._display.update(self.jobs, active, self.ended.done, len(self.ended.failures))
