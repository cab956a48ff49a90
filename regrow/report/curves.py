"""The table of all runs of a study: which runs count, and one measure of one method as an array."""

from typing import NamedTuple

import numpy as np
import polars as pl

from regrow.errors import ConfigError, StateError
from regrow.report.appearance import in_order, label
from regrow.report.statistics import Array

_KEYS = ("study", "method", "seed", "task")


class Settled(NamedTuple):
    """The runs that count, and what is to be said about those that do not."""

    curves: pl.DataFrame
    remark: str


def check(curves: pl.DataFrame) -> None:
    """Refuse a table from which nothing can be drawn.

    Raises:
        ConfigError: a key column is missing.
        StateError: there is no row yet.
    """
    if curves.is_empty():
        raise StateError("There is nothing to report yet: no run has finished its first task. Wait, or run the study.")
    missing = [key for key in _KEYS if key not in curves.columns]
    if missing:
        raise ConfigError(
            f"The curves have the columns {', '.join(curves.columns)} and lack {', '.join(missing)}: "
            "pass one row for each task of each run."
        )


def methods(curves: pl.DataFrame) -> list[str]:
    """Return the names of the methods that ran, in the order of every table and legend."""
    return in_order(curves["method"].unique().to_list())


def seeds(curves: pl.DataFrame, method: str) -> int:
    """Return how many runs of `method` there are."""
    return curves.filter(pl.col("method") == method)["seed"].n_unique()


def tasks(curves: pl.DataFrame) -> int:
    """Return the number of tasks of the longest run."""
    return 1 + int(curves["task"].to_numpy().max())


def has(curves: pl.DataFrame, measure: str) -> bool:
    """Say whether any run recorded `measure`."""
    return measure in curves.columns and curves[measure].is_not_null().any()


def matrix(curves: pl.DataFrame, method: str, measure: str) -> Array:
    """Return one measure of one method: float64 [seeds, tasks], NaN where it was not recorded."""
    rows = curves.filter(pl.col("method") == method)
    places = rows["seed"].rank("dense").to_numpy().astype(np.int64) - 1
    values = np.full((places.max() + 1, tasks(rows)), np.nan)
    values[places, rows["task"].to_numpy()] = rows[measure].cast(pl.Float64).to_numpy()
    return values


def settle(curves: pl.DataFrame, planned_tasks: int | None = None, planned_runs: int | None = None) -> Settled:
    """Keep what can be averaged fairly: finished runs; of a method without one, the tasks that all its runs did.

    Args:
        curves: one row for each task of each run.
        planned_tasks: how long a finished run is; if unknown, as long as the longest one.
        planned_runs: how many runs the study has; if unknown, those that began.
    """
    full = planned_tasks or tasks(curves)
    lengths = curves.group_by("method", "seed").agg((pl.col("task").max() + 1).alias("length"))
    unfinished = lengths.filter(pl.col("length") < full).height
    not_begun = max(0, (planned_runs or 0) - lengths.height)
    # With a finished run the shortest *finished* one counts, else the shortest of all.
    common = lengths.group_by("method").agg(
        pl.when((pl.col("length") >= full).any()).then(full).otherwise(pl.col("length").min()).alias("common")
    )
    kept = (
        curves.join(lengths, on=["method", "seed"])
        .join(common, on="method")
        .filter((pl.col("length") >= pl.col("common")) & (pl.col("task") < pl.col("common")))
        .select(curves.columns)
        .sort("method", "seed", "task")
    )
    if not unfinished and not not_begun:
        return Settled(kept, "")
    remark = f"Incomplete: {unfinished + not_begun} of {lengths.height + not_begun} runs are not finished."
    short = in_order(common.filter(pl.col("common") < full)["method"].to_list())
    if short:
        remark += f" None is of {', '.join(map(label, short))}, whose curve ends where the shortest run ends."
    if unfinished and len(short) < common.height:
        remark += " Of the other methods only finished runs are shown."
    return Settled(kept, remark)
