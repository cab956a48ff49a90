"""What is seen of agents, which begin from nothing: a first task that was worse than the last says nothing."""

import numpy as np
import polars as pl

from regrow.engines.training import RETURN
from regrow.report import curves as curve_table
from regrow.report import statistics, summary
from regrow.report.appearance import label


def is_of_agents(curves: pl.DataFrame) -> bool:
    """Whether runs recorded returns."""
    return curve_table.has(curves, RETURN.measure)


def sentence(curves: pl.DataFrame) -> str:
    """Say in one sentence how each method stands in the last tasks, beside the best stretch that it had.

    Raises:
        ConfigError: the table lacks a key column.
        StateError: it has no row.
    """
    curve_table.check(curves)
    told = [_told(curves, name) for name in curve_table.methods(curves)]
    tasks = curve_table.tasks(curves)
    span = summary.stretch(tasks)
    where = "last task" if span == 1 else f"last {span} of {tasks} tasks"
    best = "task" if span == 1 else f"{span} tasks in a row"
    return f"Return in the {where}, and in the best {best} on the way there: {'; '.join(told)}."


def _told(curves: pl.DataFrame, method: str) -> str:
    values = curve_table.matrix(curves, method, RETURN.measure)
    tasks = values.shape[1]
    span = summary.stretch(tasks)
    last = statistics.mean_interval(values[:, -span:].mean(axis=1))
    bounds = (
        f" ({RETURN.number(float(last.low))} to {RETURN.number(float(last.high))})"
        if np.isfinite(last.low)
        else " (one seed)"
    )
    smooth = np.convolve(values.mean(axis=0), np.full(span, 1 / span), mode="valid")
    so_far = f" after {tasks} tasks" if tasks < curve_table.tasks(curves) else ""
    return f"{label(method)} {RETURN.number(float(last.mean))}{bounds}{so_far}, {RETURN.number(float(smooth.max()))}"
