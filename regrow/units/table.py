"""The table of unit groups that `print` shows, with those that repeat layer after layer in one row."""

import re
import textwrap
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, zip_longest

from regrow.units.folding import Fold, fold

WIDTH = 160
_MOST = 4  # names or sentences in a cell
_LEAST_WIDTH = 40  # of the last column
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
        before: what stands before the first of them.
        laws: for each parameter that makes the units, the law of its new weights.
    """

    name: str
    size: int
    made_by: tuple[str, ...]
    read_by: tuple[str, ...]
    status: str
    remark: str
    before: str = ""
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
            lists end with the number of what is left out, and the table is laid out to fit into `WIDTH` columns.
    """
    if verbose:
        folds = [Fold(row.texts, (place,)) for place, row in enumerate(rows)]
    else:
        folds = fold([row.texts for row in rows], [_likeness(row) for row in rows])
    header = ["group", "units", "made by", "read by", "new weights", "status", remarks]
    table = [dict(zip(header, _cells(found, rows, verbose), strict=True)) for found in folds]
    if not any(row.laws for row in rows):
        header.remove("new weights")
    lines = _lay_out(header, table) if verbose else _fit(header, table)
    for found in folds:
        if found.lengths:
            count, size = len(found.members), rows[found.members[0]].size
            lines += ["", f"{count} × {size}: {count} groups of {size} units; table(verbose=True) has a row for each"]
            break
    if unclaimed:
        lines += ["", "parameters of no unit:", format_reasons(unclaimed, verbose)]
    return "\n".join(lines)


def format_reasons(reasons: Mapping[str, str], verbose: bool = False) -> str:
    """A line for each name with what is said of it, those that repeat layer after layer in one.

    Args:
        reasons: by name: sentences, parted by "; ".
        verbose: a line for each name, in full.
    """
    rows = [(name, *reason.split("; ")) for name, reason in reasons.items()]
    if not verbose:
        folds = fold(rows)
        rows = [(found.texts[0], *shorten(found.texts[1:], found.lengths)) for found in folds]
    return "\n".join(f"  {name}: {'; '.join(sentences)}" for name, *sentences in rows)


def shorten(texts: Sequence[str], taken: Collection[int] = ()) -> list[str]:
    """The texts folded, the first of them if they are many, and how many more there are.

    Args:
        texts: names or sentences.
        taken: lengths that no range may have.
    """
    folds = fold([(text,) for text in texts], taken=taken)
    shown = folds if len(folds) <= _MOST else folds[: _MOST - 1]
    left = len(texts) - sum(len(found.members) for found in shown)
    return [found.texts[0] for found in shown] + ([f"+ {left} more"] if left else [])


# What stands in the cells.


def _likeness(row: Row) -> tuple[object, ...]:
    laws = tuple(_DEVIATION.sub("", law) for law in row.laws)
    return row.size, row.status, row.before, len(row.made_by), len(row.read_by), laws


def _cells(found: Fold, rows: Sequence[Row], verbose: bool) -> list[list[str]]:
    members = [rows[place] for place in found.members]
    row, texts = members[0], iter(found.texts)
    name = next(texts)
    made_by, read_by = (list(islice(texts, len(names))) for names in (row.made_by, row.read_by))
    sentences = list(texts)
    laws = [law for member in members for law in member.laws]
    if not verbose:
        made_by, read_by, sentences = (shorten(part, found.lengths) for part in (made_by, read_by, sentences))
        laws = _spans(laws)
    units = f"{len(members)} × {row.size}" if found.lengths else str(row.size)
    return [[name], [units], made_by, read_by, laws, [row.status], [row.before + "; ".join(sentences)]]


def _spans(laws: Iterable[str]) -> list[str]:
    """The different laws, those that differ in the standard deviation only as one."""
    deviations: dict[str, list[str]] = {}
    for law in laws:
        deviations.setdefault(_DEVIATION.sub("\0", law), []).extend(_DEVIATION.findall(law))
    spans = {law: sorted(set(found), key=float) for law, found in deviations.items()}
    return [law.replace("\0", " to ".join(dict.fromkeys((*found[:1], *found[-1:])))) for law, found in spans.items()]


# Where it stands.


def _fit(header: list[str], table: list[_Cells]) -> list[str]:
    """Lay out with texts wrapped to the width, and with all about a group in one cell if the names leave no room."""
    *beside, last = header
    room = WIDTH - sum(_widths(beside, table)) - 2 * len(beside)
    if room < min(_LEAST_WIDTH, *_widths([last], table)):
        beside, told = ["group", "units", "status"], [name for name in header[2:] if name != "status"]
        room = max(WIDTH - sum(_widths(beside, table)) - 2 * len(beside), _LEAST_WIDTH)
        last = ", ".join(name for name in told if name)
        table = [cells | {last: _packed(_told(cells, told), room)} for cells in table]
    wrap = textwrap.TextWrapper(room, break_long_words=False, break_on_hyphens=False)
    table = [cells | {last: [line for text in cells[last] for line in wrap.wrap(text)]} for cells in table]
    return _lay_out([*beside, last], table)


def _told(cells: _Cells, columns: Sequence[str]) -> list[str]:
    *columns, last = columns
    told = [f"{column} {', '.join(cells[column])}" for column in columns if cells[column]]
    return told + [text for text in cells[last] if text]


def _packed(texts: Iterable[str], room: int) -> list[str]:
    """As many of the texts in each line as have room."""
    lines: list[str] = []
    for text in texts:
        if lines and len(lines[-1]) + 2 + len(text) <= room:
            lines[-1] += f"; {text}"
        else:
            lines.append(text)
    return lines


def _lay_out(header: list[str], table: list[_Cells]) -> list[str]:
    widths = _widths(header, table)
    blocks = [[[name] for name in header], [["─" * width] for width in widths]]
    # A cell of no names says so; the last column may be empty.
    blocks += [[*(cells[name] or ["–"] for name in header[:-1]), cells[header[-1]]] for cells in table]
    return [
        "  ".join(text.ljust(width) for text, width in zip(texts, widths, strict=True)).rstrip()
        for block in blocks
        for texts in zip_longest(*block, fillvalue="")
    ]


def _widths(header: Iterable[str], table: Iterable[_Cells]) -> list[int]:
    return [max(map(len, [name, *(line for cells in table for line in cells[name])])) for name in header]
