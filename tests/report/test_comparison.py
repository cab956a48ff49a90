import numpy as np
import polars as pl
import pytest

from regrow.report import comparison, dot_plot, figures, summary
from regrow.report.comparison import base, cells, is_told_of_tasks, sentence, table
from regrow.report.dot_plot import draw
from regrow.report.figures import png, svg
from regrow.report.view import view_of

METHODS = {
    "backprop": 0.0,
    "full-reset": 0.06,
    "cbp": 0.02,
    "cbp tuned": 0.08,
    "l2": 0.01,
    "l2 tuned": 0.03,
    "redo": 0.0,
    "dash": -0.3,
    "fire": 0.05,
    "hard-reset": 0.02,
    "nap": -0.02,
    "swr": 0.0,
}


@pytest.fixture
def compared(curves):
    """Every method is better than backprop by a number of its own, plus what is the same for all runs of a seed."""
    study = curves(methods=list(METHODS), fall=0.1, noise=0)
    random = np.random.default_rng(0).normal(size=5)
    gain = pl.col("method").replace_strict(METHODS, return_dtype=pl.Float64)
    by_seed = pl.col("seed").replace_strict(dict(enumerate(0.1 * random)), return_dtype=pl.Float64)
    own = pl.when(gain != 0).then(0.001 * (pl.col("seed") * pl.col("method").str.len_chars()).mod(3)).otherwise(0)
    return study.with_columns(pl.col("accuracy") + gain + by_seed + own)


@pytest.fixture
def errors(compared):
    return compared.with_columns((1 - pl.col("accuracy")).alias("squared_error")).drop("accuracy")


def by_name(curves):
    return {row["method"]: row for row in table(curves)}


def test_gains_are_differences_between_runs_of_the_same_seed(compared):
    rows = by_name(compared)
    accuracy = compared.filter(pl.col("task") >= 40).group_by("method", "seed").agg(pl.col("accuracy").mean())
    of = {key[0]: part.sort("seed")["accuracy"].to_numpy() for key, part in accuracy.group_by("method")}
    for method in ("cbp", "cbp tuned", "dash"):
        row = rows[method]
        assert row["last_gain"] == pytest.approx((of[method] - of["backprop"]).mean())
        assert row["oracle_gain"] == pytest.approx((of[method] - of["full-reset"]).mean())
        assert row["last_gain_high"] - row["last_gain_low"] < 0.004  # though seeds differ by far more
        assert row["last_high"] - row["last_low"] > 0.04
    assert rows["backprop"]["last_gain"] is None and rows["full-reset"]["oracle_gain"] is None
    assert rows["l2"]["overall_gain"] == pytest.approx(0.01, abs=0.002)


def test_a_lower_error_is_a_gain(compared, errors):
    better, worse = by_name(errors)["cbp"], by_name(errors)["dash"]
    assert better["last_gain"] == pytest.approx(by_name(compared)["cbp"]["last_gain"])
    assert worse["last_gain_high"] < 0
    assert list(by_name(errors)) == list(by_name(compared))


def test_the_best_come_first_and_those_that_are_told_of_tasks_last(compared):
    assert list(by_name(compared)) == [
        "backprop", "full-reset", "cbp", "cbp tuned", "l2", "l2 tuned", "redo", "swr", "nap", "fire", "hard-reset",
        "dash",
    ]  # fmt: skip


def test_who_is_told_of_tasks():
    assert all(map(is_told_of_tasks, ("dash", "fire tuned", "full-reset", "hard-reset layers=2")))
    assert not any(map(is_told_of_tasks, ("cbp", "cbp tuned", "shrink-and-perturb", "my method")))
    assert (base("cbp tuned"), base("cbp")) == ("cbp", "cbp")


def test_the_sentence_counts(compared):
    said = sentence(compared)
    assert said.startswith("Backprop (")
    assert " lost plasticity over 60 tasks;" in said
    assert "At their defaults, 4 of 8 methods end better than backprop; 2 end worse (nap, dash)." in said
    assert (
        "At the best of their grids, 4 of 8 methods end better than backprop, 1 of them better than a fresh network "
        "for each task (cbp); 2 end worse (nap, dash)."
    ) in said


def test_a_run_that_diverged_is_told(errors):
    diverged = (pl.col("method") == "l2") & (pl.col("seed") == 1) & (pl.col("task") > 50)
    study = errors.with_columns(pl.when(diverged).then(float("nan")).otherwise("squared_error").alias("squared_error"))
    row = by_name(study)["l2"]
    assert (row["diverged"], row["last"], row["last_gain"]) == (1, None, None)
    found = {line[0]: line for line in cells(table(study)).rows}
    assert found["l2"][2] == "diverged: 1 of 5"
    assert "3 end worse (l2, nap, dash)" in sentence(study)
    assert "diverged" in {text.get_text() for text in draw(study, "").axes[0].texts}


def test_cells(errors):
    headings, rows = cells(table(errors))
    assert headings[:6] == [
        "Method", "Seeds", "Last 20 tasks (squared error)", "Gain over backprop", "All tasks (squared error)",
        "Gain in all tasks",
    ]  # fmt: skip
    assert rows[0][:2] == ["backprop", "5"] and rows[0][3] == ""
    assert rows[3][3].startswith("+0.08 (+0.0")


def test_many_methods_beside_a_baseline_become_dots(compared, curves):
    assert view_of(compared).draw is dot_plot.draw and view_of(compared).table is comparison.table
    few, no_baseline = curves(tasks=2), compared.filter(pl.col("method") != "backprop")
    for study in (few, no_baseline):
        assert view_of(study).draw is figures.draw and view_of(study).sentence is summary.sentence


def test_each_method_has_a_row_with_a_dot_for_default_and_best(compared):
    figure = draw(compared, "A title", "A caption.")
    last, overall = figure.axes
    assert [text.get_text() for text in last.get_yticklabels()] == [
        "cbp", "l2", "redo", "swr", "nap", "fire", "hard-reset", "dash",
    ]  # fmt: skip
    dots = [line for line in last.lines if line.get_marker() == "o"]
    assert len(dots) == 9  # of 10, dash is too far off
    found = {round(float(dot.get_xdata()[0]), 1) for dot in dots}
    assert found >= {round(100 * by_name(compared)[name]["last_gain"], 1) for name in ("cbp", "cbp tuned", "nap")}
    texts = [text.get_text() for text in last.texts]
    assert "full-reset" in texts and any(text.startswith("backprop ") and text.endswith(" %") for text in texts)
    assert any(text.startswith("−") for text in texts)  # where dash is, in words
    assert {"Not told of tasks", "Told when a task begins"} <= set(texts)
    assert overall.get_title("left") == "All 60 tasks"
    assert "means over 5 seeds" in figure.texts[-1].get_text().replace("\n", " ")


def test_the_dots_can_be_stored(errors):
    figure = draw(errors.filter(pl.col("seed") == 0), "")
    assert png(figure).startswith(b"\x89PNG") and svg(figure, "a < b").startswith("<svg")
    assert "One seed" in figure.texts[-1].get_text()
