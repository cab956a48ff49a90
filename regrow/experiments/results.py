"""The rows of many runs in one table, finished or not."""

from collections.abc import Iterable

import polars as pl

from regrow.errors import StoreError
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
    rows = read_finished(folder) if folder.is_done() else pl.DataFrame(folder.rows(), infer_schema_length=None)
    if rows.is_empty():
        return rows
    timings = pl.DataFrame(folder.timings()).select("task", pl.col("seconds").cum_sum())
    named = {"study": spec.study, "scale": spec.scale, "method": spec.method, "seed": spec.seed, "engine": spec.engine}
    own = pl.DataFrame([named])
    return own.join(rows.join(timings, on="task", how="left"), how="cross")


def read_finished(folder: RunFolder) -> pl.DataFrame:
    """Read the curve of a run that is done.

    Raises:
        StoreError: it is damaged.
    """
    try:
        return pl.read_parquet(folder.parquet)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise StoreError(
            f"{folder.parquet} is damaged ({error}): delete the folder {folder.path} to run it again."
        ) from error
