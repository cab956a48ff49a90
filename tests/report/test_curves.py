import numpy as np
import polars as pl
import pytest

from regrow.errors import ConfigError, StateError
from regrow.report.curves import check, has, matrix, methods, seeds, settle, tasks


def test_a_matrix_has_a_row_for_each_seed_and_a_column_for_each_task(curves):
    table = curves(seeds=3, tasks=4).sample(fraction=1, shuffle=True, seed=0).with_columns(pl.col("seed") * 7)
    values = matrix(table, "cbp", "replacements")
    assert values.tolist() == [[0, 10, 20, 30]] * 3


def test_what_was_not_recorded_is_nan(curves):
    table = curves(seeds=2, tasks=4).filter(~((pl.col("seed") == 1) & (pl.col("task") == 2)))
    table = table.with_columns(pl.when(pl.col("task") == 0).then(None).otherwise("accuracy").alias("accuracy"))
    assert np.isnan(matrix(table, "cbp", "accuracy")).tolist() == [
        [True, False, False, False],
        [True, False, True, False],
    ]


def test_counts(curves):
    table = curves(seeds=3, tasks=4)
    assert methods(table) == ["backprop", "cbp", "l2"] and seeds(table, "l2") == 3 and tasks(table) == 4
    assert has(table, "dormant") and not has(table, "stable_rank")
    assert not has(table.with_columns(pl.lit(None).alias("stable_rank")), "stable_rank")


def test_a_complete_study_stays_as_it_is(curves):
    table = curves()
    settled = settle(table, planned_tasks=60, planned_runs=15)
    assert settled.remark == ""
    assert settled.curves.equals(table.sort("method", "seed", "task"))


def test_unfinished_runs_are_left_out_and_a_method_without_finished_ones_is_cut_to_its_shortest(begun):
    settled = settle(begun)
    lengths = {method: {len(matrix(settled.curves, method, "accuracy")[0])} for method in methods(settled.curves)}
    assert lengths == {"backprop": {60}, "cbp": {60}, "l2": {30}}
    assert {method: seeds(settled.curves, method) for method in lengths} == {"backprop": 4, "cbp": 4, "l2": 5}
    assert np.isfinite(matrix(settled.curves, "l2", "accuracy")).all()
    assert settled.remark == (
        "Incomplete: 7 of 15 runs are not finished. None is of L2, whose curve ends where the shortest run ends. "
        "Of the other methods only finished runs are shown."
    )


def test_runs_that_have_not_begun_are_counted_if_the_plan_is_known(curves):
    assert settle(curves(), planned_runs=20).remark == "Incomplete: 5 of 20 runs are not finished."
    remark = settle(curves(), planned_tasks=80).remark
    assert remark.startswith("Incomplete: 15 of 15 runs are not finished. None is of Backprop, Continual backprop, L2")


def test_nothing_yet():
    with pytest.raises(StateError, match="nothing to report yet: no run has finished its first task"):
        check(pl.DataFrame())


def test_a_key_column_is_missing(curves):
    with pytest.raises(ConfigError, match="and lack seed: pass one row for each task of each run"):
        check(curves().drop("seed"))
