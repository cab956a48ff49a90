"""The picture of a study: how well each method still learns, and three measures that go with it."""

import io
import math
import re
import textwrap
from typing import NamedTuple

import matplotlib as mpl
import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from regrow.errors import ConfigError
from regrow.report import curves as curve_table
from regrow.report import statistics
from regrow.report.appearance import colours, label
from regrow.report.style import GRID, INK, MUTED, STYLE

# Inches: the figure's width, a panel with and without heading and ticks, and what is above and below the panels.
_WIDTH, _ROW, _AXES, _HEAD, _TITLE, _FOOT, _FOOT_LINE = 10.0, 2.95, 2.2, 1.22, 0.47, 0.72, 0.19
_LEGEND_COLUMNS, _LEGEND_LINE = 5, 0.25


class Panel(NamedTuple):
    """One measure: its column, its heading, the factor from column to axis, and how far up from 0 the axis reaches."""

    measure: str
    heading: str
    factor: float = 1.0
    reach: float | None = None


PANELS = (
    Panel("accuracy", "Online accuracy (%)", 100),
    Panel("test_accuracy", "Test accuracy (%)", 100),
    Panel("squared_error", "Squared error"),
    Panel("return", "Return"),
    Panel("dormant", "Dormant units (%)", 100, reach=5),
    Panel("effective_rank", "Effective rank of the activations"),
    Panel("weight_magnitude", "Mean weight magnitude", reach=1e-3),
)


def draw(curves: pl.DataFrame, title: str, caption: str = "") -> Figure:
    """Draw one panel for each measure that was recorded, with one line for each method.

    A line is the mean over seeds, its band the 95 % bootstrap interval of that mean. The caption gets the number of
    seeds and of tasks in a point appended. Use `png` and `svg` to store the figure.

    Args:
        curves: one row for each task of each run; `settle` it first if runs are unfinished.
        title: the heading, one line; none if empty.
        caption: what is shown, in words.

    Raises:
        ConfigError: the table lacks a key column or has none of the measures.
        StateError: it has no row.
    """
    curve_table.check(curves)
    panels = [panel for panel in PANELS if curve_table.has(curves, panel.measure)]
    if not panels:
        raise ConfigError(
            f"The curves have none of {', '.join(panel.measure for panel in PANELS)}: there is nothing to draw."
        )
    width = statistics.bin_width(curve_table.tasks(curves))
    footer = textwrap.wrap(" ".join(filter(None, [caption, _how_to_read(curves, width)])), 150)
    columns, rows = min(2, len(panels)), math.ceil(len(panels) / 2)
    foot = _FOOT + _FOOT_LINE * len(footer)
    legend_top = _TITLE if title else 0.0
    legend_lines = math.ceil(len(curve_table.methods(curves)) / _LEGEND_COLUMNS)
    head = _HEAD - _TITLE + legend_top + _LEGEND_LINE * (legend_lines - 1)
    height = head + (rows - 1) * _ROW + _AXES + foot
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(_WIDTH, height), facecolor="white")
        FigureCanvasAgg(figure)
        grid = figure.subplots(rows, columns, squeeze=False)
        figure.subplots_adjust(0.055, foot / height, 0.98, 1 - head / height, wspace=0.14, hspace=_ROW / _AXES - 1)
        for axes, panel in zip(grid.flat, panels, strict=False):
            _draw_panel(axes, curves, panel, width)
        for axes in grid.flat[len(panels) :]:
            axes.set_visible(False)
        for axes in grid.flat[max(0, len(panels) - columns) : len(panels)]:
            axes.set_xlabel("Task")
        figure.text(0.018, 1 - 0.17 / height, title, size=14.5, weight="bold", va="top")
        _draw_legend(figure, curves, 1 - legend_top / height)
        text = "\n".join(footer)
        figure.text(0.018, (foot - 0.62) / height, text, size=9, color=MUTED, va="top", linespacing=1.45)
    return figure


def _draw_panel(axes: Axes, curves: pl.DataFrame, panel: Panel, width: int) -> None:
    palette = colours(curve_table.methods(curves))
    # The first methods of the legend are drawn last, on top of the others.
    for order, method in enumerate(reversed(palette)):
        values = statistics.bin_means(curve_table.matrix(curves, method, panel.measure) * panel.factor, width)
        centres = statistics.bin_centres(curve_table.tasks(curves.filter(pl.col("method") == method)), width)
        there = np.isfinite(values).all(axis=0)
        if not there.any():
            continue
        interval = statistics.mean_interval(values[:, there])
        x = centres[there]
        axes.fill_between(x, interval.low, interval.high, color=palette[method], alpha=0.18, lw=0, zorder=2 + order)
        marker = "o" if len(x) == 1 else None
        axes.plot(
            x,
            interval.mean,
            color=palette[method],
            lw=1.9,
            marker=marker,
            solid_capstyle="round",
            zorder=3 + order,
            clip_on=False,
        )
    axes.set_title(panel.heading, loc="left", size=10.5, color=INK, pad=8)
    axes.set_xlim(0, curve_table.tasks(curves))
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.margins(y=0.08)
    if panel.reach is not None:
        axes.set_ylim(bottom=0, top=max(axes.get_ylim()[1], panel.reach))
    axes.grid(axis="y", color=GRID, lw=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(length=0, pad=5, labelsize=9.5)
    axes.spines[["top", "right", "left"]].set_visible(False)


def _draw_legend(figure: Figure, curves: pl.DataFrame, top: float) -> None:
    palette = colours(curve_table.methods(curves))
    figure.legend(
        handles=[Line2D([], [], color=colour, lw=3.5, solid_capstyle="round") for colour in palette.values()],
        labels=[label(method) for method in palette],
        loc="upper left",
        bbox_to_anchor=(0.0135, top),
        ncols=_LEGEND_COLUMNS,
        frameon=False,
        handlelength=1.1,
        handletextpad=0.55,
        columnspacing=1.7,
        borderpad=0.2,
    )


def _how_to_read(curves: pl.DataFrame, width: int) -> str:
    counts = sorted({curve_table.seeds(curves, method) for method in curve_table.methods(curves)})
    points = f"; a point is the mean of {width} tasks" if width > 1 else ""
    if counts == [1]:
        return f"One seed, so there are no bands{points}."
    number = str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    return f"Lines are means over {number} seeds, bands 95 % bootstrap intervals of these means{points}."


def png(figure: Figure) -> bytes:
    """Return the figure as PNG, 2,000 pixels wide."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=200, metadata={"Software": None})
    return file.getvalue()


def svg(figure: Figure, description: str) -> str:
    """Return the figure as an `<svg>` element to be put into a page: transparent, and inked by the page's variables.

    Args:
        figure: what `draw` returned.
        description: what it shows, for those who cannot see it; plain text.
    """
    file = io.StringIO()
    with mpl.rc_context(STYLE):
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = file.getvalue()
    text = text[text.index("<svg") :]
    for colour, variable in ((INK, "--ink"), (MUTED, "--muted"), (GRID, "--grid")):
        text = text.replace(colour, f"var({variable})")
    quoted = description.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
    return re.sub(r"<svg ", f'<svg role="img" aria-label="{quoted}" ', text, count=1)
