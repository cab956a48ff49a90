"""One run, from its spec to its curve."""

import time
from collections.abc import Callable

import torch

from regrow.experiments.store import Row, RunFolder
from regrow.experiments.study import study_named


def run(
    folder: RunFolder,
    report_progress: Callable[[Row], None] = lambda row: None,
    time_is_over: Callable[[], bool] = lambda: False,
) -> bool:
    """Go through the tasks of a run, from its last checkpoint on, and write its curve.

    The run may be killed at any moment and taken up again, with the same bytes in the end.

    Args:
        folder: made by `RunFolder.create` and locked.
        report_progress: receives the row of each task that was done.
        time_is_over: asked after each piece of work; the run then stops where it is, and is saved.

    Returns:
        whether the run came to its end.

    Raises:
        StoreError: the folder is damaged or cannot be written.
    """
    if folder.is_done():
        return True
    # One thread a process: several would wait for each other, and the order of their sums would change the bits.
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    spec = folder.spec()
    course = study_named(spec.study).course(spec)
    done, state = folder.resume()
    if state is not None:
        course.load_state_dict(state)
    saved, cost, seconds = time.monotonic(), 0.0, 0.0
    while done < spec.tasks:
        piece = course.advance()
        seconds += piece.seconds
        if piece.row is not None:
            folder.append(piece.row, {"task": done, "seconds": seconds})
            report_progress(piece.row)
            done, seconds = done + 1, 0.0
        now, over = time.monotonic(), time_is_over()
        if over or _checkpoint_due(done, now - saved, cost):
            folder.save(done, course.state_dict())
            saved = time.monotonic()
            cost = saved - now
        if over and done < spec.tasks:
            return False
    folder.save(done, course.state_dict())
    folder.finish()
    return True


def _checkpoint_due(done: int, passed: float, cost: float) -> bool:
    """Whether to save after `done` tasks, `passed` seconds after the last time, when that took `cost` seconds."""
    return passed >= max(2.0, 100 * cost)  # at most 1 % of the time goes there
