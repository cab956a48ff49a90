from dataclasses import replace
from importlib import resources

import numpy as np
import polars as pl
import pytest
from matplotlib.colors import to_hex

from regrow.errors import StateError
from regrow.experiments.counterpart import ArticlePanel, Counterpart
from regrow.experiments.study import Study
from regrow.report.appearance import colours_in_turn
from regrow.report.article import draw, line
from regrow.report.published import published_curves

PANEL = ArticlePanel("Accuracy (%)", "accuracy", ("cbp", "backprop"), bin=10, factor=100)


def caption_of(figure):
    return " ".join(figure.texts[-1].get_text().split())


def legend_of(figure):
    (legend,) = figure.legends
    return [text.get_text() for text in legend.get_texts()]


def test_a_line_is_the_mean_of_the_seeds_in_the_bins_of_the_article(curves):
    table = curves(seeds=4, tasks=60)
    found = line(table, replace(PANEL, x_factor=0.01, x_offset=2, first=10, last=50), "backprop", "standard error")
    own = table.filter(pl.col("method") == "backprop").sort("seed", "task")["accuracy"].to_numpy().reshape(4, 60)
    bins = 100 * own[:, 10:50].reshape(4, 4, 10).mean(axis=2)
    np.testing.assert_allclose(found.interval.mean, bins.mean(axis=0))
    error = bins.std(axis=0, ddof=1) / 2
    np.testing.assert_allclose(found.interval.high - found.interval.mean, error)
    np.testing.assert_allclose(found.interval.mean - found.interval.low, error)
    np.testing.assert_allclose(found.x, 2 + 0.01 * np.array([15, 25, 35, 45]))
    assert found.seeds == 4


def test_single_tasks_stand_where_their_number_is(curves):
    found = line(curves(tasks=5), replace(PANEL, bin=1, x_factor=5, x_offset=5), "cbp", "bootstrap")
    assert found.x.tolist() == [5, 10, 15, 20, 25]
    assert (found.interval.low < found.interval.mean).all() and (found.interval.mean < found.interval.high).all()


def test_an_arm_minus_another_of_the_same_seed(curves):
    table = curves(seeds=3, tasks=20)
    found = line(table, replace(PANEL, relative_to="l2", factor=1.0), "backprop", "standard error")
    wide = table.pivot("method", index=["seed", "task"], values="accuracy").sort("seed", "task")
    expected = (wide["backprop"] - wide["l2"]).to_numpy().reshape(3, 2, 10).mean(axis=2)
    np.testing.assert_allclose(found.interval.mean, expected.mean(axis=0))
    np.testing.assert_allclose(found.interval.high - found.interval.mean, expected.std(axis=0, ddof=1) / 3**0.5)


def test_what_has_not_been_run_is_said(curves):
    figure = draw(curves(methods=["cbp"], seeds=1), Counterpart("ED 1", "title", (PANEL,)), "A caption.")
    assert caption_of(figure) == "A caption. One seed, so there are no bands. Not run: Backprop."
    assert line(curves(methods=["cbp"]), PANEL, "backprop", "bootstrap") is None
    assert line(curves(), replace(PANEL, measure="article_rank"), "cbp", "bootstrap") is None
    with pytest.raises(StateError, match="^None of what ED 1 compares has been run yet"):
        draw(curves(methods=["l2"]), Counterpart("ED 1", "title", (PANEL,)))


def test_what_a_panel_lacks_is_said(curves):
    table = curves(methods=["backprop", "cbp"], seeds=2, tasks=20)
    wide = replace(PANEL, heading="Gap, wide", relative_to="l2")
    narrow = replace(PANEL, heading="High", limits=(88, 100))
    other = replace(PANEL, heading="Rank", measure="article_rank")
    text = caption_of(draw(table, Counterpart("ED 1", "title", (wide, narrow, other))))
    assert text.startswith("Lines are means over 2 seeds, bands ±1 standard error of these means. No line in ")
    assert "No line in “Gap, wide”: no seed that L2 has too." in text
    assert "In part beyond the axis of “High”: Backprop." in text
    assert "No line in “Rank”: not measured." in text


def test_where_a_run_diverged_there_is_no_point(curves):
    broken = (pl.col("method") == "cbp") & (pl.col("seed") == 1) & (pl.col("task") >= 30)
    table = curves(seeds=3).with_columns(accuracy=pl.when(broken).then(float("nan")).otherwise("accuracy"))
    assert line(table, PANEL, "cbp", "bootstrap").x.tolist() == [5, 15, 25]
    assert not line(table, replace(PANEL, last=30), "cbp", "bootstrap").diverged
    assert caption_of(draw(table, Counterpart("ED 1", "title", (PANEL,)))).endswith(
        "Without the tasks in which a run had no finite value in “Accuracy (%)”: Continual backprop."
    )


def test_the_legend_says_how_many_seeds_each_has_and_what_is_published_only(curves):
    table = pl.concat([curves(methods=["cbp"], seeds=3), curves(methods=["l2"], seeds=1)])
    panel = replace(PANEL, arms=("cbp", "l2", "backprop step=0.01", "linear"), published="Fig. 1c")
    figure = draw(table, Counterpart("Fig. 1c", "title", (panel,)))
    assert legend_of(figure) == [
        "Continual backprop (3 seeds)", "L2 (1 seed)", "backprop step=0.01 (published only)", "published",
    ]  # fmt: skip
    assert "Lines are means over 1 to 3 seeds, as the legend says" in caption_of(figure)


def test_more_arms_than_colours_have_a_legend_in_each_panel(curves):
    groups = [tuple(f"{name} {number}" for number in range(5)) for name in "abc"]
    table = curves(methods=[arm for arms in groups for arm in arms], seeds=2, tasks=10)
    panels = tuple(replace(PANEL, arms=arms) for arms in groups)
    figure = draw(table, Counterpart("ED 2", "title", panels))
    assert figure.legends == []
    for axes, arms in zip(figure.axes, groups, strict=True):
        assert [text.get_text() for text in axes.get_legend().get_texts()] == list(arms)
        assert [to_hex(each.get_color()) for each in axes.lines] == list(colours_in_turn(arms).values())


def test_a_legend_within_a_panel_covers_no_line(curves):
    """Where a panel has no free corner, its axis is made longer."""
    names = [f"arm {number}" for number in range(9)]
    wide = [f"step={number}" for number in range(9)]
    table = pl.concat([curves(methods=["backprop"], seeds=2, tasks=40)] * 18)
    table = table.with_columns(
        pl.Series("method", [name for name in names + wide for _ in range(80)]),
        # Over the whole panel, from the bottom to the top.
        pl.Series(
            "accuracy", [0.1 * (place + task % 2) for place in range(18) for _ in range(2) for task in range(40)]
        ),
    )
    panels = tuple(ArticlePanel(f"Panel {arms[0]}", "accuracy", tuple(arms)) for arms in (names, wide))
    figure = draw(table, Counterpart("ED 2", "title", panels))
    assert not figure.legends
    for axes in figure.axes:
        box = axes.get_legend().get_window_extent()
        assert axes.lines
        for drawn in axes.lines:
            assert not box.count_contains(drawn.get_transform().transform(drawn.get_xydata()))
        assert axes.get_window_extent().contains(box.x0, box.y0) and axes.get_window_extent().contains(box.x1, box.y1)


@pytest.mark.parametrize(("count", "longest"), [(3, 12), (10, 30)])
def test_nothing_lies_outside_the_picture_or_on_something_else(count, longest, curves):
    arms = tuple(f"arm {number}".ljust(longest, "x") for number in range(count))
    panel = replace(PANEL, heading="Rank of the features on the next classes (% of them)", arms=arms)
    figure = draw(curves(methods=arms, seeds=2, tasks=10), Counterpart("ED 2", "title", (panel,) * 4), "Words. " * 30)
    figure.canvas.draw()
    renderer = figure.canvas.get_renderer()
    legend = figure.legends[0].get_window_extent(renderer)
    panels = [axes.get_tightbbox(renderer) for axes in figure.axes if axes.get_visible()]
    texts = [text.get_window_extent(renderer) for text in figure.texts]
    parts = [legend, *panels, *texts]
    for part in parts:
        assert part.x0 >= 0 and part.y0 >= 0 and part.x1 <= figure.bbox.width and part.y1 <= figure.bbox.height
    for number, part in enumerate(parts):
        assert not any(part.overlaps(other) for other in parts[number + 1 :])


def test_published_values_stand_beside_ours_in_the_same_colour(curves):
    arms = ("backprop step=0.01", "cbp")
    panel = replace(PANEL, arms=arms, published="Fig. 1c", limits=(70, 92))
    figure = draw(curves(methods=arms), Counterpart("Fig. 1c", "title", (panel,)))
    palette = colours_in_turn(arms)
    lines = figure.axes[0].lines
    assert [to_hex(each.get_color()) for each in lines] == [palette[arm] for arm in arms for _ in range(2)]
    published = published_curves("Fig. 1c")
    assert lines[0].get_ydata().tolist() == published[arms[0]]["value"].to_list()
    assert lines[2].get_ydata().tolist() == published["cbp"]["value"].to_list()
    assert figure.axes[0].get_ylim() == (70, 92)
    assert legend_of(figure) == [arms[0], "Continual backprop", "published"]
    assert "5 seeds, bands ±1 standard error" in caption_of(figure) and "published curves" in caption_of(figure)


def test_between_two_published_values_no_line_is_drawn(curves):
    panel = replace(PANEL, arms=("relu step=0.01",), published="ED 2, relu")
    axes = draw(curves(methods=panel.arms), Counterpart("ED 2", "", (panel,))).axes[0]
    assert axes.lines[0].get_linestyle() == "None" and axes.lines[0].get_marker() == "D"


def test_the_last_published_values_are_those_of_the_article():
    ends = {name: rows["value"][-1] for name, rows in published_curves("Fig. 1c").items()}
    assert ends == {"backprop step=0.01": 74.0, "l2": 89.2, "shrink-and-perturb": 89.2, "cbp": 90.4}
    ends = {name: rows["value"][-1] for name, rows in published_curves("ED 1a").items()}
    assert ends == {"retrained": 76.05, "cbp": 76.12, "shrink-and-perturb": 74.5, "head-reset": 73.7, "base": 71.1}
    assert published_curves("Fig. 2c")["base"]["x"].to_list() == [5, 10, 15, 20, 30, 40, 50, 60, 70, 80, 90, 100]
    sources = {source for rows in published_curves("Fig. 1b").values() for source in rows["source"]}
    assert sources == {"F", "T"}
    with pytest.raises(KeyError):
        published_curves("Fig. 9")


def test_every_published_panel_that_a_study_names_is_there_with_an_arm_of_it():
    import regrow.studies  # noqa: F401  registers all studies

    named = 0
    for study in Study.registry.values():
        for scale in study.scales:
            arms = study.arms(scale)
            for counterpart in study.counterparts(scale):
                for panel in counterpart.panels:
                    assert set(panel.arms) <= set(arms), (study.name, scale, panel.heading)
                    if panel.published:
                        named += 1
                        assert set(published_curves(panel.published)) & set(panel.arms)
    assert named >= 8


def test_the_table_is_in_the_package():
    assert (resources.files("regrow.report") / "data" / "published.csv").is_file()
