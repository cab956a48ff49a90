"""How all runs in a folder stand, as a table."""

from pathlib import Path

from rich import box
from rich.table import Table
from rich.text import Text

from regrow.engines.training import outcome_among
from regrow.experiments.results import read_rows
from regrow.experiments.spec import RunSpec
from regrow.experiments.store import Row, RunFolder, State, find_folders, over_seeds

_STYLES: dict[State, str] = {"running": "bold", "done": "green", "failed": "red", "stopped": "yellow", "waiting": "dim"}


def overview(place: Path) -> tuple[Table, bool]:
    """Read all runs below a folder.

    Returns:
        one line a run, and whether all of them have ended (done or failed).

    Raises:
        StoreError: there are none, or a folder is damaged.
    """
    table = Table("study", "scale", "method", "seed", "state", "task", "outcome", "dormant", box=box.SIMPLE)
    runs = sorted(((folder.spec(), folder) for folder in find_folders(place)), key=lambda run: _order(run[0]))
    counts: dict[State, int] = {}
    for spec, folder in runs:
        state, row = folder.state(), _last_row(folder)
        counts[state] = counts.get(state, 0) + 1
        table.add_row(
            spec.study,
            spec.scale,
            spec.method,
            str(spec.seed) if not spec.beside else f"{spec.seed}–{max(spec.seeds)}",
            Text(state, _STYLES[state]),
            f"{row['task'] + 1 if row else 0}/{spec.tasks}",
            _outcome(row),
            "" if row is None or row.get("dormant") is None else f"{100 * row['dormant']:.1f} %",
        )
    # Above the runs, where a terminal of few lines shows it.
    table.title = ", ".join(f"{count} {state}" for state, count in sorted(counts.items()))
    return table, counts.keys() <= {"done", "failed"}


def _order(spec: RunSpec) -> tuple[str, str, str, int]:
    return spec.study, spec.scale, spec.method, spec.seed


def _last_row(folder: RunFolder) -> Row | None:
    rows = read_rows(folder)
    return None if rows.is_empty() else {name: over_seeds(value) for name, value in rows.row(-1, named=True).items()}


def _outcome(row: Row | None) -> str:
    outcome = outcome_among(row or ())
    return outcome.text(row[outcome.measure]) if row else ""
