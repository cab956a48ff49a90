"""Self-contained HTML files that say what was seen in studies, show it, and tell how it was made."""

import json
import platform
import re
from collections.abc import Mapping, Sequence
from html import escape
from importlib import metadata, resources
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl

import regrow
from regrow.engines.training import TEST_ACCURACY, outcome_among
from regrow.experiments.counterpart import Counterpart
from regrow.experiments.store import write_atomically
from regrow.report import article, figures
from regrow.report import curves as curve_table
from regrow.report.appearance import colours, label
from regrow.report.view import view_of

_PACKAGES = ("torch", "numpy", "numba")


class Section(NamedTuple):
    """What a page tells of one study at one scale.

    Attributes:
        title: its heading.
        seen: what is seen, in one sentence.
        pictures: PNG by file name, the main one first.
        body: HTML of all below the heading.
        curves: the runs that count, of which all this is.
    """

    title: str
    seen: str
    pictures: dict[str, bytes]
    body: str
    curves: pl.DataFrame


def section(
    curves: pl.DataFrame,
    spec_text: Mapping[str, Any],
    command: str,
    *,
    title: str = "",
    caption: str = "",
    planned_tasks: int | None = None,
    planned_runs: int | None = None,
    counterparts: Sequence[Counterpart] = (),
) -> Section:
    """Tell what is seen, show it, and say how it was made.

    Args:
        curves: one row for each task of each run: study, scale, method, seed, engine, task and any of accuracy,
            test_accuracy or squared_error, dormant, effective_rank, weight_magnitude, replacements, seconds. Runs may
            be unfinished: the section says so.
        spec_text: what the study was, in the order in which it is to be listed.
        command: what to type to get these curves again.
        title: the heading; the name and scale of the study if empty.
        caption: what the problem is, in words, for the figures.
        planned_tasks: tasks of a finished run, if known.
        planned_runs: runs of the whole study, if known.
        counterparts: figures of the article to be drawn as well, as far as what they compare has been run. Where there
            are more methods than one picture can tell apart, they are all that is drawn.

    Raises:
        ConfigError: the table lacks a key column or has nothing to draw.
        StateError: no run has finished its first task.
    """
    curve_table.check(curves)
    title = title or _title(curves)
    settled = curve_table.settle(curves, planned_tasks, planned_runs)
    view = view_of(settled.curves)
    seen = view.sentence(settled.curves)
    caption = " ".join(filter(None, [caption, settled.remark]))
    known = set(curve_table.methods(settled.curves))
    there = [each for each in counterparts if known & {arm for panel in each.panels for arm in panel.arms}]
    pictures, drawings = {}, []
    if view.legible or not there:
        pictures["figure.png"] = figures.png(view.draw(settled.curves, title, caption))
        drawings.append(figures.svg(view.draw(settled.curves, "", caption), seen))
    for each in there:
        picture = article.draw(settled.curves, each, caption)
        pictures[f"figure-{_file_name(each.figure)}.png"] = figures.png(picture)
        drawings.append(figures.svg(picture, f"{each.figure} of the article, of these runs: {each.title}"))
    shown = "\n".join(f"<figure>{drawing}</figure>" for drawing in drawings)
    body = f"""
<p class="seen">{escape(seen)}</p>
{f'<p class="remark">{escape(settled.remark)}</p>' if settled.remark else ""}
{shown}
<h2>In numbers</h2>
{_values(settled.curves)}
<h2>How it was made</h2>
<pre><code>{escape(command)}</code></pre>
{_made(settled.curves, spec_text)}
"""
    return Section(title, seen, pictures, body, settled.curves)


def write_report(folder: Path, content: Section) -> tuple[Path, Path]:
    """Write the pictures and `report.html` into `folder`, each whole or not at all.

    The page loads nothing from anywhere, follows the reader's light or dark scheme and can be printed.

    Returns:
        the path of the first picture, and that of the page.

    Raises:
        StoreError: a file cannot be written.
    """
    for name, data in content.pictures.items():
        write_atomically(folder / name, data)
    page = folder / "report.html"
    body = f"\n<h1>{escape(content.title)}</h1>{content.body}"
    write_atomically(page, _document(content.title, body).encode())
    return folder / next(iter(content.pictures)), page


def write_collection(folder: Path, contents: Sequence[Section]) -> Path:
    """Write one page on several studies, `report.html` in `folder`, with what is seen in each at its top.

    Raises:
        StoreError: it cannot be written.
    """
    index = "\n".join(
        f'<li><a href="#part-{number}">{escape(content.title)}</a>: {escape(content.seen)}</li>'
        for number, content in enumerate(contents, 1)
    )
    parts = "\n".join(
        f'<section id="part-{number}">\n<h1>{escape(content.title)}</h1>{content.body}</section>'
        for number, content in enumerate(contents, 1)
    )
    title = f"{len(contents)} studies of loss of plasticity"
    page = folder / "report.html"
    body = f'\n<h1>{title}</h1>\n<ul class="index">\n{index}\n</ul>\n{parts}\n'
    write_atomically(page, _document(title, body).encode())
    return page


def _file_name(figure: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", figure.lower()).strip("-")


def _title(curves: pl.DataFrame) -> str:
    name = str(curves["study"][0]).replace("-", " ").replace("_", " ").capitalize()
    return f"{name}, {curves['scale'][0]} scale" if curve_table.has(curves, "scale") else name


def _document(title: str, body: str) -> str:
    style = (resources.files("regrow.report") / "page.css").read_text(encoding="utf-8")
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<style>
{style}</style>
</head>
<body>
<main>{body}</main>
</body>
</html>
"""


def _values(curves: pl.DataFrame) -> str:
    view = view_of(curves)
    rows = view.table(curves)
    text = view.cells(rows)
    palette = colours(row["method"] for row in rows)
    head = "".join(f'<th scope="col">{escape(heading)}</th>' for heading in text.headings)
    lines = []
    for row, cells in zip(rows, text.rows, strict=True):
        colour = palette[row["method"]] if view.coloured else "none"
        swatch = f'<span class="swatch" style="background:{colour}"></span>'
        others = "".join(f"<td>{_cell(cell)}</td>" for cell in cells[1:])
        lines.append(f'<tr><th scope="row">{swatch}{escape(cells[0])}</th>{others}</tr>')
    body = "\n".join(lines)
    judged = (
        "The test images of a task are not learned."
        if outcome_among(curves.columns) is TEST_ACCURACY
        else "Each prediction is judged before the network learns from the example."
    )
    return f"""<div class="wide values"><table>
<thead><tr>{head}</tr></thead>
<tbody>
{body}
</tbody>
</table></div>
<p class="note">Means over seeds; in brackets the 95 % bootstrap interval of the mean. An arrow leads from the first
tasks to the last ones. {judged} Replacements and seconds are those of one run.</p>"""


def _cell(text: str) -> str:
    number, bracket, interval = text.partition(" (")
    return f"{escape(number)} <small>({escape(interval)}</small>" if bracket else escape(text)


def _made(curves: pl.DataFrame, spec: Mapping[str, Any]) -> str:
    facts: dict[str, Any] = {}
    for name, value in spec.items():
        if isinstance(value, Mapping):
            facts |= {f"{name}: {key}": inner for key, inner in value.items()}
        else:
            facts[name] = value
    facts["methods"] = ", ".join(label(method) for method in curve_table.methods(curves))
    facts["seeds"] = ", ".join(map(str, sorted(curves["seed"].unique().to_list())))
    if curve_table.has(curves, "engine"):
        facts["engine"] = ", ".join(sorted(curves["engine"].drop_nulls().unique().to_list()))
    facts.setdefault("versions when this page was written", _versions())
    lines = [
        f'<tr><th scope="row">{escape(name.replace("_", " "))}</th><td>{escape(_text(fact))}</td></tr>'
        for name, fact in facts.items()
    ]
    body = "\n".join(lines)
    return f'<div class="spec"><table>\n{body}\n</table></div>'


def _text(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_text(inner)}" for name, inner in value.items()).replace("_", " ")
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _versions() -> str:
    found = [f"regrow {regrow.__version__}", f"Python {platform.python_version()}"]
    for package in _PACKAGES:
        try:
            found.append(f"{package} {metadata.version(package)}")
        except metadata.PackageNotFoundError:
            continue
    return ", ".join(found)
