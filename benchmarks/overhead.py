"""What methods cost on a training step: `python -m benchmarks.overhead`.

Each network is trained by the same loop with and without a method, in turn: every method of the registry at its
default settings, variants of some, and several methods at once.

Where a default does nothing within the few steps that are timed, it is timed so that its costs are seen. Maturity is 0,
so that every timed step replaces as many units as later ones. A method that acts once per period is timed twice: with a
period that never comes, which gives the cost of a quiet step, and with period 1, which gives what it costs to act once.
What acts at task changes has one of these timed by itself.

Besides the difference between whole steps, which is what counts and is noisy, the time within regrow is taken.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from unittest.mock import patch

import torch
from torch import Tensor, nn

import regrow
from benchmarks.interleave import (
    AGAIN,
    Row,
    argument_parser,
    compare_times,
    environment,
    seconds,
    time_in_turn,
)
from benchmarks.workloads import WORKLOADS, Workload
from regrow.attachment.attachment import Attachment
from regrow.methods import (
    L2,
    ContinualBackprop,
    L2Init,
    Method,
    QuotaMethod,
    SelfNormalizedReset,
    ShrinkAndPerturb,
    WeightMethod,
    method_named,
)
from regrow.units.blocks import in_blocks
from regrow.units.taps import TapHook

BARE = "bare"
SEVERAL = "cbp and snr on groups in turn, l2, l2-init"
NEVER = 2000  # steps: more than are timed; some methods remember as much as comes between two acts
ROUNDS_OF_A_BUILD = 2
TOGETHER = 6  # methods compared within one round: the fewer, the nearer they are to their baseline in time

Loss = Callable[[], Tensor]
Put = Callable[[nn.Module, torch.optim.Optimizer, Tensor], Sequence[Attachment]]


@dataclass(frozen=True)
class Case:
    """One line of the table.

    Attributes:
        quiet: attaches what is timed at every step.
        acting: attaches the same so that it acts at every step; None if it does so anyhow, or never.
        period: steps from one act to the next by default.
        at_task_change: it acts at task changes.
        inputs: how many of the last inputs it looks at when it acts.
    """

    quiet: Put
    acting: Put | None = None
    period: int | None = None
    at_task_change: bool = False
    inputs: int = 0


@dataclass(frozen=True)
class Cost:
    """What a method costs on one network, in ms of CPU time per step and in per cent of the bare step.

    Attributes:
        network: the network.
        method: the method.
        bare_ms: of the bare step.
        step_ms: what the method adds to a step, or of a quiet one if it acts once per period.
        percent: the same.
        low: lower quartile of that.
        high: upper quartile.
        inside_ms: the same as `step_ms`, but timed where regrow is called: without what it does to the cache for
            others, and without their noise.
        act_ms: of acting once per period, timed so.
        period: in steps, by default.
        amortized_percent: per step, with the acts, timed so.
        task_change_ms: of acting once at a task change.
    """

    network: str
    method: str
    bare_ms: float
    step_ms: float
    percent: float
    low: float
    high: float
    inside_ms: float = 0.0
    act_ms: float | None = None
    period: int | None = None
    amortized_percent: float | None = None
    task_change_ms: float | None = None


def cases() -> dict[str, Case]:
    """Every method of the registry, and what else is in the table."""
    found = {name: case_of(kind()) for name, kind in Method.registry.items()}
    variants = {
        "cbp, weight_sums=each_step": ContinualBackprop(weight_sums="each_step"),
        "cbp, utility_rule=adaptable_contribution": ContinualBackprop(utility_rule="adaptable_contribution"),
        "cbp, utility_rule=first_order": ContinualBackprop(utility_rule="first_order"),
        "shrink-and-perturb, noise=shared": ShrinkAndPerturb(noise="shared"),
        "shrink-and-perturb, period=16": ShrinkAndPerturb(period=16),
        "l2-init, decoupled=True": L2Init(decoupled=True),
        "l2-init, period=16": L2Init(period=16),
    }
    return found | {name: case_of(method) for name, method in variants.items()} | {SEVERAL: Case(_attach_several)}


def case_of(method: Method) -> Case:
    """How a method is timed."""
    if isinstance(method, QuotaMethod):
        return Case(_attaching(replace(method, maturity_threshold=0)))
    at_task_change = isinstance(method, WeightMethod) and method.acts_at_task_changes
    period = getattr(method, "period", 1)
    if period > 1:
        never, always = (
            _attaching(method_named(method.name, **(method.settings() | {"period": steps}))) for steps in (NEVER, 1)
        )
        inputs = method.feature_examples if isinstance(method, WeightMethod) else 0
        return Case(never, always, period, at_task_change, inputs)
    return Case(_attaching(method), at_task_change=at_task_change)


def _attaching(method: Method) -> Put:
    return lambda model, optimizer, inputs: [regrow.attach(model, optimizer, method, example=inputs)]


def _attach_several(model: nn.Module, optimizer: torch.optim.Optimizer, inputs: Tensor) -> Sequence[Attachment]:
    """Two unit methods have to share the groups out, by two calls; weight methods join either."""
    groups = [group.name for group in regrow.find_units(model, inputs) if group.status in ("free", "shared")]
    beside = [ContinualBackprop(maturity_threshold=0), L2(), L2Init()]
    return [
        regrow.attach(model, optimizer, beside, example=inputs, include=lambda group: group.name in groups[::2]),
        regrow.attach(
            model,
            optimizer,
            SelfNormalizedReset(period=NEVER),
            example=inputs,
            include=lambda group: group.name in groups[1::2],
        ),
    ]


class Stopwatch:
    """CPU time of everything that regrow does while a network is trained."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def inside(self, call: Callable[[], object]) -> float:
        """Seconds of a call that are regrow's."""
        before = self.seconds
        call()
        return self.seconds - before

    @contextmanager
    def running(self) -> Iterator[None]:
        """Within the block, what is attached is timed."""
        with ExitStack() as stack:
            for kind, name in ((TapHook, "__call__"), (Attachment, "_before_step"), (Attachment, "_after_step")):
                stack.enter_context(patch.object(kind, name, self._timed(getattr(kind, name))))
            yield

    def _timed(self, function: Callable[..., object]) -> Callable[..., object]:
        def call(*args: object) -> object:
            start = time.process_time()
            try:
                return function(*args)
            finally:
                self.seconds += time.process_time() - start

        return call


def training(workload: Workload, put: Put | None = None) -> tuple[Callable[[], None], Sequence[Attachment], Loss]:
    """The loop, with something attached or nothing: a call takes the workload's number of steps."""
    model, inputs, loss = workload.build()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    attachments = () if put is None else put(model, optimizer, inputs)

    def train() -> None:
        for _ in range(workload.steps):
            optimizer.zero_grad()
            loss().backward()
            optimizer.step()

    return train, attachments, loss


def costs(name: str, workload: Workload, wanted: dict[str, Case], rounds: int) -> Iterator[Cost]:
    """The costs of some cases on one network, and at last of another bare loop: the noise.

    Everything is built anew after a few rounds, since where a network lies in memory can make it some per cent faster
    or slower.
    """
    names = list(wanted)
    watch = Stopwatch()
    noise: dict[str, list[float]] = {BARE: [], BARE + AGAIN: []}
    for start in range(0, len(names), TOGETHER):
        chunk = names[start : start + TOGETHER]
        puts: dict[str, Put | None] = {BARE: None, BARE + AGAIN: None} | {key: wanted[key].quiet for key in chunk}
        times: dict[str, list[float]] = {key: [] for key in puts}
        inside: dict[str, list[float]] = {key: [] for key in puts}
        for done in range(0, rounds, ROUNDS_OF_A_BUILD):
            with watch.running():
                calls = {key: _noting(watch, training(workload, put)[0], inside[key]) for key, put in puts.items()}
                for key, taken in time_in_turn(calls, min(ROUNDS_OF_A_BUILD, rounds - done)).items():
                    times[key] += taken
        bare, _, *rows = compare_times(times, BARE)
        bare_ms = bare.milliseconds / workload.steps
        for key, row in zip(chunk, rows, strict=True):
            inside_ms = statistics.median(inside[key]) * 1000 / workload.steps
            yield _with_acts(replace(_cost(name, row, bare_ms), inside_ms=inside_ms), wanted[key], workload, watch)
        for key, taken in noise.items():
            taken += times[key]
    bare, again = compare_times(noise, BARE)
    yield _cost(name, again, bare.milliseconds / workload.steps)


def _cost(network: str, row: Row, bare_ms: float) -> Cost:
    percent, low, high = ((ratio - 1) * 100 for ratio in (row.ratio, row.low, row.high))
    return Cost(network, row.case, bare_ms, bare_ms * (row.ratio - 1), percent, low, high)


def _noting(watch: Stopwatch, call: Callable[[], None], taken: list[float]) -> Callable[[], None]:
    return lambda: taken.append(watch.inside(call))


def _with_acts(cost: Cost, case: Case, workload: Workload, watch: Stopwatch) -> Cost:
    if case.acting is not None and case.period is not None:
        with watch.running():
            train, _, loss = training(workload, case.acting)
            for _ in range(0, case.inputs, len(workload.inputs())):
                loss()  # what looks at the last inputs has them then
            act_ms = typical_ms(train, watch.inside) / workload.steps - cost.inside_ms
        amortized = 100 * (cost.inside_ms + act_ms / case.period) / cost.bare_ms
        cost = replace(cost, act_ms=act_ms, period=case.period, amortized_percent=amortized)
    if case.at_task_change:
        train, attachments, loss = training(workload, case.quiet)
        train()
        change_ms = typical_ms(lambda: attachments[0].task_changed(loss() for _ in range(1)))
        cost = replace(cost, task_change_ms=change_ms)
    return cost


def typical_ms(
    call: Callable[[], object], time_of: Callable[[Callable[[], object]], float] = seconds, times: int = 4
) -> float:
    """Median time of a call, in ms: of so many calls, or of fewer once they have taken four seconds."""
    taken: list[float] = []
    while len(taken) < times and sum(taken) < 4:
        taken.append(time_of(call))
    return statistics.median(taken) * 1000


def bounds(workload: Workload) -> str:
    """What anything costs that draws a number for each weight, or changes each weight."""
    weights = [weight.detach() for weight in workload.model().parameters()]

    def draw() -> None:
        for weight in weights:
            for (block,) in in_blocks(weight):
                torch.randn(block.shape)

    def change() -> None:
        for weight in weights:
            weight.mul_(1.0)

    count = sum(weight.numel() for weight in weights) / 1e6
    return (
        f"Bounds: {typical_ms(draw, times=9):.1f} ms to draw a normal number for each of the {count:.1f}M weights, "
        f"{typical_ms(change, times=9):.1f} ms to read and write each once if it is in the cache."
    )


def table(found: Sequence[Cost]) -> str:
    """The costs on one network, in markdown."""
    lines = [
        "| method | ms a step | % | quartiles | % inside | ms an act | % inside with acts | ms a task change |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for cost in found:
        act = "" if cost.act_ms is None else f"{_digits(cost.act_ms)} every {cost.period}"
        amortized = "" if cost.amortized_percent is None else f"{cost.amortized_percent:.1f}"
        change = "" if cost.task_change_ms is None else _digits(cost.task_change_ms)
        lines.append(
            f"| {cost.method} | {cost.step_ms:.2f} | {cost.percent:.1f} | {cost.low:.1f} to {cost.high:.1f} "
            f"| {100 * cost.inside_ms / cost.bare_ms:.1f} | {act} | {amortized} | {change} |"
        )
    return "\n".join(lines)


def _digits(milliseconds: float) -> str:
    return f"{milliseconds:.{0 if milliseconds >= 10 else 1}f}"


def main() -> None:
    options = _options()
    known = cases()
    wanted = {name: known[name] for name in options.methods or known}
    found: list[Cost] = []
    for name in options.networks:
        workload = WORKLOADS[name]
        rounds = options.rounds or (3 if options.quick else workload.rounds)
        here = list(costs(name, workload, wanted, rounds))
        bare_ms = statistics.median(cost.bare_ms for cost in here)
        print(f"\n{workload.description}: {bare_ms:.1f} ms a step; {rounds} rounds of {workload.steps} steps\n")
        print(f"{table(here)}\n\n{bounds(workload)}", flush=True)
        found += here
    about = environment()
    print("\nSGD with momentum; " + "; ".join(f"{key}: {value}" for key, value in about.items()))
    if options.json is not None:
        content = {"environment": about, "costs": [asdict(cost) for cost in found]}
        options.json.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n")
        print(f"Written to {options.json}.")


def _options() -> argparse.Namespace:
    parser = argument_parser(__doc__.splitlines()[0])
    parser.add_argument("--networks", nargs="+", choices=WORKLOADS, default=list(WORKLOADS))
    parser.add_argument("--methods", nargs="+", choices=cases(), metavar="METHOD", help="default: all of them")
    parser.add_argument("--rounds", type=int, help="how often each is timed, at least 2")
    return parser.parse_args()


if __name__ == "__main__":
    main()
