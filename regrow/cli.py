"""The command: run, list, report, watch.

Everything heavy is imported by the command that needs it, so that `regrow --help` answers at once.
"""

import io
import os
import re
import shlex
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

try:
    from cyclopts import App, CycloptsError, Parameter
except ModuleNotFoundError:
    sys.exit("regrow: the command needs the extra 'studies': pip install 'regrow[studies]'")
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

import regrow
from regrow.errors import ConfigError, DataError, RegrowError, StoreError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from regrow.experiments.execute import Failure
    from regrow.experiments.spec import RunSpec
    from regrow.experiments.store import RunFolder
    from regrow.experiments.study import Study
    from regrow.report.page import Section
    from regrow.report.summary import Cells

app = App(
    name="regrow",
    help="Keeps deep networks able to learn for as long as they run: studies of loss of plasticity.",
    version=regrow.__version__,
)
_WIDE = 170  # columns that the table of results needs as a whole
_LESSER = ("Seeds", "Effective", "Mean", "Seconds")
# A log or a pipe has no width: nothing in it need be cut.
_has_width = sys.stdout.isatty() or "COLUMNS" in os.environ
console = Console(highlight=False, markup=False, width=None if _has_width else 200)


@app.command
def run(
    study: str,
    /,
    *,
    scale: str = "laptop",
    seeds: str | None = None,
    methods: str | None = None,
    engine: str = "auto",
    workers: int | None = None,
    data: str | None = None,
    out: Path = Path("runs"),
    shard: str | None = None,
    on: str = "local",
    budget: str | None = None,
    dry_run: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Run a study, or go on with it, then report what is seen.

    Runs that are done are not run again. Stopped in any way, the same command goes on where it was.

    Args:
        study: its name; `regrow list` shows all.
        scale: one of the study's; `regrow list` shows them. Settings may follow: laptop+tasks=50+label_noise=0.1
        seeds: how many (5), or which (0:30, the last one left out). Default: as the scale says.
        methods: names with commas between them. Default: all of the study.
        engine: fused, plain, or auto: fused where it can serve the methods; or batched: all seeds of a method learn
            side by side in one process, on a GPU if there is one. On a CPU that is the slowest.
        workers: processes at once. Default: one per core.
        data: which images, where the study reads any: a path, a name below REGROW_DATA, or an hf:// address. Default:
            as the scale says.
        out: folder of all runs.
        shard: i/n runs only the i-th of n parts of the study, for arrays of jobs.
        on: local; ray, a cluster that runs on this machine or is started; or the address of one, ray://host:port, whose
            machines all see the folder of all runs.
        budget: stop after so long, such as 30m, 2h or 90s, with everything saved; the exit code is then 3.
        dry_run: only say what would be run, and what it is expected to cost.
    """
    import regrow.studies  # noqa: F401  registers all studies
    from regrow.experiments.display import display_for
    from regrow.experiments.execute import Ended, Failure, Job, cores, execute
    from regrow.experiments.store import RunFolder
    from regrow.experiments.study import study_named

    chosen = study_named(study)
    every = chosen.specs(scale, _seeds(seeds), methods.split(",") if methods else None, engine, data)
    specs = _part(every, shard)
    until = _until(budget)
    at_once = _at_least_one(workers, cores()) if on == "local" else workers
    _announce(chosen, specs, out, on, at_once)
    if dry_run:
        _plan(specs, out)
        _estimate(chosen, specs, out, at_once or cores())
        return 0

    jobs: list[Job] = []
    ended = Ended()
    for spec in specs:
        job = Job(spec, RunFolder(out / spec.study / spec.key), type(chosen).__module__)
        try:
            RunFolder.create(out, spec)
            if job.folder.is_done():
                continue
            job.task = job.folder.length()
            jobs.append(job)
        except StoreError as error:
            ended.failures.append(Failure(job, str(error)))
    if len(jobs) + len(ended.failures) < len(specs):
        console.print(f"{len(specs) - len(jobs) - len(ended.failures)} of {len(specs)} runs are done already.")
    if jobs and scale.partition("+")[0] != "smoke":
        try:
            _estimate(chosen, [job.spec for job in jobs], out, at_once or cores())
        except RegrowError as error:  # the other arms go on, and this one fails in its own folder
            console.print(f"  expected  unknown: {error}", soft_wrap=True)
    try:
        with display_for(console) as display:
            outcome = execute(jobs, at_once, display, on, until)
    except KeyboardInterrupt:
        console.print(f"Stopped. Every run is kept; to go on: {_command()}", soft_wrap=True)
        return 130
    failures = ended.failures + outcome.failures
    try:
        _report(chosen, every, out)
    finally:  # a folder that cannot be read is told of beside the others
        _complain(failures)
    if outcome.left:
        left = f"{_runs(outcome.left)} left, with everything saved"
        console.print(f"The time is over: {left}; to go on: {_command()}", soft_wrap=True)
    return 1 if failures else 3 if outcome.left else 0


@app.command(name="list")
def list_(what: Literal["studies", "methods"] | None = None, /) -> None:
    """Show the studies with their scales, and the methods with their settings.

    Args:
        what: only the studies; or only the methods, with what each needs and remembers and where it comes from.
    """
    if what == "methods":
        _list_methods()
        return
    import regrow.studies  # noqa: F401  registers all studies
    from regrow.experiments.study import Study
    from regrow.methods import methods_by_name
    from regrow.methods.overview import overview

    studies = Table("study", "scale", "what to expect", title="Studies", title_justify="left", box=box.SIMPLE)
    for name, study in sorted(Study.registry.items()):
        studies.add_row(Text(name, "bold"), "", study.summary)
        for scale, details in study.scales.items():
            studies.add_row("", scale, details.summary)
    console.print(studies)
    if what == "studies":
        return
    methods = Table(
        "method", "what it does", "settings and defaults", title="Methods", title_justify="left", box=box.SIMPLE
    )
    for name, (kind, extra) in methods_by_name().items():
        settings = "\n".join(f"{key}={value!r}" for key, value in kind(**extra).settings().items())
        methods.add_row(Text(name, "bold"), overview(name).line, settings)
    console.print(methods)


def _list_methods() -> None:
    from regrow.methods import methods_by_name
    from regrow.methods.overview import overview

    table = Table(
        "method", "kind", "what it does", "needs", "edits", "works", "cost", "state", "reference", box=box.SIMPLE
    )
    for name in methods_by_name():
        found = overview(name)
        needs, edits = (", ".join(facts) or "–" for facts in (found.needs, found.edits))
        told = (found.kind, found.line, needs, edits, found.works, found.cost, found.state, found.reference)
        table.add_row(Text(found.name, "bold"), *told)
    console.print(table)


@app.command
def report(folder: Path, /, *, curves: Path | None = None) -> None:
    """Draw figures, pages and tables again, from whatever runs are there; of several studies, one page on all too.

    Args:
        folder: what `regrow run` wrote: runs, or one study in it.
        curves: also write means and bands in bins of tasks into this file, as parquet: small enough to be kept.
    """
    import regrow.studies  # noqa: F401  registers all studies
    from regrow.experiments.store import find_folders
    from regrow.experiments.study import study_named
    from regrow.report.export import write_curves
    from regrow.report.page import write_collection

    groups: dict[tuple[str, str], list[RunFolder]] = {}
    for found in find_folders(folder):
        spec = found.spec()
        groups.setdefault((spec.study, spec.scale), []).append(found)
    sections = []
    for (study, _), folders in groups.items():
        kept = _newest(folders)
        sections.append(_report(study_named(study), [item.spec() for item in kept], kept[0].path.parent.parent))
    reported = [section for section in sections if section is not None]
    if len(reported) > 1:
        console.print(f"all     {write_collection(folder, reported)}", soft_wrap=True)
    if curves is not None and reported:
        write_curves(curves, [section.curves for section in reported])
        console.print(f"curves  {curves}", soft_wrap=True)


@app.command
def watch(folder: Path, /, *, once: bool = False) -> None:
    """Show how all runs in a folder stand, until they are done.

    Args:
        folder: what `regrow run` writes: runs, or one study in it.
        once: show it once and end.
    """
    from rich.live import Live

    from regrow.experiments.overview import overview

    table, ended = overview(folder)
    if once:
        console.print(table)
        return
    try:
        with Live(table, console=console, auto_refresh=False) as live:
            while not ended:
                time.sleep(1)
                table, ended = overview(folder)
                live.update(table, refresh=True)
    except KeyboardInterrupt:
        pass


def _seeds(text: str | None) -> range | None:
    if text is None:
        return None
    if not re.fullmatch(r"\d+(:\d+)?", text):
        raise ConfigError(f"--seeds {text} is not understood: give a number (5) or a range (0:30, the last left out).")
    seeds = range(*map(int, text.split(":")))
    if not seeds:
        raise ConfigError(
            f"--seeds {text} means no seed at all: give a number (5) or a range (0:30, the last left out)."
        )
    return seeds


def _part(specs: "list[RunSpec]", shard: str | None) -> "list[RunSpec]":
    if shard is None:
        return specs
    match = re.fullmatch(r"(\d+)/(\d+)", shard)
    part, parts = map(int, match.groups()) if match else (0, 0)
    if not 1 <= part <= parts:
        raise ConfigError(f"--shard {shard} is not understood: give i/n with i from 1 to n, such as 2/4.")
    return specs[part - 1 :: parts]


def _at_least_one(workers: int | None, cores: int) -> int:
    if workers is not None and workers < 1:
        raise ConfigError(f"--workers {workers} cannot work: give 1 or more; this machine has {cores} cores.")
    return workers or cores


def _until(budget: str | None) -> float | None:
    """When the time is over, by the system's clock."""
    if budget is None:
        return None
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", budget)
    if not match or not float(match[1]):
        raise ConfigError(f"--budget {budget} is not understood: give a time such as 90s, 30m, 2h or 1d.")
    return time.time() + float(match[1]) * {"s": 1, "m": 60, "h": 3600, "d": 86400}[match[2]]


def _plan(specs: "list[RunSpec]", out: Path) -> None:
    from regrow.experiments.store import RunFolder

    for spec in specs:
        folder = RunFolder(out / spec.study / spec.key)
        line = f"{folder.path}  {spec.title}, {spec.engine} engine: {folder.state()}"
        console.print(line, soft_wrap=True)


def _estimate(study: "Study", specs: "list[RunSpec]", out: Path, workers: int) -> None:
    """Say how long all that is left of some runs is expected to take, and how much disk it needs."""
    from regrow.experiments.estimate import estimate

    found = estimate(specs, type(study).__module__, out, workers)
    if found is not None:
        console.print(f"  expected  {found.text(workers)}", soft_wrap=True)


def _announce(study: "Study", specs: "list[RunSpec]", out: Path, on: str, workers: int | None) -> None:
    if not specs:
        raise ConfigError("This shard has no run in it: give fewer shards, or more seeds.")
    first = specs[0]
    methods = list(dict.fromkeys(spec.method for spec in specs))
    count = len({seed for spec in specs for seed in spec.seeds})
    seeds = f"{count} seed{'s' if count > 1 else ''}"
    console.print(f"{study.name}, {first.scale}: {study.summary}", style="bold", soft_wrap=True)
    console.print(f"  data      {study.origin(first.problem)}", soft_wrap=True)
    console.print(f"  runs      {len(specs)}: {', '.join(methods)}; {seeds}; {first.tasks} tasks", soft_wrap=True)
    console.print(f"  engine    {_engines(specs)}", soft_wrap=True)
    console.print(f"  folder    {out / study.name}", soft_wrap=True)
    number = "as many as there are cores" if workers is None else str(min(workers, len(specs)))
    console.print(f"  workers   {number}, one core each{'' if on == 'local' else f', on {on}'}")


def _engines(specs: "list[RunSpec]") -> str:
    """Which engine does what, and why."""
    from regrow.experiments.study import why_plain

    parts = []
    if any(spec.engine == "fused" for spec in specs):
        parts.append("fused, which can do these methods: the same steps as plain PyTorch in one compiled loop")
    if any(spec.engine == "batched" for spec in specs):
        parts.append(f"batched, all seeds of a method side by side, on {specs[0].problem['device']}")
    reasons: dict[str, list[str]] = {}
    for method, spec in {spec.method: spec for spec in specs if spec.engine == "plain"}.items():
        obstacle = why_plain(spec)
        reason = "as asked" if obstacle is None else f"since the fused engine cannot, because {obstacle}"
        reasons.setdefault(reason, []).append(method)
    for reason, methods in reasons.items():
        names = "all methods" if len(methods) == len({spec.method for spec in specs}) > 1 else ", ".join(methods)
        parts.append(f"plain PyTorch for {names}, {reason}")
    return "; ".join(parts)


def _report(study: "Study", specs: "list[RunSpec]", out: Path) -> "Section | None":
    """Draw all runs of a study at one scale, as far as they have come; None if there is nothing yet."""
    from regrow.experiments.results import read_curves
    from regrow.experiments.store import RunFolder, make_folder
    from regrow.report.curves import settle
    from regrow.report.page import section, write_report
    from regrow.report.view import view_of

    first = specs[0]
    folders = [RunFolder(out / spec.study / spec.key) for spec in specs]
    curves = read_curves(folder for folder in folders if folder.state() != "waiting")
    if curves.is_empty():
        console.print(f"There is nothing to report yet on {first.study}, {first.scale}.")
        return None
    place = out / first.study / first.scale
    make_folder(place)
    planned = sum(len(spec.seeds) for spec in specs)
    content = section(
        curves,
        _description(study, specs),
        _command_for(study, specs),
        caption=study.caption_of(first.scale),
        planned_tasks=first.tasks,
        planned_runs=planned,
        counterparts=study.counterparts(first.scale),
    )
    picture, page = write_report(place, content)
    settled = settle(curves, first.tasks, planned)
    view = view_of(settled.curves)
    console.print(_values(view.cells(view.table(settled.curves))))
    console.print(" ".join(filter(None, [content.seen, settled.remark])), soft_wrap=True)
    console.print(f"figure  {picture}\npage    {page}", soft_wrap=True)
    return content


def _values(cells: "Cells") -> Table:
    """The table of the page; on a narrow terminal without intervals and with fewer columns."""
    wide = console.width >= _WIDE
    shown = [index for index, heading in enumerate(cells.headings) if wide or not heading.startswith(_LESSER)]
    table = Table(box=box.SIMPLE, padding=(0, 1, 0, 0), pad_edge=False)
    for index in shown:
        table.add_column(cells.headings[index], justify="right" if index else "left")
    for row in cells.rows:
        table.add_row(*(row[index] if wide else row[index].partition(" (")[0] for index in shown))
    return table


def _description(study: "Study", specs: "list[RunSpec]") -> dict[str, object]:
    first = specs[0]
    settings = {}
    for spec in specs:
        parts = [
            f"{each['name']} " + ", ".join(f"{key} {value}" for key, value in each["settings"].items())
            for each in spec.methods
        ]
        settings[spec.method] = "; ".join(parts)
    problem = {key: value for key, value in first.problem.items() if key != "data"}
    return {
        "study": study.name,
        "scale": first.scale,
        "data": _origin(study, first.problem),
        **problem,
        "settings": settings,
    }


def _origin(study: "Study", problem: "Mapping[str, Any]") -> str:
    """What data was read; a report needs no data, so that they may be gone."""
    try:
        return study.origin(problem)
    except DataError:
        return f"{problem['data']}, which is not here any more"


def _command_for(study: "Study", specs: "list[RunSpec]") -> str:
    """What to type to make these runs from nothing."""
    first = specs[0]
    seeds = sorted({seed for spec in specs for seed in spec.seeds})
    words = ["regrow", "run", first.study, "--scale", first.scale]
    words += ["--seeds", f"{seeds[0]}:{seeds[-1] + 1}" if seeds[0] else str(seeds[-1] + 1)]
    words += ["--methods", ",".join(dict.fromkeys(spec.method for spec in specs))]
    for engine in ("plain", "batched"):
        if all(spec.engine == engine for spec in specs):
            words += ["--engine", engine]
    if first.problem.get("data") != study.scale(first.scale).problem.get("data"):
        words += ["--data", first.problem["data"]]
    return shlex.join(words)


def _newest(folders: "list[RunFolder]") -> "list[RunFolder]":
    """Of several runs of one method and seed, with other settings or another engine, keep the one begun last."""
    taken: set[tuple[str, int]] = set()
    kept = []
    for folder in sorted(folders, key=lambda item: (item.path / "spec.json").stat().st_mtime, reverse=True):
        spec = folder.spec()
        mine = {(spec.method, seed) for seed in spec.seeds}
        if not mine & taken:
            taken |= mine
            kept.append(folder)
    if len(kept) < len(folders):
        older = _runs(len(folders) - len(kept))
        console.print(f"Left out, as older and of other settings or another engine: {older}.", soft_wrap=True)
    return sorted(kept, key=lambda item: item.spec().seed)


def _runs(count: int) -> str:
    return f"{count} run{'' if count == 1 else 's'}"


def _complain(failures: "list[Failure]") -> None:
    for failure in failures:
        console.print(
            f"Failed: {failure.job.spec.title} in {failure.job.folder.path}: {failure.error}",
            style="red",
            soft_wrap=True,
        )
    if failures:
        console.print(f"Failed: {_runs(len(failures))}; to try again: {_command()}", soft_wrap=True)


def _command() -> str:
    return shlex.join(["regrow", *sys.argv[1:]])


def main() -> None:
    """Entry point: what regrow raises on purpose becomes one message on standard error, and exit code 2."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # "→" must stop no command on a terminal that cannot show it
            stream.reconfigure(errors="replace")
    try:
        code = app(sys.argv[1:], exit_on_error=False, result_action="return_value")
    except RegrowError as error:
        complaints = Console(stderr=True, highlight=False)
        complaints.print(Text.assemble(("error: ", "red"), str(error)), soft_wrap=True)
        code = 2
    except CycloptsError:  # already printed
        code = 2
    sys.exit(code)


if __name__ == "__main__":
    main()
