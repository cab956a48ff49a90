"""The table of unit groups that `print` shows, with those that repeat layer after layer in one row."""

import re
import textwrap
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, zip_longest

from regrow.units.folding import Fold, fold

WIDTH = 160
_MOST_NAMES = 4  # in a cell
_LEAST_WIDTH = 30  # of a column of text
_DEVIATION = re.compile(r"(?<=std )[^\s,]+")

_Cells = dict[str, list[str]]  # lines of each cell by header


@dataclass(frozen=True)
class Row:
    """What the table says of one unit group.

    Attributes:
        name: its name.
        size: number of units.
        made_by: names of the parameters that make the units.
        read_by: names of the parameters that read them.
        status: its status.
        remark: what else there is to say: sentences, parted by "; ".
        laws: for each parameter that makes the units, the law of its new weights.
    """

    name: str
    size: int
    made_by: tuple[str, ...]
    read_by: tuple[str, ...]
    status: str
    remark: str
    laws: tuple[str, ...] = ()

    @property
    def texts(self) -> tuple[str, ...]:
        """All that may hold names of layers."""
        return (self.name, *self.made_by, *self.read_by, *self.remark.split("; "))


def format_table(rows: Sequence[Row], unclaimed: Mapping[str, str], remarks: str = "", verbose: bool = False) -> str:
    """Lay out one row for each group, and below them the parameters of no unit.

    Groups that repeat layer after layer share one row: `12 × 64` units of `h.0–11.mlp` are 12 groups of 64. A range
    in another cell that is as long as the one in the name runs along with it (`layers.0–8` read by `layers.1–9`);
    every other range stands for all its members, as for the layers that make a residual stream together. Laws
    are taken for the same if they differ in a standard deviation only; then the span is shown.

    Args:
        rows: one for each group.
        unclaimed: for each parameter of no unit, the reason.
        remarks: header of the last column.
        verbose: do without all that: every group has its own row, and every list and text is in full. Otherwise long
            lists of names end with the number of those left out, and texts are wrapped to fit into `WIDTH` columns.
    """
    if verbose:
        folds = [Fold(row.texts, (place,)) for place, row in enumerate(rows)]
    else:
        folds = fold([row.texts for row in rows], [_likeness(row) for row in rows])
    lines = _lay_out([_cells(found, rows, remarks, verbose) for found in folds], remarks, verbose)
    lines += _legend(folds, rows)
    if unclaimed:
        left = list(unclaimed.items())
        shown = left if verbose else [found.texts for found in fold(left)]
        lines += ["", "parameters of no unit:", *(f"  {name}: {reason}" for name, reason in shown)]
    return "\n".join(lines)


def _likeness(row: Row) -> tuple[object, ...]:
    laws = tuple(_DEVIATION.sub("", law) for law in row.laws)
    return row.size, row.status, len(row.made_by), len(row.read_by), laws


def _legend(folds: Sequence[Fold], rows: Sequence[Row]) -> list[str]:
    for found in folds:
        if found.lengths:
            count, size = len(found.members), rows[found.members[0]].size
            return ["", f"{count} × {size}: {count} groups of {size} units; table(verbose=True) has a row for each"]
    return []


# What stands in the cells.


def _cells(found: Fold, rows: Sequence[Row], remarks: str, verbose: bool) -> _Cells:
    members = [rows[place] for place in found.members]
    row, texts = members[0], iter(found.texts)
    name = next(texts)
    made_by, read_by = (list(islice(texts, len(names))) for names in (row.made_by, row.read_by))
    sentences = list(texts)
    laws = [law for member in members for law in member.laws]
    if not verbose:
        sentences = [text for text, _ in _folded(sentences, found.lengths)]
        made_by, read_by = (shorten(names, found.lengths) for names in (made_by, read_by))
        laws = _spans(laws)
    return {
        "group": [name],
        "units": [f"{len(members)} × {row.size}" if found.lengths else str(row.size)],
        "made by": made_by or ["–"],
        "read by": read_by or ["–"],
        "new weights": laws or ["–"],
        "status": [row.status],
        remarks: ["; ".join(sentences)],
    }


def _folded(texts: Sequence[str], taken: Collection[int]) -> list[tuple[str, int]]:
    """The texts in short, and how many each stands for."""
    return [(found.texts[0], len(found.members)) for found in fold([(text,) for text in texts], taken=taken)]


def shorten(names: Sequence[str], taken: Collection[int] = ()) -> list[str]:
    """The names folded, the first of them if they are many, and how many more there are.

    Args:
        names: the names.
        taken: lengths that no range may have.
    """
    found = _folded(names, taken)
    shown = found if len(found) <= _MOST_NAMES else found[: _MOST_NAMES - 1]
    left = len(names) - sum(count for _, count in shown)
    return [name for name, _ in shown] + ([f"+ {left} more"] if left else [])


def _spans(laws: Iterable[str]) -> list[str]:
    """The different laws, those that differ in the standard deviation only as one."""
    deviations: dict[str, list[str]] = {}
    for law in laws:
        deviations.setdefault(_DEVIATION.sub("\0", law), []).extend(_DEVIATION.findall(law))
    spans = {law: sorted(set(found), key=float) for law, found in deviations.items()}
    return [law.replace("\0", " to ".join(dict.fromkeys((*found[:1], *found[-1:])))) for law, found in spans.items()]


# Where it stands.


def _lay_out(table: Sequence[_Cells], remarks: str, verbose: bool) -> list[str]:
    header = ["group", "units", "made by", "read by", "new weights", "status", remarks]
    if all(cells["new weights"] == ["–"] for cells in table):
        header.remove("new weights")
    if not verbose:
        for cells in table:
            cells["new weights"] = _wrap(cells["new weights"], _LEAST_WIDTH)
        if _width(header[:-1], table) + 2 + _LEAST_WIDTH > WIDTH:
            header[2:4] = ["made by, read by"]
            table = [_stacked(cells) for cells in table]
        room = WIDTH - 2 - _width(header[:-1], table)
        for cells in table:
            cells[remarks] = _wrap(cells[remarks], max(room, _LEAST_WIDTH))
    widths = [_width([name], table) for name in header]
    blocks = [[[name] for name in header], [["─" * width] for width in widths]]
    blocks += [[cells[name] for name in header] for cells in table]
    return [
        "  ".join(text.ljust(width) for text, width in zip(texts, widths, strict=True)).rstrip()
        for block in blocks
        for texts in zip_longest(*block, fillvalue="")
    ]


def _width(header: Sequence[str], table: Sequence[_Cells]) -> int:
    """Of some columns beside each other."""
    longest = [max(map(len, [name, *(line for cells in table for line in cells[name])])) for name in header]
    return sum(longest) + 2 * (len(header) - 1)


def _stacked(cells: _Cells) -> _Cells:
    """With the names that make and that read the units in one cell."""
    return cells | {
        "made by, read by": [f"{verb} {name}" for verb in ("made by", "read by") for name in cells[verb] if name != "–"]
    }


def _wrap(texts: Iterable[str], width: int) -> list[str]:
    lines = (textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False) for text in texts)
    return [line for found in lines for line in found] or [""]
