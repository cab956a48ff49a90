import numpy as np
import polars as pl
import pytest

from regrow.report.curves import matrix, settle
from regrow.report.summary import cells, sentence, stretch, table


@pytest.mark.parametrize(("tasks", "span"), [(200, 20), (40, 20), (39, 19), (5, 2), (1, 1)])
def test_stretch(tasks, span):
    assert stretch(tasks) == span


def test_a_row_holds_the_means_of_the_first_and_last_tasks(curves):
    study = curves()
    row = table(study)[0]
    values = matrix(study, "backprop", "accuracy")
    assert (row["method"], row["label"], row["seeds"], row["tasks"], row["stretch"]) == (
        "backprop",
        "Backprop",
        5,
        60,
        20,
    )
    assert row["first"] == pytest.approx(values[:, :20].mean()) and row["last"] == pytest.approx(values[:, -20:].mean())
    assert row["change"] == pytest.approx(row["last"] - row["first"])
    assert row["last_low"] < row["last"] < row["last_high"]
    assert row["dormant_first"] == pytest.approx(0.1 + 0.4 * 9.5 / 60)
    assert row["dormant_last"] == pytest.approx(0.1 + 0.4 * 49.5 / 60)
    assert row["rank_first"] == pytest.approx(20 - 5 * row["dormant_first"])
    assert row["magnitude_last"] == pytest.approx(0.05 + 0.1 * row["dormant_last"])
    assert row["replacements"] == 590 and row["seconds"] == pytest.approx(30)


def test_the_change_is_taken_within_a_run(curves):
    """Seeds that differ by much but all fall by the same must give a narrow interval of the change."""
    study = curves(methods=["backprop"], noise=0).with_columns(pl.col("accuracy") - 0.05 * pl.col("seed"))
    row = table(study)[0]
    assert row["last_high"] - row["last_low"] > 0.05
    assert row["change_high"] - row["change_low"] < 1e-9


def test_measures_that_nobody_recorded_leave_the_table(curves):
    study = curves().drop("effective_rank", "replacements")
    assert table(study)[0]["rank_first"] is None and table(study)[0]["replacements"] is None
    headings = cells(table(study)).headings
    assert headings[:4] == ["Method", "Seeds", "First 20 tasks (%)", "Last 20 tasks (%)"]
    assert headings[4:] == ["Change (points)", "Dormant (%)", "Mean |w|", "Seconds"]


def test_cells(curves):
    headings, rows = cells(table(curves(noise=0)))
    assert len(headings) == len(rows[0]) == 10
    assert rows[0][:5] == ["Backprop", "5", "87.7", "78.3 (78.3 to 78.3)", "−9.5 (−9.5 to −9.5)"]
    assert rows[1][4] == "+0.7 (+0.7 to +0.7)"
    assert rows[0][5:] == ["16 → 43", "19.2 → 17.9", "0.066 → 0.093", "590", "30"]


def test_one_seed_has_no_interval(curves):
    row = table(curves(seeds=1))[0]
    assert row["last_low"] is None and row["change_high"] is None
    assert "(" not in cells([row]).rows[0][3]


def test_a_loss_is_named_with_its_figures(curves):
    assert sentence(curves(noise=0)) == (
        "Backprop (87.7 → 78.3 %, dormant units 16 → 43 %) lost plasticity over 60 tasks; "
        "Continual backprop (90.2 → 90.8 %) and L2 (90.0 → 90.0 %) kept it; "
        "in brackets: online accuracy, first → last 20 tasks, 5 seeds."
    )


def test_no_loss_is_an_answer(curves):
    said = sentence(curves(fall=0.0))
    assert said.startswith("No loss of plasticity seen over 60 tasks with Backprop (") and "lost" not in said


@pytest.mark.parametrize("share", [0.0, 0.95])
def test_dormant_units_decide_nothing(curves, share):
    """With hardly any a network may have lost plasticity, and with nearly all it may have kept it."""
    dormant = pl.lit(share).alias("dormant")
    lost, kept = (sentence(curves(fall=fall).with_columns(dormant)) for fall in (0.14, 0.0))
    assert " lost plasticity over 60 tasks" in lost and "kept it" not in lost
    assert kept == sentence(curves(fall=0.0)) and kept.startswith("No loss of plasticity seen")


def test_a_fall_below_one_point_is_no_loss(curves):
    assert sentence(curves(methods=["backprop"], fall=0.008, noise=0)).startswith("No loss of plasticity seen")


def test_a_fall_that_only_some_seeds_have_is_not_decided(curves):
    falls = pl.when(pl.col("seed") == 0).then(0.3 * pl.col("task") / 60).otherwise(-0.01 * pl.col("task") / 60)
    study = curves(methods=["backprop", "cbp"], fall=0.0).with_columns(
        pl.when(pl.col("method") == "backprop").then(pl.col("accuracy") - falls).otherwise("accuracy").alias("accuracy")
    )
    assert "; not decided for Backprop (" in sentence(study)
    alone = sentence(study.filter(pl.col("method") == "backprop"))
    assert alone.startswith("Too much noise or too few seeds to say if plasticity was lost over 60 tasks: Backprop (")


def test_one_seed_is_not_enough_to_judge(curves):
    said = sentence(curves(seeds=1))
    assert said.startswith("With one seed nothing is sure; over 60 tasks this was seen: Backprop (")
    assert said.endswith("first → last 20 tasks, 1 seed.") and "lost" not in said


def test_one_task_is_not_enough_to_judge(curves):
    assert sentence(curves(tasks=1)) == "There is one task only so far: a loss of plasticity shows over many."


def test_without_accuracy(curves):
    assert "nothing can be said about plasticity" in sentence(curves().drop("accuracy"))


def test_a_method_that_did_fewer_tasks_is_not_said_to_have_done_all(begun):
    said = sentence(settle(begun).curves)
    assert "L2 (90.0 → 90.0 % in 30 tasks)" in said and said.endswith("first → last tasks, 4 to 5 seeds.")


def test_tasks_that_were_not_measured_are_left_out_of_the_means(curves):
    measured = pl.when(pl.col("task") % 10 == 0).then("dormant").alias("dormant")
    row = table(curves().with_columns(measured))[0]
    assert row["dormant_first"] == pytest.approx(np.mean([0.1, 0.1 + 0.4 * 10 / 60]))


def as_errors(study):
    return study.with_columns((10 * (1 - pl.col("accuracy"))).alias("squared_error")).drop("accuracy")


def test_of_an_error_less_is_better(curves):
    study = as_errors(curves(noise=0))
    assert sentence(study) == (
        "Backprop (1.23 → 2.17, dormant units 16 → 43 %) lost plasticity over 60 tasks; "
        "Continual backprop (0.98 → 0.92) and L2 (1.00 → 1.00) kept it; "
        "in brackets: squared error, first → last 20 tasks, 5 seeds."
    )
    headings, rows = cells(table(study))
    assert headings[2:5] == [
        "First 20 tasks (squared error)",
        "Last 20 tasks (squared error)",
        "Change (squared error)",
    ]
    assert rows[0][2:5] == ["1.23", "2.17 (2.17 to 2.17)", "+0.95 (+0.95 to +0.95)"]


def test_a_run_whose_error_is_no_number_is_not_averaged_away(curves):
    study = as_errors(curves()).with_columns(
        pl.when((pl.col("method") == "l2") & (pl.col("seed") == 2) & (pl.col("task") == 59))
        .then(float("inf"))
        .otherwise("squared_error")
        .alias("squared_error")
    )
    row = table(study)[2]
    assert (row["method"], row["diverged"], row["last"], row["change"]) == ("l2", 1, None, None)
    assert cells(table(study)).rows[2][3] == "diverged: 1 of 5"
    assert "L2" not in sentence(study)
