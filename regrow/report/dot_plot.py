"""The picture of a comparison of many methods: one row a method, a dot for its default and one for its best setting."""

import textwrap
from typing import Any

import matplotlib as mpl
import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from regrow.engines.training import Outcome
from regrow.report import comparison
from regrow.report.comparison import BASELINE, ORACLE, TUNED
from regrow.report.style import GRID, INK, MUTED, STYLE

_WIDTH, _ROW, _HEAD, _FOOT, _FOOT_LINE = 10.0, 0.25, 1.15, 0.95, 0.19
_DEFAULT, _BEST = "#e69f00", "#0b7cc0"
_LINES = {BASELINE: "#d55e00", ORACLE: "#009e73"}
_SECTIONS = {False: "Not told of tasks", True: "Told when a task begins"}
_APART = 0.17  # between the two dots of a row, in rows


def draw(curves: pl.DataFrame, title: str, caption: str = "") -> Figure:
    """Draw by how much each method is better than the baseline with the same seeds, in the last and in all tasks.

    Bars are 95 % bootstrap intervals over seeds; baseline and oracle are vertical lines. What is far worse is drawn at
    the edge, with its value.

    Args:
        curves: one row for each task of each run; `settle` it first if runs are unfinished.
        title: the heading, one line; none if empty.
        caption: what is shown, in words.

    Raises:
        ConfigError: the table lacks a key column.
        StateError: it has no row.
    """
    rows = comparison.table(curves)
    lines = {row["method"]: row for row in rows if row["method"] in _LINES}
    dots = [row for row in rows if row["method"] not in _LINES]
    names = list(dict.fromkeys(comparison.base(row["method"]) for row in dots))
    sections = [found for found in (False, True) if any(comparison.is_told_of_tasks(name) is found for name in names)]
    heights = _heights(names, sections)
    outcome: Outcome = rows[0]["outcome"]
    footer = textwrap.wrap(" ".join(filter(None, [caption, _how_to_read(rows)])), 150)
    foot = _FOOT + _FOOT_LINE * len(footer)
    height = _HEAD + _ROW * (max(heights.values(), default=0) + 1.5) + foot
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(_WIDTH, height), facecolor="white")
        FigureCanvasAgg(figure)
        panels = figure.subplots(1, 2, sharey=True)
        longest = max(map(len, names), default=0)
        figure.subplots_adjust(0.03 + 0.0083 * longest, foot / height, 0.98, 1 - _HEAD / height, wspace=0.06)
        headings = (f"Last {rows[0]['stretch']} of {rows[0]['tasks']} tasks", f"All {rows[0]['tasks']} tasks")
        for axes, key, heading in zip(panels, ("last", "overall"), headings, strict=True):
            _draw_panel(axes, outcome, f"{key}_gain", dots, lines.get(ORACLE), heights)
            at = lines[BASELINE][key]
            right = ORACLE not in lines or (lines[ORACLE][f"{key}_gain"] or 0) < 0
            _name_line(axes, 0.0, BASELINE, right, "" if at is None else f" {outcome.text(at)}")
            axes.set_title(heading, loc="left", size=10.5, color=INK, pad=20)
            axes.set_xlabel(f"Gain over backprop in {outcome.name}{_unit(outcome)} →", size=9.5)
        panels[0].set_yticks([heights[name] for name in names], names)
        panels[0].set_ylim(max(heights.values(), default=0) + 0.8, -0.8)
        for section in sections:
            first = min(heights[name] for name in names if comparison.is_told_of_tasks(name) is section)
            panels[0].annotate(
                _SECTIONS[section], (0, first - 1), (-5, 0), xycoords=("axes fraction", "data"),
                textcoords="offset points", ha="right", va="center", size=9, style="italic", color=MUTED,
            )  # fmt: skip
        figure.text(0.018, 1 - 0.17 / height, title, size=14.5, weight="bold", va="top")
        _draw_legend(figure, 1 - 0.45 / height)
        text = "\n".join(footer)
        figure.text(0.018, (foot - 0.72) / height, text, size=9, color=MUTED, va="top", linespacing=1.45)
    return figure


def _heights(names: list[str], sections: list[bool]) -> dict[str, float]:
    """Where each method's row is, from the top, with room for the heading of each section."""
    heights: dict[str, float] = {}
    place = 0.0
    for section in sections:
        place += 1
        for name in names:
            if comparison.is_told_of_tasks(name) is section:
                heights[name] = place
                place += 1
    return heights


def _unit(outcome: Outcome) -> str:
    return f" ({outcome.change_heading})" if outcome.unit else ""


def _draw_panel(
    axes: Axes,
    outcome: Outcome,
    key: str,
    dots: list[dict[str, Any]],
    oracle: dict[str, Any] | None,
    heights: dict[str, float],
) -> None:
    values = [row[key] for row in dots]
    axes.axvline(0, color=_LINES[BASELINE], lw=1.4, zorder=2)
    if oracle is not None and oracle[key] is not None:
        values.append(oracle[key])
        axes.axvline(outcome.factor * oracle[key], color=_LINES[ORACLE], lw=1.4, zorder=2)
        if oracle[f"{key}_low"] is not None:
            low, high = (outcome.factor * oracle[f"{key}_{end}"] for end in ("low", "high"))
            axes.axvspan(low, high, color=_LINES[ORACLE], alpha=0.13, lw=0, zorder=1)
        _name_line(axes, outcome.factor * oracle[key], ORACLE, right=oracle[key] >= 0)
    ends = [row[f"{key}_high"] for row in dots]
    limits = _limits([outcome.factor * value for value in [*values, *ends] if value is not None])
    axes.set_xlim(limits)
    pairs = {comparison.base(row["method"]) for row in dots if row["method"].endswith(TUNED)}
    for row in dots:
        name = comparison.base(row["method"])
        tuned = row["method"] != name
        shift = 0.0 if name not in pairs else _APART if tuned else -_APART
        _draw_dot(axes, outcome, row, key, heights[name] + shift, tuned or name not in pairs, limits)
    for place in list(heights.values())[::2]:
        axes.axhspan(place - 0.5, place + 0.5, color=GRID, alpha=0.28, lw=0, zorder=0)
    axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.grid(axis="x", color=GRID, lw=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(length=0, pad=5, labelsize=9.5)
    axes.tick_params(axis="y", labelcolor=INK)
    axes.spines[["top", "right", "left"]].set_visible(False)


def _name_line(axes: Axes, at: float, name: str, right: bool, more: str = "") -> None:
    """Write what a line is above it, to its right or left, so that the names of two lines nearby do not meet."""
    axes.annotate(
        name + more, (at, 1), (1 if right else -1, 4), xycoords=("data", "axes fraction"), textcoords="offset points",
        ha="left" if right else "right", va="bottom", size=8.5, color=_LINES[name],
    )  # fmt: skip


def _draw_dot(
    axes: Axes, outcome: Outcome, row: dict[str, Any], key: str, place: float, best: bool, limits: tuple[float, float]
) -> None:
    colour, (low, high) = (_BEST if best else _DEFAULT), limits
    value = row[key]
    if row["diverged"] or (value is not None and outcome.factor * value < low):
        text = "diverged" if value is None else outcome.number(value, "+")
        axes.plot([low], [place], "<", color=colour, ms=5, clip_on=False, zorder=5)
        axes.annotate(text, (low, place), (8, 0), textcoords="offset points", va="center", size=7.5, color=colour)
    elif value is not None:
        if row[f"{key}_low"] is not None:
            ends = [outcome.factor * row[f"{key}_{end}"] for end in ("low", "high")]
            axes.plot(np.clip(ends, low, high), [place, place], color=colour, lw=1.6, solid_capstyle="round", zorder=4)
        face = colour if best else "white"
        axes.plot([outcome.factor * value], [place], "o", color=colour, mfc=face, mew=1.4, ms=5.2, zorder=5)


def _limits(values: list[float]) -> tuple[float, float]:
    """The ends of the axis: everything above 0, and below it no farther than the best is above."""
    high = max([0.0, *values])
    low = max(min([0.0, *values]), -high) if high else min([0.0, *values])
    pad = 0.08 * (high - low) or 1.0
    return low - pad, high + pad


def _draw_legend(figure: Figure, top: float) -> None:
    dot: dict[str, Any] = {"ls": "", "marker": "o", "ms": 5.2, "mew": 1.4}
    figure.legend(
        handles=[
            Line2D([], [], color=_DEFAULT, mfc="white", **dot),
            Line2D([], [], color=_BEST, **dot),
            Line2D([], [], color=_LINES[BASELINE], lw=1.4),
            Line2D([], [], color=_LINES[ORACLE], lw=1.4),
        ],
        labels=[
            "published default",
            "best of a small grid (alone: the default)",
            "backprop",
            "fresh network each task",
        ],
        loc="upper left",
        bbox_to_anchor=(0.0135, top),
        ncols=4,
        frameon=False,
        handlelength=1.1,
        handletextpad=0.55,
        columnspacing=1.7,
        borderpad=0.2,
    )  # fmt: skip


def _how_to_read(rows: list[dict[str, Any]]) -> str:
    counts = sorted({row["seeds"] for row in rows})
    if counts == [1]:
        return "One seed, so there are no intervals."
    number = str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    return (
        f"Gains are differences between runs of the same seed, means over {number} seeds with 95 % bootstrap intervals."
    )
