"""Which picture, table and sentence a study gets: curves of a few methods, or dots of many."""

from collections.abc import Callable
from typing import Any, NamedTuple

import polars as pl
from matplotlib.figure import Figure

from regrow.report import comparison, curves, dot_plot, figures, growing, returns, summary
from regrow.report.appearance import COLOURS


class View(NamedTuple):
    """How a table of curves is shown.

    Attributes:
        draw: the figure, from curves, title and caption.
        table: the rows, from curves.
        cells: the rows as text.
        sentence: what is seen, from curves.
        coloured: whether the figure has a colour for each method.
        legible: whether one figure can tell all methods apart.
    """

    draw: Callable[[pl.DataFrame, str, str], Figure]
    table: Callable[[pl.DataFrame], list[dict[str, Any]]]
    cells: Callable[[list[dict[str, Any]]], summary.Cells]
    sentence: Callable[[pl.DataFrame], str]
    coloured: bool
    legible: bool


def view_of(table: pl.DataFrame) -> View:
    """Return the view for these curves: dots, beside a baseline, if there are more methods than colours."""
    methods = curves.methods(table)
    if len(methods) > COLOURS and comparison.BASELINE in methods:
        return View(
            dot_plot.draw, comparison.table, comparison.cells, comparison.sentence, coloured=False, legible=True
        )
    sentence = summary.sentence
    if growing.is_growing(table):
        sentence = growing.sentence
    elif returns.is_of_agents(table):
        sentence = returns.sentence
    return View(figures.draw, summary.table, summary.cells, sentence, coloured=True, legible=len(methods) <= COLOURS)
