"""One self-contained HTML file that says what was seen in a study, shows it, and tells how it was made."""

import json
import platform
from collections.abc import Mapping
from html import escape
from importlib import metadata, resources
from pathlib import Path
from typing import Any

import polars as pl

import regrow
from regrow.experiments.store import write_atomically
from regrow.report import curves as curve_table
from regrow.report import figures
from regrow.report.appearance import colours, label
from regrow.report.view import view_of

_PACKAGES = ("torch", "numpy", "numba")


def write_report(
    folder: Path,
    curves: pl.DataFrame,
    spec_text: Mapping[str, Any],
    command: str,
    *,
    title: str = "",
    caption: str = "",
    planned_tasks: int | None = None,
    planned_runs: int | None = None,
) -> tuple[Path, Path]:
    """Write `figure.png` and `report.html` into `folder`, each whole or not at all, and return their paths.

    The page has a title, what is seen in one sentence, the figure as inline SVG, the table, and how it was made. It
    loads nothing from anywhere, follows the reader's light or dark scheme and can be printed.

    Args:
        folder: where to write; it exists.
        curves: one row for each task of each run: study, scale, method, seed, engine, task and any of accuracy or
            squared_error, dormant, effective_rank, weight_magnitude, replacements, seconds. Runs may be unfinished: the
            page says so.
        spec_text: what the study was, in the order in which it is to be listed.
        command: what to type to get these curves again.
        title: the heading; the name and scale of the study if empty.
        caption: what the problem is, in words, for the figure.
        planned_tasks: tasks of a finished run, if known.
        planned_runs: runs of the whole study, if known.

    Raises:
        ConfigError: the table lacks a key column or has nothing to draw.
        StateError: no run has finished its first task.
        StoreError: a file cannot be written.
    """
    curve_table.check(curves)
    title = title or _title(curves)
    settled = curve_table.settle(curves, planned_tasks, planned_runs)
    view = view_of(settled.curves)
    seen = view.sentence(settled.curves)
    caption = " ".join(filter(None, [caption, settled.remark]))
    picture, page = folder / "figure.png", folder / "report.html"
    write_atomically(picture, figures.png(view.draw(settled.curves, title, caption)))
    drawing = figures.svg(view.draw(settled.curves, "", caption), seen)
    body = f"""
<h1>{escape(title)}</h1>
<p class="seen">{escape(seen)}</p>
{f'<p class="remark">{escape(settled.remark)}</p>' if settled.remark else ""}
<figure>{drawing}</figure>
<h2>In numbers</h2>
{_values(settled.curves)}
<h2>How it was made</h2>
<pre><code>{escape(command)}</code></pre>
{_made(settled.curves, spec_text)}
"""
    write_atomically(page, _document(title, body).encode())
    return picture, page


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
    return f"""<div class="wide values"><table>
<thead><tr>{head}</tr></thead>
<tbody>
{body}
</tbody>
</table></div>
<p class="note">Means over seeds; in brackets the 95 % bootstrap interval of the mean. An arrow leads from the first
tasks to the last ones. Each prediction is judged before the network learns from the example. Replacements and
seconds are those of one run.</p>"""


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
