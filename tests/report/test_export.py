import numpy as np
import polars as pl
import pytest

from regrow.errors import StateError, StoreError
from regrow.report.export import binned, write_curves
from regrow.report.statistics import mean_interval


def test_a_bin_is_what_the_figure_shows(curves):
    table = curves(seeds=4, tasks=60)
    found = binned(table)
    assert found.columns == [
        "study", "scale", "method", "measure", "seeds", "first_task", "tasks",
        "mean", "low", "high", "standard_error",
    ]  # fmt: skip
    own = found.filter(pl.col("method") == "backprop", pl.col("measure") == "accuracy")
    values = table.filter(pl.col("method") == "backprop").sort("seed", "task")["accuracy"].to_numpy()
    bins = values.reshape(4, 30, 2).mean(axis=2)
    assert (
        own["first_task"].to_list() == list(range(0, 60, 2)) and set(own["tasks"]) == {2} and set(own["seeds"]) == {4}
    )
    for name, expected in zip(("mean", "low", "high"), mean_interval(bins), strict=True):
        np.testing.assert_allclose(own[name].to_numpy(), expected, rtol=1e-6)
    np.testing.assert_allclose(own["standard_error"].to_numpy(), bins.std(axis=0, ddof=1) / 2, rtol=1e-4)
    assert set(found["method"]) == {"backprop", "cbp", "l2"} and found.height == 3 * 6 * 30


def test_the_last_bin_may_be_shorter(curves):
    found = binned(curves(methods=["cbp"], tasks=7), points=4).filter(pl.col("measure") == "accuracy")
    assert found["first_task"].to_list() == [0, 2, 4, 6] and found["tasks"].to_list() == [2, 2, 2, 1]


def test_what_was_not_recorded_has_no_row_and_what_is_not_finite_no_mean(curves):
    table = curves(seeds=2, tasks=4).with_columns(
        dormant=pl.when(pl.col("method") == "backprop").then("dormant"),
        accuracy=pl.when(pl.col("method") == "l2", pl.col("seed") == 0, pl.col("task") > 1)
        .then(float("inf"))
        .otherwise("accuracy"),
    )
    found = binned(table)
    assert set(found.filter(pl.col("measure") == "dormant")["method"]) == {"backprop"}
    means = found.filter(pl.col("method") == "l2", pl.col("measure") == "accuracy")["mean"]
    assert means.is_null().to_list() == [False, False, True, True]


def test_of_one_seed_there_is_no_band(curves):
    found = binned(curves(seeds=1, tasks=3))
    assert found["mean"].null_count() == 0
    assert all(found[name].null_count() == found.height for name in ("low", "high", "standard_error"))


def test_nothing_gives_no_table():
    with pytest.raises(StateError, match="nothing to report yet"):
        binned(pl.DataFrame())


def test_several_studies_in_one_small_file(tmp_path, curves):
    first, second = curves(tasks=300), curves(methods=["cbp"]).with_columns(study=pl.lit("other"))
    path = tmp_path / "curves.parquet"
    write_curves(path, [first, second])
    assert pl.read_parquet(path).equals(pl.concat([binned(first), binned(second)]))
    assert path.stat().st_size < 40_000
    with pytest.raises(StoreError, match="missing"):
        write_curves(tmp_path / "missing" / "curves.parquet", [first])
