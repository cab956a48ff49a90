"""The rows of many runs in one table, finished or not."""

import io
from collections.abc import Iterable

import polars as pl

from regrow.experiments.store import RunFolder


def read_curves(folders: Iterable[RunFolder]) -> pl.DataFrame:
    """Read the rows of runs: one row for each task that has been done.

    Returns:
        study, scale, method, seed, engine and task; the columns that the runs measured; `seconds` of training
        from the start of the run to the end of the task.

    Raises:
        StoreError: a folder is damaged.
    """
    tables = [table for folder in folders if (table := _read(folder)).height]
    return pl.concat(tables, how="diagonal_relaxed") if tables else pl.DataFrame()


def _read(folder: RunFolder) -> pl.DataFrame:
    spec = folder.spec()
    rows = read_rows(folder)
    if rows.is_empty():
        return rows
    # A row that is missing leaves `seconds` empty: they are no result.
    schema = {"task": pl.Int64, "seconds": pl.Float64}
    timings = pl.DataFrame(folder.timings(), schema=schema).with_columns(pl.col("seconds").cum_sum())
    if spec.beside:  # each value is a list, of a number for each seed
        rows = rows.with_columns(seed=pl.lit(list(spec.seeds)))
        rows = rows.explode([name for name in rows.columns if name != "task"]).sort("seed", "task")
    else:
        rows = rows.with_columns(seed=pl.lit(spec.seed, pl.Int64))
    own = pl.DataFrame([{"study": spec.study, "scale": spec.scale, "method": spec.method, "engine": spec.engine}])
    table = own.join(rows.join(timings, on="task", how="left"), how="cross")
    first = ("study", "scale", "method", "seed", "engine")
    return table.select(*first, pl.exclude(first))


def read_rows(folder: RunFolder) -> pl.DataFrame:
    """Read the rows of one run, whether it is running, stopped or done; none if it has not begun.

    Raises:
        StoreError: the folder is damaged.
    """
    if not folder.is_done():
        rows = folder.rows()
        if not folder.is_done():  # else it ended meanwhile, and its rows may have been gone already
            return pl.DataFrame(rows, infer_schema_length=None)
    return pl.read_parquet(io.BytesIO(folder.finished()))
