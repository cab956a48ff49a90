"""What figures show, as a small table to keep beside them: means over seeds in bins of tasks, with their bands."""

import io
from collections.abc import Iterable
from pathlib import Path

import polars as pl

from regrow.experiments.store import write_atomically
from regrow.report import curves as curve_table
from regrow.report import statistics

_KEYS = ("study", "scale", "method", "seed", "task")


def binned(curves: pl.DataFrame, points: int = 50) -> pl.DataFrame:
    """Return one row for each method, measure and bin of tasks, of all that was recorded.

    Columns: study, scale, method, measure, seeds (how many), first_task and tasks (where the bin begins and how many
    tasks are in it), mean, low and high (95 % bootstrap interval of the mean, as in figures) and standard_error (of the
    mean, ddof 1): float32, null with one seed. A mean is null where a seed has no finite value in the bin.

    Args:
        curves: one row for each task of each run; `settle` it first if runs are unfinished.
        points: at most so many bins.

    Raises:
        ConfigError: the table lacks a key column.
        StateError: it has no row.
    """
    curve_table.check(curves)
    measures = [name for name in curves.columns if name not in _KEYS and curves.schema[name].is_numeric()]
    width = statistics.bin_width(curve_table.tasks(curves), points)
    tables = [
        _rows(curves.filter(pl.col("method") == method), method, measure, width)
        for method in curve_table.methods(curves)
        for measure in measures
        if curve_table.has(curves.filter(pl.col("method") == method), measure)
    ]
    names = [name for name in ("study", "scale") if name in curves.columns]
    return pl.concat(tables).select(*(pl.lit(curves[name][0]).alias(name) for name in names), pl.all())


def write_curves(path: Path, studies: Iterable[pl.DataFrame]) -> None:
    """Write what `binned` returns for each of several tables, one below the other, as parquet.

    Raises:
        StoreError: it cannot be written.
    """
    file = io.BytesIO()
    pl.concat([binned(curves) for curves in studies], how="diagonal").write_parquet(file, compression_level=19)
    write_atomically(path, file.getvalue())


def _rows(own: pl.DataFrame, method: str, measure: str, width: int) -> pl.DataFrame:
    values = statistics.bin_means(curve_table.matrix(own, method, measure), width)
    tasks = curve_table.tasks(own)
    first = list(range(0, tasks, width))
    mean, low, high = statistics.mean_interval(values)
    numbers = {
        "mean": mean,
        "low": low,
        "high": high,
        "standard_error": statistics.standard_error(values).high - mean,
    }
    return pl.DataFrame(
        {
            "method": [method] * len(first),
            "measure": [measure] * len(first),
            "seeds": pl.Series([len(values)] * len(first), dtype=pl.UInt16),
            "first_task": pl.Series(first, dtype=pl.UInt32),
            "tasks": pl.Series([min(width, tasks - begin) for begin in first], dtype=pl.UInt32),
            **{name: pl.Series(column, dtype=pl.Float32).fill_nan(None) for name, column in numbers.items()},
        }
    )
