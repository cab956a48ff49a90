"""A study in numbers and in one sentence, both computed from the curves."""

import math
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from regrow.report import curves as curve_table
from regrow.report import statistics
from regrow.report.appearance import label
from regrow.report.statistics import Array

# A fall of less than this many points of accuracy is not called a loss, however sure it is.
MARGIN = 0.01
_STRETCH = 20


def stretch(tasks: int) -> int:
    """Return how many tasks "first" and "last" mean: 20, or half of them if there are fewer than 40."""
    return max(1, min(_STRETCH, tasks // 2))


def table(curves: pl.DataFrame) -> list[dict[str, Any]]:
    """Return one row for each method; shares are fractions, what was not recorded is None.

    Keys: method, label, seeds, tasks, stretch; first, last, change (of the online accuracy, means over seeds of the
    first and last `stretch` tasks and of their difference within a run) each with _low and _high (95 % bootstrap
    interval of the mean; None with one seed); dormant, rank, magnitude, each with _first and _last; replacements and
    seconds (means over runs of their last value).

    Args:
        curves: one row for each task of each run; `settle` it first if runs are unfinished.

    Raises:
        ConfigError: the table lacks a key column.
        StateError: it has no row.
    """
    curve_table.check(curves)
    return [_row(curves, method) for method in curve_table.methods(curves)]


def _row(curves: pl.DataFrame, method: str) -> dict[str, Any]:
    own = curves.filter(pl.col("method") == method)
    tasks = curve_table.tasks(own)
    span = stretch(tasks)
    row: dict[str, Any] = {
        "method": method,
        "label": label(method),
        "seeds": curve_table.seeds(own, method),
        "tasks": tasks,
        "stretch": span,
    }
    first, last = _ends(own, method, "accuracy", span)
    for name, values in (("first", first), ("last", last), ("change", last - first)):
        interval = statistics.mean_interval(values)
        row[name], row[f"{name}_low"], row[f"{name}_high"] = (_number(value) for value in interval)
    for name, measure in (("dormant", "dormant"), ("rank", "effective_rank"), ("magnitude", "weight_magnitude")):
        first, last = _ends(own, method, measure, span)
        row[f"{name}_first"], row[f"{name}_last"] = _number(first.mean()), _number(last.mean())
    for total in ("replacements", "seconds"):
        there = curve_table.has(own, total)
        row[total] = _number(curve_table.matrix(own, method, total)[:, -1].mean()) if there else None
    return row


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
    columns = [
        ("Method", [row["label"] for row in rows]),
        ("Seeds", [str(row["seeds"]) for row in rows]),
        (f"First {span} task{plural} (%)", [_share(row, "first") for row in rows]),
        (f"Last {span} task{plural} (%)", [_share(row, "last") for row in rows]),
        ("Change (points)", [_share(row, "change", sign="+") for row in rows]),
        ("Dormant (%)", [_from_to(row, "dormant", ".0f", 100) for row in rows]),
        ("Effective rank", [_from_to(row, "rank", ".1f") for row in rows]),
        ("Mean |w|", [_from_to(row, "magnitude", ".3f") for row in rows]),
        ("Replacements", [_count(row["replacements"]) for row in rows]),
        ("Seconds", [_count(row["seconds"], digits=1) for row in rows]),
    ]
    shown = [(heading, column) for heading, column in columns if any(column)]
    return Cells(
        [heading for heading, _ in shown], [list(row) for row in zip(*(column for _, column in shown), strict=True)]
    )


def _share(row: dict[str, Any], name: str, sign: str = "") -> str:
    if row[name] is None:
        return ""
    text = f"{100 * row[name]:{sign}.1f}"
    if row[f"{name}_low"] is not None and name != "first":
        text += f" ({100 * row[f'{name}_low']:{sign}.1f} to {100 * row[f'{name}_high']:{sign}.1f})"
    return text.replace("-", "−")


def _from_to(row: dict[str, Any], name: str, form: str, factor: float = 1) -> str:
    first, last = row[f"{name}_first"], row[f"{name}_last"]
    return "" if first is None or last is None else f"{factor * first:{form}} → {factor * last:{form}}"


def _count(value: float | None, digits: int = 0) -> str:
    return "" if value is None else f"{value:,.{digits if value < 10 else 0}f}"


def sentence(curves: pl.DataFrame) -> str:
    """Say in one sentence what is seen: which methods lost plasticity, which kept it, and what is not decided.

    A method lost plasticity if its online accuracy is lower in the last tasks than in the first by at least one point
    and the whole 95 % interval of the change lies below 0; it kept it if that interval lies above -1 point. Nothing
    is said about a cause: dormant units are named as what went with it.

    Raises:
        ConfigError: the table lacks a key column.
        StateError: it has no row.
    """
    rows = [row for row in table(curves) if row["change"] is not None]
    if not rows:
        return "Online accuracy was not recorded, so nothing can be said about plasticity."
    tasks = max(row["tasks"] for row in rows)
    for row in rows:
        row["span"] = f" in {row['tasks']} tasks" if row["tasks"] < tasks else ""
    if min(row["tasks"] for row in rows) < 2:
        return "There is one task only so far: a loss of plasticity shows over many."
    spans = sorted({row["stretch"] for row in rows})
    what = f"first → last {spans[0]} tasks" if len(spans) == 1 and spans[0] > 1 else "first → last tasks"
    figures = f"; in brackets: online accuracy, {what}, {_seeds(rows)}."
    if any(row["change_low"] is None for row in rows):
        return f"With one seed nothing is sure; over {tasks} tasks this was seen: {_and(map(_told, rows))}{figures}"
    lost = [row for row in rows if row["change_high"] < 0 and row["change"] <= -MARGIN]
    kept = [row for row in rows if row not in lost and row["change_low"] > -MARGIN]
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
    return f"{row['label']} ({100 * row['first']:.1f} → {100 * row['last']:.1f} %{row['span']}{more})"


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
