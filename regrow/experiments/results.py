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
    named = {"study": spec.study, "scale": spec.scale, "method": spec.method, "seed": spec.seed, "engine": spec.engine}
    own = pl.DataFrame([named])
    return own.join(rows.join(timings, on="task", how="left"), how="cross")


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
