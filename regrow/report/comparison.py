"""Many methods side by side, each at its default and, as "name tuned", at the best of its grid.

With them, the baseline that does nothing and the oracle that begins anew with each task.
"""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import polars as pl

from regrow.engines.training import Outcome, outcome_among
from regrow.methods import WeightMethod, method_named, methods_by_name
from regrow.report import statistics, summary
from regrow.report.summary import Cells

BASELINE, ORACLE, TUNED = "backprop", "full-reset", " tuned"


def base(method: str) -> str:
    """Return the name of a method without what says that it is tuned."""
    return method.removesuffix(TUNED)


def is_told_of_tasks(method: str) -> bool:
    """Say whether a method acts only if it is told of task changes, or does so by default."""
    name = base(method).split(" ")[0]
    example = method_named(name) if name in methods_by_name() else None
    return isinstance(example, WeightMethod) and example.acts_at_task_changes


def table(curves: pl.DataFrame) -> list[dict[str, Any]]:
    """Return the rows of `summary.table` with differences between runs of the same seeds in each.

    As last_gain by how much the last tasks are better than those of the baseline, as overall_gain likewise for all
    tasks, as oracle_gain by how much the last tasks are better than those of the oracle: means over seeds, each with
    _low and _high (95 % bootstrap interval). None where there is no baseline or oracle, or the method is that itself.

    The best come first, judged by the better of default and tuned over the last tasks; those that are not told of task
    changes before those that are; the tuned one follows its default.

    Raises:
        ConfigError: the table lacks a key column.
        StateError: it has no row.
    """
    rows = summary.table(curves)
    outcome = outcome_among(curves.columns)
    for row in rows:
        last = row["tasks"] - row["stretch"]
        for name, other, since in (("last", BASELINE, last), ("overall", BASELINE, 0), ("oracle", ORACLE, last)):
            gains = _gains(curves, outcome, row, other, since)
            row |= _interval(f"{name}_gain", gains)
    best: dict[str, float] = {}
    for row in rows:
        value = -np.inf if row["last"] is None else float(outcome.gain(row["last"]))
        best[base(row["method"])] = max(value, best.get(base(row["method"]), -np.inf))
    return sorted(rows, key=_place(best))


def _interval(name: str, gains: statistics.Array) -> dict[str, float | None]:
    keys = (name, f"{name}_low", f"{name}_high")
    if not len(gains):
        return dict.fromkeys(keys)
    interval = statistics.mean_interval(gains)
    return {key: float(value) if np.isfinite(value) else None for key, value in zip(keys, interval, strict=True)}


def _place(best: dict[str, float]) -> Callable[[dict[str, Any]], Any]:
    def place(row: dict[str, Any]) -> Any:
        name = base(row["method"])
        return name not in (BASELINE, ORACLE), is_told_of_tasks(name), -best[name], name, row["method"] != name

    return place


def _gains(curves: pl.DataFrame, outcome: Outcome, row: dict[str, Any], other: str, since: int) -> statistics.Array:
    """By how much a method is better than another in the tasks from `since` on, for each seed that both have."""
    pair = [row["method"], other]
    chosen = curves.filter(pl.col("method").is_in(pair), pl.col("task") >= since, pl.col("task") < row["tasks"])
    if row["diverged"] or row["method"] == other or chosen["method"].n_unique() < 2:
        return np.empty(0)
    means = chosen.group_by("seed", "method").agg(pl.col(outcome.measure).mean())
    both = means.pivot("method", index="seed", values=outcome.measure).drop_nulls().sort("seed")
    gains: statistics.Array = outcome.gain(both[row["method"]].to_numpy() - both[other].to_numpy())
    return gains


def cells(rows: list[dict[str, Any]]) -> Cells:
    """Return the table as text."""
    outcome: Outcome = rows[0]["outcome"]
    span = f"Last {rows[0]['stretch']} tasks"
    columns: list[tuple[str, list[str]]] = [
        ("Method", [row["method"] for row in rows]),
        ("Seeds", [str(row["seeds"]) for row in rows]),
        (f"{span} ({outcome.heading})", [summary.outcome_cell(row, "last") for row in rows]),
        ("Gain over backprop", [summary.outcome_cell(row, "last_gain", "+") for row in rows]),
        (f"All tasks ({outcome.heading})", [summary.outcome_cell(row, "overall") for row in rows]),
        ("Gain in all tasks", [summary.outcome_cell(row, "overall_gain", "+") for row in rows]),
        ("Dormant (%)", [summary.from_to(row, "dormant", ".0f", 100) for row in rows]),
        ("Mean |w|", [summary.from_to(row, "magnitude", ".3f") for row in rows]),
        ("Replacements", [summary.count(row["replacements"]) for row in rows]),
        ("Seconds", [summary.count(row["seconds"], digits=1) for row in rows]),
    ]
    shown = [(heading, column) for heading, column in columns if any(column)]
    return Cells(
        [heading for heading, _ in shown], [list(row) for row in zip(*(column for _, column in shown), strict=True)]
    )


def sentence(curves: pl.DataFrame) -> str:
    """Say what the baseline did, and how many methods are better or worse than it, at their default and tuned.

    Better and worse are said only where the whole 95 % interval of the difference between runs of the same seeds says
    so. With so many methods, one or two such intervals may be wrong by chance.

    Raises:
        ConfigError: the table lacks a key column.
        StateError: it has no row.
    """
    rows = table(curves)
    baseline = curves.filter(pl.col("method") == BASELINE)
    first = summary.sentence(baseline) if not baseline.is_empty() else "The baseline has not run."
    others = [row for row in rows if row["method"] not in (BASELINE, ORACLE)]
    defaults = [row for row in others if not row["method"].endswith(TUNED)]
    best = {base(row["method"]): row for row in others}  # the tuned one follows its default
    parts = [_counted("At their defaults", defaults), _counted("At the best of their grids", list(best.values()))]
    return " ".join([first, *parts])


def _counted(what: str, rows: list[dict[str, Any]]) -> str:
    better = [row for row in rows if (row["last_gain_low"] or 0) > 0]
    worse = [row for row in rows if (row["last_gain_high"] or 0) < 0 or row["diverged"]]
    oracle = [row for row in better if (row["oracle_gain_low"] or 0) > 0]
    above = f", {len(oracle)} of them better than a fresh network for each task ({_named(oracle)})" if oracle else ""
    text = f"{what}, {len(better)} of {len(rows)} methods end better than backprop{above}; {len(worse)} end worse"
    return f"{text} ({_named(worse)})." if worse else f"{text}."


def _named(rows: Iterable[dict[str, Any]]) -> str:
    return ", ".join(base(row["method"]) for row in rows)
