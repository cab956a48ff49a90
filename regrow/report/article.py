"""A figure of the article, drawn of our runs with its axes and bins, beside its own curves where sizes match."""

import math
import textwrap
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from regrow.errors import StateError
from regrow.experiments.counterpart import ArticlePanel, Counterpart, Spread
from regrow.report import curves as curve_table
from regrow.report import statistics
from regrow.report.appearance import colours_in_turn, label
from regrow.report.published import published_curves
from regrow.report.statistics import Array, Interval
from regrow.report.style import GRID, INK, MUTED, STYLE

# Inches.
_PANEL_WIDTH, _PANEL_HEIGHT, _GAP, _HEAD, _FOOT, _FOOT_LINE = 3.9, 2.6, 0.95, 0.95, 0.85, 0.19
_MOST_COLUMNS = 3


class Line(NamedTuple):
    """One arm in one panel.

    Attributes:
        x: where its points are, [points].
        interval: mean over seeds and its band, [points] each.
        seeds: how many.
    """

    x: Array
    interval: Interval
    seeds: int


def line(curves: pl.DataFrame, panel: ArticlePanel, arm: str, spread: Spread) -> Line | None:
    """Work out the line of an arm in a panel; None if it has not been run."""
    if arm not in curves["method"] or not curve_table.has(curves, panel.measure):
        return None
    values = curve_table.matrix(curves, arm, panel.measure)
    if panel.relative_to is not None:
        values = _relative(curves, panel, arm)
    values = values[:, panel.first : panel.last] * panel.factor
    if not values.size:
        return None
    binned = statistics.bin_means(values, panel.bin)
    starts = panel.first + panel.bin * np.arange(binned.shape[1], dtype=np.float64)
    x = panel.x_offset + panel.x_factor * (starts + (panel.bin / 2 if panel.bin > 1 else 0))
    interval = statistics.mean_interval(binned) if spread == "bootstrap" else statistics.standard_error(binned)
    there = np.isfinite(interval.mean)
    return Line(x[there], Interval(*(part[there] for part in interval)), len(values))


def _relative(curves: pl.DataFrame, panel: ArticlePanel, arm: str) -> Array:
    """An arm minus another of the same seed, as far as both have been run."""
    keys = ["seed", "task"]
    own, other = (
        curves.filter(pl.col("method") == name).select(*keys, panel.measure) for name in (arm, panel.relative_to)
    )
    both = own.join(other, on=keys, suffix="_other").with_columns(
        pl.lit(arm).alias("method"), (pl.col(panel.measure) - pl.col(f"{panel.measure}_other")).alias(panel.measure)
    )
    return curve_table.matrix(both, arm, panel.measure) if both.height else np.empty((0, 0))


def draw(curves: pl.DataFrame, counterpart: Counterpart, caption: str = "") -> Figure:
    """Draw a figure of the article.

    Lines are means over seeds of our runs, with bands; diamonds are the published values of the same colour.

    Args:
        curves: one row for each task of each run; `settle` it first if runs are unfinished.
        counterpart: the figure.
        caption: what is shown, in words.

    Raises:
        ConfigError: the table lacks a key column.
        StateError: it has no row, or none of the arms has been run.
    """
    curve_table.check(curves)
    lines = [
        {arm: found for arm in panel.arms if (found := line(curves, panel, arm, counterpart.spread)) is not None}
        for panel in counterpart.panels
    ]
    if not any(lines):
        raise StateError(f"None of what {counterpart.figure} compares has been run yet.")
    columns = min(_MOST_COLUMNS, len(counterpart.panels))
    rows = math.ceil(len(counterpart.panels) / columns)
    width = max(2, columns) * _PANEL_WIDTH
    footer = textwrap.wrap(" ".join(filter(None, [caption, _how_to_read(counterpart, lines)])), int(width * 15))
    foot = _FOOT + _FOOT_LINE * len(footer)
    height = _HEAD + rows * _PANEL_HEIGHT + (rows - 1) * _GAP + foot
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(width, height), facecolor="white")
        FigureCanvasAgg(figure)
        grid = figure.subplots(rows, columns, squeeze=False)
        figure.subplots_adjust(
            0.6 / width, foot / height, 1 - 0.2 / width, 1 - _HEAD / height, wspace=0.2, hspace=_GAP / _PANEL_HEIGHT
        )
        for axes, panel, drawn in zip(grid.flat, counterpart.panels, lines, strict=False):
            _draw_panel(axes, panel, drawn)
        for axes in grid.flat[len(counterpart.panels) :]:
            axes.set_visible(False)
        title = f"{counterpart.figure}: {counterpart.title}"
        figure.text(0.018, 1 - 0.17 / height, title, size=13, weight="bold", va="top")
        text = "\n".join(footer)
        figure.text(0.018, (foot - 0.62) / height, text, size=9, color=MUTED, va="top", linespacing=1.45)
    return figure


def _draw_panel(axes: Axes, panel: ArticlePanel, lines: dict[str, Line]) -> None:
    palette = colours_in_turn(panel.arms)
    published = published_curves(panel.published) if panel.published else {}
    for order, arm in enumerate(panel.arms):
        if arm in published:
            rows = published[arm]
            dashes: Any = "none" if len(rows) < 3 else (0, (4, 2))  # of two points, nothing is known between them
            axes.plot(rows["x"], rows["value"], color=palette[arm], lw=1.2, ls=dashes, marker="D", ms=3, zorder=2)
        if arm in lines:
            x, interval, _ = lines[arm]
            axes.fill_between(x, interval.low, interval.high, color=palette[arm], alpha=0.18, lw=0, zorder=3)
            axes.plot(
                x, interval.mean, color=palette[arm], lw=1.7, marker="o" if len(x) == 1 else None, label=label(arm),
                zorder=4 + order,
            )  # fmt: skip
    axes.set_title(panel.heading, loc="left", size=10, color=INK, pad=7)
    axes.set_xlabel(panel.x_label, size=9.5)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.margins(x=0.02, y=0.08)
    if panel.limits is not None:
        axes.set_ylim(*panel.limits)
    axes.grid(axis="y", color=GRID, lw=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(length=0, pad=4, labelsize=9)
    axes.spines[["top", "right", "left"]].set_visible(False)
    if lines:
        axes.legend(
            fontsize=8, frameon=True, framealpha=0.75, edgecolor="none", handlelength=1.2, borderpad=0.2,
            labelspacing=0.25, handletextpad=0.5, ncols=2 if len(lines) > 5 else 1,
        ).set_zorder(30)  # fmt: skip


def _how_to_read(counterpart: Counterpart, lines: list[dict[str, Line]]) -> str:
    counts = sorted({found.seeds for each in lines for found in each.values()})
    number = str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    bands = "±1 standard error" if counterpart.spread == "standard error" else "95 % bootstrap interval"
    text = (
        "One seed, so there are no bands."
        if counts == [1]
        else f"Lines are means over {number} seeds, bands {bands} of these means."
    )
    if any(panel.published for panel in counterpart.panels):
        text += " Diamonds, in the same colours: the published curves."
    wanted = dict.fromkeys(arm for panel in counterpart.panels for arm in panel.arms)
    missing = [arm for arm in wanted if not any(arm in each for each in lines)]
    if missing:
        text += f" Not run: {', '.join(map(label, missing))}."
    return text
