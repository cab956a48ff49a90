"""How it goes, on a terminal and in a log."""

import time
from collections.abc import Sequence

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from regrow.engines.training import outcome_among
from regrow.experiments.execute import Display, Job
from regrow.experiments.store import over_seeds

_LOG_SECONDS = 10.0


def display_for(console: Console) -> "Bars | Log":
    """Bars on a terminal, else a line now and then. A context manager."""
    return Bars(console) if console.is_terminal else Log(console)


class Bars(Display):
    """One bar for everything, with the time left, and one for each run that is being done."""

    def __init__(self, console: Console) -> None:
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f} %"),
            TextColumn("{task.fields[remark]}", markup=False),
            TimeRemainingColumn(compact=True),
            console=console,
            transient=True,
        )
        self._total = self._progress.add_task("all runs", remark="")
        self._bars: dict[Job, TaskID] = {}

    def __enter__(self) -> "Bars":
        self._progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._progress.stop()

    def update(self, jobs: Sequence[Job], active: Sequence[Job], done: int, failed: int) -> None:
        """Move the bars."""
        remark = f"{done}/{len(jobs)} runs done" + (f", {failed} failed" if failed else "")
        tasks, finished = sum(job.spec.tasks for job in jobs), sum(job.task for job in jobs)
        self._progress.update(self._total, total=tasks, completed=finished, remark=remark)
        for job in [job for job in self._bars if job not in active]:
            self._progress.remove_task(self._bars.pop(job))
        for job in active:
            if job not in self._bars:
                self._bars[job] = self._progress.add_task(job.spec.title, total=job.spec.tasks, remark="")
            self._progress.update(self._bars[job], completed=job.task, remark=_remark(job))

    def note(self, text: str) -> None:
        """Print it above the bars."""
        self._progress.console.print(text)


class Log(Display):
    """A line every ten seconds."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._began = self._last = time.monotonic()
        self._at_start: int | None = None

    def __enter__(self) -> "Log":
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def update(self, jobs: Sequence[Job], active: Sequence[Job], done: int, failed: int) -> None:
        """Print a line if it is time."""
        now = time.monotonic()
        finished, tasks = sum(job.task for job in jobs), sum(job.spec.tasks for job in jobs)
        if self._at_start is None:
            self._at_start = finished
        if now - self._last < _LOG_SECONDS:
            return
        self._last = now
        line = f"{done} of {len(jobs)} runs done, {failed} failed, {100 * finished / tasks:.0f} % of all tasks"
        if finished > self._at_start:
            left = (now - self._began) * (tasks - finished) / (finished - self._at_start)
            line += f", about {left // 60:.0f} min {left % 60:.0f} s left"
        self.note(line)

    def note(self, text: str) -> None:
        """Print a line."""
        self._console.print(text, soft_wrap=True)


def _remark(job: Job) -> str:
    outcome = outcome_among(job.row)
    if outcome.measure not in job.row:
        return "starting"
    return f"{outcome.name} {outcome.text(over_seeds(job.row[outcome.measure]))}"
