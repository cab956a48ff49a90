import io
from xml.etree import ElementTree

import numpy as np
import polars as pl
import pytest
from matplotlib.colors import to_hex
from PIL import Image

from regrow.errors import ConfigError, StateError
from regrow.report.appearance import colours
from regrow.report.figures import draw, png, svg


def panels(figure):
    return {axes.get_title("left"): axes for axes in figure.axes if axes.get_visible()}


def caption_of(figure):
    return " ".join(figure.texts[-1].get_text().split())


def test_four_panels_with_a_line_and_a_band_for_each_method(curves):
    figure = draw(curves(), "A title", "A caption.")
    assert list(panels(figure)) == [
        "Online accuracy (%)", "Dormant units (%)", "Effective rank of the activations", "Mean weight magnitude"
    ]  # fmt: skip
    for axes in panels(figure).values():
        assert {to_hex(line.get_color()) for line in axes.lines} == set(colours(["backprop", "cbp", "l2"]).values())
        assert len(axes.collections) == 3
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["Backprop", "Continual backprop", "L2"]
    assert figure.texts[0].get_text() == "A title"


def test_the_legend_makes_room_for_many_methods(curves):
    few, many = (draw(curves(methods=list("abcdefgh")[:count], tasks=3), "A title") for count in (5, 8))
    assert many.get_figheight() > few.get_figheight()
    many.canvas.draw()
    heading = many.axes[0].get_tightbbox(for_layout_only=False)
    assert many.legends[0].get_window_extent().y0 > heading.y1


def test_lines_are_means_over_seeds_and_bins(curves):
    study = curves()
    line = panels(draw(study, ""))["Online accuracy (%)"].lines[-1]
    own = study.filter(pl.col("method") == "backprop").group_by("task").agg(pl.col("accuracy").mean()).sort("task")
    assert line.get_ydata() == pytest.approx(100 * own["accuracy"].to_numpy().reshape(30, 2).mean(1))
    assert np.array_equal(line.get_xdata(), np.arange(1.5, 60, 2))


def test_the_caption_says_seeds_and_bins(curves):
    assert caption_of(draw(curves(), "", "What it is.")) == (
        "What it is. Lines are means over 5 seeds, bands 95 % bootstrap intervals of these means; "
        "a point is the mean of 2 tasks."
    )
    assert caption_of(draw(curves(tasks=10), "")).endswith("intervals of these means.")
    uneven = curves(tasks=10).filter((pl.col("method") != "l2") | (pl.col("seed") < 2))
    assert "over 2 to 5 seeds" in caption_of(draw(uneven, ""))


def test_one_seed_has_no_band_and_the_caption_says_so(curves):
    figure = draw(curves(seeds=1), "")
    assert caption_of(figure) == "One seed, so there are no bands; a point is the mean of 2 tasks."
    png(figure)


@pytest.mark.parametrize(("dropped", "number"), [(["dormant"], 3), (["dormant", "effective_rank", "accuracy"], 1)])
def test_measures_that_nobody_recorded_have_no_panel(curves, dropped, number):
    figure = draw(curves(tasks=3).drop(dropped), "")
    assert len(panels(figure)) == number
    png(figure)


def test_one_task_is_drawn_as_a_point(curves):
    assert panels(draw(curves(tasks=1), ""))["Online accuracy (%)"].lines[0].get_marker() == "o"


def test_the_share_of_dormant_units_starts_at_0_even_if_there_are_none(curves):
    axes = panels(draw(curves(methods=["cbp"]), ""))["Dormant units (%)"]
    assert axes.get_ylim() == (0, 5)


def test_png_is_2000_pixels_wide_and_repeatable(curves):
    study = curves()
    first, second = (png(draw(study, "A title", "A caption.")) for _ in range(2))
    picture = Image.open(io.BytesIO(first))
    assert picture.width == 2000 and 1200 < picture.height < 1700
    assert first == second


def test_svg_takes_its_ink_from_the_page_and_loads_nothing(curves):
    text = svg(draw(curves(), "A title", "A caption."), 'what "is" seen & <why>')
    root = ElementTree.fromstring(text)
    assert root.get("role") == "img" and root.get("aria-label") == 'what "is" seen & <why>'
    assert "var(--ink)" in text and "var(--muted)" in text and "var(--grid)" in text
    assert "#1f2328" not in text and "<image" not in text and "url(http" not in text
    assert text == svg(draw(curves(), "A title", "A caption."), 'what "is" seen & <why>')


def test_a_dollar_sign_is_a_dollar_sign(curves):
    figure = draw(curves(methods=["a$_b$"], tasks=3), "$x^$")
    assert png(figure) != png(draw(curves(methods=["a_b"], tasks=3), "x^"))


def test_nothing_to_draw(curves):
    with pytest.raises(
        ConfigError, match="have none of accuracy, test_accuracy, squared_error, return, dormant, effective_rank"
    ):
        draw(curves().drop("accuracy", "dormant", "effective_rank", "weight_magnitude"), "")
    with pytest.raises(StateError, match="nothing to report yet"):
        draw(curves().clear(), "")
