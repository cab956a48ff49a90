"""A figure of the article, drawn of our runs with its axes and bins, beside its own curves where sizes match."""

import math
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from regrow.errors import StateError
from regrow.experiments.counterpart import ArticlePanel, Counterpart, Spread
from regrow.report import curves as curve_table
from regrow.report import statistics
from regrow.report.appearance import COLOURS, colours_in_turn, label
from regrow.report.published import published_curves
from regrow.report.statistics import Array, Interval
from regrow.report.style import GRID, INK, MUTED, STYLE

# Inches.
_PANEL_WIDTH, _PANEL_HEIGHT, _GAP, _HEAD, _FOOT, _FOOT_LINE = 3.9, 2.6, 0.95, 0.95, 0.85, 0.19
_LEGEND_LINE = 0.22
_MOST_COLUMNS = 3
_HEADING = 46  # characters above a panel
_CLEAR = 0.05  # of a panel's height, left free above and below lines that make room for a legend
_STEPS = [1, 2, 2.5, 5, 10]
_PUBLISHED: dict[str, Any] = {"lw": 1.2, "ls": (0, (4, 2)), "marker": "D", "ms": 3}


class Line(NamedTuple):
    """One arm in one panel.

    Attributes:
        x: where its points are, [points].
        interval: mean over seeds and its band, [points] each.
        seeds: how many.
        diverged: whether points are left out where a run had a value that is not finite.
    """

    x: Array
    interval: Interval
    seeds: int
    diverged: bool


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
    if not there.any():
        return None
    return Line(x[there], Interval(*(part[there] for part in interval)), len(values), _diverged(curves, panel, arm))


def _diverged(curves: pl.DataFrame, panel: ArticlePanel, arm: str) -> bool:
    own = curves.filter(pl.col("method") == arm, pl.col("task") >= panel.first)
    if panel.last is not None:
        own = own.filter(pl.col("task") < panel.last)
    return not own[panel.measure].drop_nulls().cast(pl.Float64).is_finite().all()


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
    shared = _shared_palette(counterpart)
    columns = 2 if len(counterpart.panels) == 4 else min(_MOST_COLUMNS, len(counterpart.panels))
    rows = math.ceil(len(counterpart.panels) / columns)
    width = max(2, columns) * _PANEL_WIDTH
    footer = textwrap.wrap(" ".join(filter(None, [caption, _how_to_read(counterpart, lines)])), int(width * 14))
    foot = _FOOT + _FOOT_LINE * len(footer)
    entries = _entries(counterpart.panels, lines, shared) if shared else []
    in_row = max(1, int(width / (0.75 + 0.072 * max((len(str(entry.get_label())) for entry in entries), default=0))))
    head = _HEAD + _LEGEND_LINE * math.ceil(len(entries) / in_row)
    height = head + rows * _PANEL_HEIGHT + (rows - 1) * _GAP + foot
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(width, height), facecolor="white")
        FigureCanvasAgg(figure)
        grid = figure.subplots(rows, columns, squeeze=False)
        figure.subplots_adjust(
            0.6 / width, foot / height, 1 - 0.2 / width, 1 - head / height, wspace=0.2, hspace=_GAP / _PANEL_HEIGHT
        )
        for axes, panel, drawn in zip(grid.flat, counterpart.panels, lines, strict=False):
            _draw_panel(axes, panel, drawn, shared)
        for axes in grid.flat[len(counterpart.panels) :]:
            axes.set_visible(False)
        if entries:
            figure.legend(
                handles=entries, loc="upper left", bbox_to_anchor=(0.16 / width, 1 - 0.44 / height), ncols=in_row,
                fontsize=9, frameon=False, handlelength=1.6, handletextpad=0.55, columnspacing=1.5, borderpad=0.2,
            )  # fmt: skip
        title = f"{counterpart.figure}: {counterpart.title}"
        figure.text(0.018, 1 - 0.17 / height, title, size=13, weight="bold", va="top")
        text = "\n".join(footer)
        figure.text(0.018, (foot - 0.62) / height, text, size=9, color=MUTED, va="top", linespacing=1.45)
    return figure


def _shared_palette(counterpart: Counterpart) -> dict[str, str]:
    """Colours for one legend above all panels; none if the arms of all panels are more than there are colours."""
    arms = list(dict.fromkeys(arm for panel in counterpart.panels for arm in panel.arms))
    return colours_in_turn(arms) if len(arms) <= COLOURS else {}


def _entries(panels: Sequence[ArticlePanel], lines: Sequence[dict[str, Line]], palette: dict[str, str]) -> list[Line2D]:
    """What a legend of some panels holds: an arm with how many seeds it has, or that only its published curve is there.

    The number of seeds is left out where all lines have the same, which the caption says.
    """
    alike = len({found.seeds for each in lines for found in each.values()}) == 1
    published = {arm for panel in panels if panel.published for arm in published_curves(panel.published)}
    entries = []
    for arm, colour in palette.items():
        counts = sorted({each[arm].seeds for each in lines if arm in each})
        if counts:
            text = "" if alike else f" ({_span(counts)} seed{'s' if counts[-1] > 1 else ''})"
            entries.append(Line2D([], [], color=colour, lw=2.5, label=f"{label(arm)}{text}"))
        elif arm in published:
            entries.append(Line2D([], [], color=colour, **_PUBLISHED, label=f"{label(arm)} (published only)"))
    if published & set(palette):
        entries.append(Line2D([], [], color=MUTED, **_PUBLISHED, label="published"))
    return entries


def _draw_panel(axes: Axes, panel: ArticlePanel, lines: dict[str, Line], shared: dict[str, str]) -> None:
    palette = shared or colours_in_turn(panel.arms)
    published = published_curves(panel.published) if panel.published else {}
    for order, arm in enumerate(panel.arms):
        if arm in published:
            rows = published[arm]
            look = _PUBLISHED | ({"ls": "none"} if len(rows) < 3 else {})  # of two points, nothing is known in between
            axes.plot(rows["x"], rows["value"], color=palette[arm], zorder=2, **look)
        if arm in lines:
            x, interval, *_ = lines[arm]
            axes.fill_between(x, interval.low, interval.high, color=palette[arm], alpha=0.18, lw=0, zorder=3)
            marker = "o" if len(x) == 1 else None
            axes.plot(x, interval.mean, color=palette[arm], lw=1.7, marker=marker, zorder=4 + order)
    axes.set_title(textwrap.fill(panel.heading, _HEADING), loc="left", size=10, color=INK, pad=7)
    axes.set_xlabel(panel.x_label, size=9.5)
    axes.xaxis.set_major_locator(MaxNLocator(5, steps=_STEPS))
    axes.yaxis.set_major_locator(MaxNLocator(5, steps=_STEPS))
    axes.margins(x=0.02, y=0.08)
    if panel.limits is not None:
        axes.set_ylim(*panel.limits)
    axes.grid(axis="y", color=GRID, lw=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(length=0, pad=4, labelsize=9)
    axes.spines[["top", "right", "left"]].set_visible(False)
    if not shared and (entries := _entries([panel], [lines], palette)):
        legend = axes.legend(
            handles=entries, fontsize=8, frameon=True, framealpha=0.75, edgecolor="none", handlelength=1.4,
            borderpad=0.2, labelspacing=0.25, handletextpad=0.5,
        )  # fmt: skip
        legend.set_zorder(30)
        if _covers_a_line(axes, legend):
            _make_room(axes, legend)


def _covers_a_line(axes: Axes, legend: Legend) -> bool:
    box = legend.get_window_extent()
    return any(box.count_contains(line.get_transform().transform(line.get_xydata())) for line in axes.lines)


def _make_room(axes: Axes, legend: Legend) -> None:
    """Raise the upper end of the y axis, so that the legend has a place above all lines."""
    axes.margins(y=0.0)
    low, high = axes.get_ylim()
    share = legend.get_window_extent().height / axes.get_window_extent().height + 2 * _CLEAR
    axes.set_ylim(low - _CLEAR * (high - low), low + (high - low) / (1 - share))
    legend.set_loc("upper left")


def _how_to_read(counterpart: Counterpart, lines: list[dict[str, Line]]) -> str:
    counts = sorted({found.seeds for each in lines for found in each.values()})
    bands = "±1 standard error" if counterpart.spread == "standard error" else "95 % bootstrap interval"
    text = (
        "One seed, so there are no bands."
        if counts == [1]
        else f"Lines are means over {_seeds(counts)}, bands {bands} of these means."
    )
    if any(panel.published for panel in counterpart.panels):
        text += " Diamonds, in the same colours: the published curves."
    return " ".join([text, *_not_shown(counterpart, lines)])


def _seeds(counts: list[int]) -> str:
    return f"{_span(counts)} seeds{'' if len(counts) == 1 else ', as the legend says'}"


def _span(counts: list[int]) -> str:
    return str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"


def _not_shown(counterpart: Counterpart, lines: list[dict[str, Line]]) -> Iterator[str]:
    """What is missing: arms that were not run at all, arms without a line in a panel, and what is beyond an axis."""
    wanted = dict.fromkeys(arm for panel in counterpart.panels for arm in panel.arms)
    missing = [arm for arm in wanted if not any(arm in each for each in lines)]
    if missing:
        yield f"Not run: {_names(missing)}."
    for panel, drawn in zip(counterpart.panels, lines, strict=True):
        heading = f"“{panel.heading}”"
        lacking = [arm for arm in panel.arms if arm not in drawn and arm not in missing]
        if lacking:
            why = "not measured" if panel.relative_to is None else f"no seed that {label(panel.relative_to)} has too"
            who = "" if not drawn else f" of {_names(lacking)}"
            yield f"No line{who} in {heading}: {why}."
        diverged = [arm for arm, found in drawn.items() if found.diverged]
        if diverged:
            yield f"Without the tasks in which a run had no finite value in {heading}: {_names(diverged)}."
        if panel.limits is not None:
            low, high = panel.limits
            beyond = [arm for arm, found in drawn.items() if _is_beyond(found.interval.mean, low, high)]
            if beyond:
                yield f"In part beyond the axis of {heading}: {_names(beyond)}."


def _is_beyond(values: Array, low: float, high: float) -> bool:
    return bool(((values < low) | (values > high)).any())


def _names(arms: Iterable[str]) -> str:
    return ", ".join(map(label, arms))
