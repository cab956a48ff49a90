"""A study in numbers and in one sentence, both computed from the curves."""

import math
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from regrow.engines.training import Outcome, outcome_among
from regrow.report import curves as curve_table
from regrow.report import statistics
from regrow.report.appearance import label
from regrow.report.statistics import Array

_STRETCH = 20


def stretch(tasks: int) -> int:
    """Return how many tasks "first" and "last" mean: 20, or half of them if there are fewer than 40."""
    return max(1, min(_STRETCH, tasks // 2))


def table(curves: pl.DataFrame) -> list[dict[str, Any]]:
    """Return one row for each method; shares are fractions, what was not recorded is None.

    Keys: method, label, seeds, tasks, stretch, outcome; first, last, change, overall (of the outcome, means over seeds
    of the first and last `stretch` tasks, of their difference within a run, and of all tasks) and gain (the change,
    turned so that more is better), each with _low and _high (95 % bootstrap interval of the mean; None with one seed);
    dormant, rank, magnitude, each with _first and _last; replacements and seconds (means over runs of their last
    value); diverged, how many runs have an outcome that is not finite: the outcome of all is None then.

    Args:
        curves: one row for each task of each run; `settle` it first if runs are unfinished.

    Raises:
        ConfigError: the table lacks a key column.
        StateError: it has no row.
    """
    curve_table.check(curves)
    outcome = outcome_among(curves.columns)
    return [_row(curves, method, outcome) for method in curve_table.methods(curves)]


def _row(curves: pl.DataFrame, method: str, outcome: Outcome) -> dict[str, Any]:
    own = curves.filter(pl.col("method") == method)
    tasks = curve_table.tasks(own)
    span = stretch(tasks)
    row: dict[str, Any] = {
        "method": method,
        "label": label(method),
        "seeds": curve_table.seeds(own, method),
        "tasks": tasks,
        "stretch": span,
        "outcome": outcome,
        "diverged": _diverged(own, outcome.measure),
    }
    first, last = _ends(own, method, outcome.measure, span)
    overall, _ = _ends(own, method, outcome.measure, tasks)
    gain = outcome.gain(last - first)
    for name, values in (
        ("first", first), ("last", last), ("change", last - first), ("gain", gain), ("overall", overall),
    ):  # fmt: skip
        interval = statistics.mean_interval(values if not row["diverged"] else np.full_like(values, np.nan))
        row[name], row[f"{name}_low"], row[f"{name}_high"] = (_number(value) for value in interval)
    for name, measure in (("dormant", "dormant"), ("rank", "effective_rank"), ("magnitude", "weight_magnitude")):
        first, last = _ends(own, method, measure, span)
        row[f"{name}_first"], row[f"{name}_last"] = _number(first.mean()), _number(last.mean())
    for total in ("replacements", "seconds"):
        there = curve_table.has(own, total)
        row[total] = _number(curve_table.matrix(own, method, total)[:, -1].mean()) if there else None
    return row


def _diverged(own: pl.DataFrame, measure: str) -> int:
    """How many runs recorded a value of a measure that is not finite."""
    if not curve_table.has(own, measure):
        return 0
    return own.filter(pl.col(measure).is_not_null() & ~pl.col(measure).cast(pl.Float64).is_finite())["seed"].n_unique()


def _ends(own: pl.DataFrame, method: str, measure: str, span: int) -> tuple[Array, Array]:
    """Means of the first and of the last `span` tasks, each [seeds]."""
    if not curve_table.has(own, measure):
        nothing = np.full(curve_table.seeds(own, method), np.nan)
        return nothing, nothing
    values = curve_table.matrix(own, method, measure)
    return statistics.nan_mean(values[:, :span]), statistics.nan_mean(values[:, -span:])


def _number(value: Any) -> float | None:
    return float(value) if math.isfinite(value) else None


class Cells(NamedTuple):
    """A table as text: headings, and one row of as many cells for each method."""

    headings: list[str]
    rows: list[list[str]]


def cells(rows: list[dict[str, Any]]) -> Cells:
    """Return the table as text, without the columns of what no method recorded."""
    spans = sorted({row["stretch"] for row in rows})
    span = str(spans[0]) if len(spans) == 1 else f"{spans[0]}–{spans[-1]}"
    plural = "" if span == "1" else "s"
    outcome: Outcome = rows[0]["outcome"]
    columns = [
        ("Method", [row["label"] for row in rows]),
        ("Seeds", [str(row["seeds"]) for row in rows]),
        (f"First {span} task{plural} ({outcome.heading})", [outcome_cell(row, "first") for row in rows]),
        (f"Last {span} task{plural} ({outcome.heading})", [outcome_cell(row, "last") for row in rows]),
        (f"Change ({outcome.change_heading})", [outcome_cell(row, "change", sign="+") for row in rows]),
        ("Dormant (%)", [from_to(row, "dormant", ".0f", 100) for row in rows]),
        ("Effective rank", [from_to(row, "rank", ".1f") for row in rows]),
        ("Mean |w|", [from_to(row, "magnitude", ".3f") for row in rows]),
        ("Replacements", [count(row["replacements"]) for row in rows]),
        ("Seconds", [count(row["seconds"], digits=1) for row in rows]),
    ]
    shown = [(heading, column) for heading, column in columns if any(column)]
    return Cells(
        [heading for heading, _ in shown], [list(row) for row in zip(*(column for _, column in shown), strict=True)]
    )


def outcome_cell(row: dict[str, Any], name: str, sign: str = "") -> str:
    """One of the outcomes of a row as text: the mean, and in brackets its interval."""
    if row["diverged"] and name == "last":
        return f"diverged: {row['diverged']} of {row['seeds']}"
    if row[name] is None:
        return ""
    outcome: Outcome = row["outcome"]
    text = outcome.number(row[name], sign)
    if row[f"{name}_low"] is not None and name != "first":
        text += f" ({outcome.number(row[f'{name}_low'], sign)} to {outcome.number(row[f'{name}_high'], sign)})"
    return text


def from_to(row: dict[str, Any], name: str, form: str, factor: float = 1) -> str:
    """A measure in the first and in the last tasks, as text."""
    first, last = row[f"{name}_first"], row[f"{name}_last"]
    return "" if first is None or last is None else f"{factor * first:{form}} → {factor * last:{form}}"


def count(value: float | None, digits: int = 0) -> str:
    """A total as text."""
    return "" if value is None else f"{value:,.{digits if value < 10 else 0}f}"


def sentence(curves: pl.DataFrame) -> str:
    """Say in one sentence what is seen: which methods lost plasticity, which kept it, and what is not decided.

    A method lost plasticity if its outcome is worse in the last tasks than in the first by at least the margin (one
    point of accuracy; .02 of squared error) and the whole 95 % interval of the change says so; it kept it if that
    interval lies within the margin. Nothing is said about a cause: dormant units are named as what went with it.

    Raises:
        ConfigError: the table lacks a key column.
        StateError: it has no row.
    """
    outcome = outcome_among(curves.columns)
    rows = [row for row in table(curves) if row["change"] is not None]
    if not rows:
        return f"No {outcome.name} was recorded, so nothing can be said about plasticity."
    tasks = max(row["tasks"] for row in rows)
    for row in rows:
        row["span"] = f" in {row['tasks']} tasks" if row["tasks"] < tasks else ""
    if min(row["tasks"] for row in rows) < 2:
        return "There is one task only so far: a loss of plasticity shows over many."
    spans = sorted({row["stretch"] for row in rows})
    what = f"first → last {spans[0]} tasks" if len(spans) == 1 and spans[0] > 1 else "first → last tasks"
    figures = f"; in brackets: {outcome.name}, {what}, {_seeds(rows)}."
    if any(row["change_low"] is None for row in rows):
        return f"With one seed nothing is sure; over {tasks} tasks this was seen: {_and(map(_told, rows))}{figures}"
    lost = [row for row in rows if row["gain_high"] < 0 and row["gain"] <= -outcome.margin]
    kept = [row for row in rows if row not in lost and row["gain_low"] > -outcome.margin]
    unclear = [row for row in rows if row not in lost and row not in kept]
    parts = []
    if lost:
        parts.append(f"{_and(map(_told_with_dormant, lost))} lost plasticity over {tasks} tasks")
        if kept:
            parts.append(f"{_and(map(_told, kept))} kept it")
    elif kept:
        parts.append(f"No loss of plasticity seen over {tasks} tasks with {_and(map(_told, kept))}")
    if unclear:
        parts.append(f"not decided for {_and(map(_told, unclear))}" if parts else _undecided(unclear, tasks))
    return f"{'; '.join(parts)}{figures}"


def _undecided(rows: list[dict[str, Any]], tasks: int) -> str:
    return f"Too much noise or too few seeds to say if plasticity was lost over {tasks} tasks: {_and(map(_told, rows))}"


def _told(row: dict[str, Any], more: str = "") -> str:
    outcome: Outcome = row["outcome"]
    return f"{row['label']} ({outcome.number(row['first'])} → {outcome.text(row['last'])}{row['span']}{more})"


def _told_with_dormant(row: dict[str, Any]) -> str:
    if row["dormant_first"] is None or row["dormant_last"] is None:
        return _told(row)
    return _told(row, f", dormant units {100 * row['dormant_first']:.0f} → {100 * row['dormant_last']:.0f} %")


def _seeds(rows: list[dict[str, Any]]) -> str:
    low, high = min(row["seeds"] for row in rows), max(row["seeds"] for row in rows)
    return f"{low} to {high} seeds" if low < high else f"{low} seed{'s' if low > 1 else ''}"


def _and(parts: Iterable[str]) -> str:
    *others, last = parts
    return f"{', '.join(others)} and {last}" if others else last
