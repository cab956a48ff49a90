"""How everything here is timed: cases in turn, over and over, compared within each round.

A machine gets faster and slower by tens of per cent over minutes. Two cases that ran one right after the other met
nearly the same machine, so what is reported is the median over rounds of the ratio within a round. The baseline
runs twice in every round; the ratio of the two shows how much of a difference is noise.
"""

import argparse
import gc
import json
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path

import torch

AGAIN = " (again)"


@dataclass(frozen=True)
class Row:
    """One case against its baseline.

    Attributes:
        case: its name.
        baseline: name of what it is compared with.
        milliseconds: median time of a call.
        ratio: median over rounds of its time divided by the baseline's in the same round.
        low: lower quartile of that.
        high: upper quartile.
        rounds: how many rounds.
    """

    case: str
    baseline: str
    milliseconds: float
    ratio: float
    low: float
    high: float
    rounds: int


def compare(cases: dict[str, Callable[[], None]], baseline: str, rounds: int) -> list[Row]:
    """Time cases against one of them, in CPU time of one thread.

    Args:
        cases: what to call, by name; each is called once before the first round, untimed.
        baseline: name of the case to compare the others with.
        rounds: how often each is timed, at least 2.

    Returns:
        A row for each case, in order, with one for the baseline against itself after the baseline's.
    """
    times = time_in_turn(cases | {baseline + AGAIN: cases[baseline]}, rounds)
    return compare_times({name: times[name] for name in (baseline, baseline + AGAIN, *cases)}, baseline)


def time_in_turn(
    cases: dict[str, Callable[[], None]], rounds: int, clock: Callable[[], float] | None = None
) -> dict[str, list[float]]:
    """Seconds that each case takes in each round, with one thread of torch: CPU time, or what another clock says."""
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    for call in dict.fromkeys(cases.values()):
        call()
    times: dict[str, list[float]] = {name: [] for name in cases}
    for round_ in range(rounds):
        gc.collect()
        # There and back, so that no case always comes after the same other one.
        for name in cases if round_ % 2 == 0 else reversed(cases):
            times[name].append(seconds(cases[name], clock))
    return times


def compare_times(times: dict[str, list[float]], baseline: str) -> list[Row]:
    """A row for each case, in order, from what each took in each round."""
    return [_row(name, baseline, mine, times[baseline]) for name, mine in times.items()]


def report(rows: Sequence[Row], title: str, json_path: Path | None, notes: Sequence[str] = ()) -> None:
    """Print a table, and write the same to a JSON file if there is a path."""
    about = environment()
    print(f"\n{title}\n" + "\n".join([*notes, *(f"{key}: {value}" for key, value in about.items())]))
    width = max(len(row.case) for row in rows)
    print(f"\n{'case':{width}}  {'ms':>10}  {'time, x baseline':>17}  {'quartiles':>16}  {'faster by':>9}")
    for row in rows:
        if row.case == row.baseline:
            print()
        print(
            f"{row.case:{width}}  {row.milliseconds:10.3f}  {row.ratio:17.4f}  {row.low:7.4f}–{row.high:<8.4f}  "
            f"{1 / row.ratio:8.2f}x"
        )
    print(f"\nMedians of {rows[0].rounds} interleaved rounds; '{AGAIN.strip()}' is the baseline once more: the noise.")
    if json_path is not None:
        content = {"title": title, "notes": list(notes), "environment": about, "rows": [asdict(row) for row in rows]}
        json_path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n")
        print(f"Written to {json_path}.")


def parse(description: str) -> argparse.Namespace:
    """Read the command line of a benchmark."""
    return argument_parser(description).parse_args()


def argument_parser(description: str) -> argparse.ArgumentParser:
    """What every benchmark takes: `--json FILE` (`.json`) and `--quick` (`.quick`)."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results there, too")
    parser.add_argument("--quick", action="store_true", help="few rounds: to see that it runs, not to be quoted")
    return parser


def environment() -> dict[str, str]:
    """What the figures depend on."""
    packages = [f"{name} {metadata.version(name)}" for name in ("torch", "numpy", "numba")]
    return {
        "cpu": _cpu(),
        "versions": ", ".join([f"python {platform.python_version()}", *packages]),
        "threads": f"{torch.get_num_threads()}, denormal numbers flushed to zero",
    }


def seconds(call: Callable[[], object], clock: Callable[[], float] | None = None) -> float:
    """CPU time that a call takes, or what another clock says, without garbage collection."""
    clock = clock or time.process_time
    gc.disable()
    try:
        start = clock()
        call()
        return clock() - start
    finally:
        gc.enable()


def _row(case: str, baseline: str, times: Sequence[float], reference: Sequence[float]) -> Row:
    ratios = [mine / other for mine, other in zip(times, reference, strict=True)]
    low, ratio, high = statistics.quantiles(ratios, n=4, method="inclusive")
    return Row(case, baseline, statistics.median(times) * 1000, ratio, low, high, len(times))


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
