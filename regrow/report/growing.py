"""What is seen where each task is harder than the one before, since it has more classes."""

import numpy as np
import polars as pl

from regrow.engines.training import Outcome, outcome_among
from regrow.report import curves as curve_table
from regrow.report import statistics, summary
from regrow.report.appearance import label
from regrow.report.statistics import Array

REFERENCE = "retrained"
"""The arm that begins anew in each task: what could be learned."""


def is_growing(curves: pl.DataFrame) -> bool:
    """Whether tasks have ever more classes."""
    return curve_table.has(curves, "classes") and curves["classes"].n_unique() > 1


def sentence(curves: pl.DataFrame) -> str:
    """Say in one sentence how far each method is from the network that is retrained in each task, in the last tasks.

    A fall over tasks is no loss of plasticity here: only what stays behind a network without a past is.

    Raises:
        ConfigError: the table lacks a key column.
        StateError: it has no row.
    """
    curve_table.check(curves)
    outcome = outcome_among(curves.columns)
    fall = f"Tasks have ever more classes, so a fall of {outcome.name} alone says nothing"
    others = [name for name in curve_table.methods(curves) if name != REFERENCE]
    told = [text for name in others if (text := _told(curves, name, outcome)) is not None]
    if not told:
        return f"{fall}: run {REFERENCE} with the same seeds, to which the others can be compared."
    tasks = curve_table.tasks(curves)
    span = summary.stretch(tasks)
    where = "in the last task" if span == 1 else f"in the last {span} of {tasks} tasks"
    return f"{fall}; {where}, {outcome.change_heading} above or below the retrained network: {'; '.join(told)}."


def _told(curves: pl.DataFrame, method: str, outcome: Outcome) -> str | None:
    pairs = _matched(curves, method, outcome.measure)
    if pairs is None:
        return None
    own, reference = pairs
    span = summary.stretch(min(own.shape[1], reference.shape[1]))
    found = statistics.mean_interval((own - reference)[:, -span:].mean(axis=1))
    bounds = (
        f" ({outcome.number(float(found.low), '+')} to {outcome.number(float(found.high), '+')})"
        if np.isfinite(found.low)
        else ", one seed"
    )
    so_far = f" of its first {own.shape[1]} tasks" if own.shape[1] < curve_table.tasks(curves) else ""
    return f"{label(method)} {outcome.number(float(found.mean), '+')}{bounds}{so_far}{_dormant(curves, method)}"


def _matched(curves: pl.DataFrame, method: str, measure: str) -> tuple[Array, Array] | None:
    """One measure of a method and of the reference, in the tasks and for the seeds that both have: [seeds, tasks]."""
    pair = [curves.filter(pl.col("method") == name) for name in (method, REFERENCE)]
    seeds = set(pair[0]["seed"]) & set(pair[1]["seed"])
    if not seeds:
        return None
    shared = [rows.filter(pl.col("seed").is_in(sorted(seeds))) for rows in pair]
    own, reference = (
        curve_table.matrix(rows, name, measure) for rows, name in zip(shared, (method, REFERENCE), strict=True)
    )
    tasks = min(own.shape[1], reference.shape[1])
    return own[:, :tasks], reference[:, :tasks]


def _dormant(curves: pl.DataFrame, method: str) -> str:
    if not curve_table.has(curves, "dormant"):
        return ""
    values = 100 * curve_table.matrix(curves, method, "dormant").mean(axis=0)
    return f", dormant units {values[0]:.0f} → {values[-1]:.0f} %"
