"""How long runs will take, and how much disk they need: measured on a second of each."""

import importlib
import multiprocessing
import time
from collections.abc import Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from regrow.errors import ConfigError, RegrowError
from regrow.experiments.execute import cores
from regrow.experiments.spec import RunSpec
from regrow.experiments.store import RunFolder

_SECONDS = 1.0  # of each arm
_MOST_ARMS = 40  # for more, the others are taken to be like these
_ROW_BYTES = 700  # of one task: in `curve.jsonl`, or `curve.parquet`, and `timing.jsonl`


class Sample(NamedTuple):
    """What was measured of one run: seconds of a whole one, and bytes of its checkpoint."""

    seconds: float
    checkpoint: int


@dataclass(frozen=True)
class Estimate:
    """What runs are expected to need.

    Attributes:
        core_seconds: of one core, for all.
        longest: seconds of the longest run.
        disk: bytes.
        runs: how many.
        arms: how many of them were measured.
    """

    core_seconds: float
    longest: float
    disk: int
    runs: int
    arms: int

    def text(self, workers: int) -> str:
        """One line on it, for so many runs at once."""
        whole = max(self.core_seconds / min(workers, self.runs), self.longest)
        return (
            f"about {_time(whole)} with {min(workers, self.runs)} at once ({_time(self.core_seconds)} of one core, at "
            f"most {_time(self.longest)} a run), {_size(self.disk)} on disk; from a second of each of {self.arms} arms"
        )


def estimate(specs: Sequence[RunSpec], module: str, out: Path, workers: int) -> Estimate | None:
    """Estimate what is left of some runs; None if nothing is.

    Each arm is begun as it would be with its first seed, in memory, and measured for a second. How far runs have come
    already is taken into account.

    Args:
        specs: the runs, of one study.
        module: the module that registers it.
        out: folder of all runs.
        workers: how many are measured at once; never more than this machine has cores.

    Raises:
        RegrowError: an arm cannot be begun.
    """
    left = {spec.key: _left(spec, out) for spec in specs}
    firsts: dict[str, RunSpec] = {}
    for spec in specs:
        if left[spec.key]:
            firsts.setdefault(spec.method, spec)
    if not firsts:
        return None
    chosen = list(firsts.values())[:: -(-len(firsts) // _MOST_ARMS)]
    # On this machine, wherever the runs themselves will be.
    with ProcessPoolExecutor(min(workers, cores(), len(chosen)), multiprocessing.get_context("spawn")) as pool:
        futures = {spec.method: pool.submit(sample, module, spec) for spec in chosen}
        try:
            samples = {method: _result(method, future) for method, future in futures.items()}
        except RegrowError:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    usual = Sample(
        sum(each.seconds for each in samples.values()) / len(samples), max(each.checkpoint for each in samples.values())
    )
    ours = {spec.key: samples.get(spec.method, usual) for spec in specs}
    return Estimate(
        sum(ours[key].seconds * share for key, share in left.items()),
        max(ours[key].seconds * share for key, share in left.items()),
        sum(ours[spec.key].checkpoint + _ROW_BYTES * spec.tasks * len(spec.seeds) for spec in specs if left[spec.key]),
        sum(share > 0 for share in left.values()),
        len(samples),
    )


def sample(module: str, spec: RunSpec) -> Sample:
    """Begin a run in memory, and measure it."""
    import torch

    importlib.import_module(module)
    from regrow.experiments.checkpoint import encode
    from regrow.experiments.study import study_named

    torch.set_num_threads(1)
    course = study_named(spec.study).course(spec)
    course.advance()  # the first piece compiles, and fills the caches
    began, start = time.perf_counter(), course.progress
    while time.perf_counter() - began < _SECONDS and course.progress < 1:
        course.advance()
    passed, share = time.perf_counter() - began, course.progress - start
    return Sample(passed / share if share else passed, len(encode(course.state_dict())))


def _result(method: str, future: "Future[Sample]") -> Sample:
    try:
        return future.result()
    except RegrowError:
        raise
    except Exception as error:  # whatever a study raises, or the loss of the process that measured
        raise ConfigError(
            f"{method} could not be measured ({type(error).__name__}: {error}): run it alone, by --methods {method} "
            "--seeds 1, to see why."
        ) from error


def _left(spec: RunSpec, out: Path) -> float:
    """The share of a run that is not done."""
    folder = RunFolder(out / spec.study / spec.key)
    return 0.0 if folder.state() == "done" else 1 - min(1.0, folder.length() / spec.tasks)


def _time(seconds: float) -> str:
    for size, name in ((86400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 2 * size:
            return f"{seconds / size:.3g} {name}"
    return f"{max(1, round(seconds))} s"


def _size(count: float) -> str:
    for size, name in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB")):
        if count >= size:
            return f"{count / size:.3g} {name}"
    return f"{max(1, round(count / 1e3))} kB"
