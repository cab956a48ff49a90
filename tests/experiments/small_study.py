"""A study that takes seconds, saves after every third task, and misbehaves when told to. Importing it registers it."""

import math
import os
import signal
import sys
import time
from pathlib import Path

from rich.console import Console

import regrow.experiments.display as display_module
import regrow.experiments.run as run_module
from regrow.experiments.arm import Arm
from regrow.experiments.display import display_for
from regrow.experiments.execute import Job, execute
from regrow.experiments.scale import Scale
from regrow.experiments.store import RunFolder
from regrow.methods import ContinualBackprop, ShrinkAndPerturb
from regrow.studies.permuted_digits import PermutedDigits

CHECKPOINT_RULE = run_module._checkpoint_due  # of all other studies
run_module._checkpoint_due = lambda task, passed, cost: task % 3 == 0

_PROBLEM = {
    "data": "optical-digits",
    "images": 100,
    "passes": 1,
    "tasks": 12,
    "widths": [16, 16],
    "learning_rate": 0.01,
    "init": "kaiming_uniform",
    "measured_images": 100,
}


class SmallStudy(PermutedDigits, name="small"):
    scales = {fault: Scale("", range(2), _PROBLEM | {"fault": fault}) for fault in ("none", "raise", "die")}

    def arms(self, scale):
        both = (ShrinkAndPerturb(1e-3, 1e-3), ContinualBackprop(1e-2, 20, weight_sums="each_step"))
        return {"cbp+noise": Arm(both)}

    def stream(self, problem, seed):
        stream = super().stream(problem, seed)
        if problem["fault"] == "raise" and seed:
            raise ValueError("no data today")
        return Trap(stream, deadly=problem["fault"] == "die")


class Trap:
    """A stream that stops before the task whose number is in the file $GATE, or kills its process at task 3."""

    def __init__(self, stream, deadly):
        self.stream, self.deadly = stream, deadly

    def task(self, index):
        gate = os.environ.get("GATE")
        while index and gate and Path(gate).read_text() == str(index):
            time.sleep(0.01)
        if self.deadly and index == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return self.stream.task(index)


def jobs(out, engine, seeds=2, fault="none"):
    specs = SmallStudy().specs(fault, range(seeds), engine=engine)
    return [Job(spec, RunFolder.create(Path(out), spec), "tests.experiments.small_study") for spec in specs]


def main(out, engine, seeds="2", fault="none"):
    """What `regrow run` does, without the report; the exit code is the number of failed runs, 130 after Ctrl-C."""
    display_module._LOG_SECONDS = math.inf  # on a busy machine a line now and then may come at any point
    try:
        with display_for(Console(width=200)) as display:
            failures = execute(jobs(out, engine, int(seeds), fault), workers=1, display=display).failures
    except KeyboardInterrupt:
        sys.exit(130)
    for failure in failures:
        print(failure.error)
    sys.exit(len(failures))
