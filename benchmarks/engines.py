"""How much faster the fused loop is than PyTorch, on the article's online problems: `python -m benchmarks.engines`.

Each case learns the same examples, one a step, with plain SGD: bit flipping on 20–5–1, and permuted MNIST on
784–w–w–w–10. Continual backpropagation runs as the studies have it (weight sums at each step, ρ = 1e-4, m = 100).
Compared are a loop written by hand in PyTorch without regrow (`benchmarks.by_hand`), regrow attached to such a loop
(the plain engine), and the fused loop (the fused engine). All are called as a user calls them, so the time includes
what is planned and drawn outside the loop.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from benchmarks.by_hand import PlainCBP, learn
from benchmarks.interleave import AGAIN, Row, compare_times, parse, report, time_in_turn
from regrow.engines.learner import build_learner
from regrow.engines.training import Training
from regrow.errors import DataError
from regrow.methods import Backprop, ContinualBackprop, Method
from regrow.networks.mlp import MLP
from regrow.streams.bit_flipping import BitFlipping
from regrow.streams.sources import load

CBP = ContinualBackprop(1e-4, 100, weight_sums="each_step")
ADAPTABLE = ContinualBackprop(1e-4, 100, weight_sums="each_step", utility_rule="adaptable_contribution")
METHODS: dict[str, Method] = {"backprop": Backprop(), "cbp": CBP, "cbp, adaptable": ADAPTABLE}


@dataclass(frozen=True)
class Problem:
    """What is learned.

    Attributes:
        name: in words.
        widths: of the network, input and output included.
        training: its loss.
        learning_rate: step size.
        examples: inputs and labels.
        steps: examples of a timed call of PyTorch's loops, and of the fused loop.
    """

    name: str
    widths: tuple[int, ...]
    training: Training
    learning_rate: float
    examples: Callable[[], tuple[Tensor, Tensor]]
    steps: tuple[int, int]

    def network(self) -> MLP:
        """The same every time."""
        torch.manual_seed(0)
        return MLP(self.widths[0], self.widths[1:-1], self.widths[-1])


def main() -> None:
    options = parse(__doc__.splitlines()[0])
    (inputs, labels), origin = mnist()
    problems = [bit_flipping_problem(), *(mnist_problem(width, inputs, labels) for width in (100, 1000, 2000))]
    rows: list[Row] = []
    for problem in problems:
        for name, method in METHODS.items():
            rows += compared(problem, name, method, 3 if options.quick else 9)
    density = (inputs != 0).float().mean().item()
    notes = [
        "times are of 1,000 steps: a millisecond there is a microsecond a step",
        f"MNIST: {origin}; {density:.1%} of the values are not zero",
        "the allocator is as it comes, with the page faults of large tensors that glibc hands back at each step",
    ]
    report(rows, "Fused loop, plain path and a loop by hand, online learning", options.json, notes)


def compared(problem: Problem, name: str, method: Method, rounds: int) -> list[Row]:
    """A row for each way to learn a problem by a method, in ms per 1,000 steps: as many as µs a step."""
    label = f"{problem.name}, {name}"
    slow, fast = problem.steps
    cases = {
        f"{label}, by hand": (by_hand(problem, method, slow), slow),
        f"{label}, plain": (by_engine(problem, method, "plain", slow), slow),
        f"{label}, fused": (by_engine(problem, method, "fused", fast), fast),
    }
    baseline = f"{label}, by hand"
    cases = {baseline: cases[baseline], baseline + AGAIN: cases[baseline], **cases}
    times = time_in_turn({case: call for case, (call, _) in cases.items()}, rounds)
    per_thousand = {case: [1000 / cases[case][1] * time for time in mine] for case, mine in times.items()}
    rows = compare_times(per_thousand, baseline)
    fused = rows[-1]
    print(f"{label}: {fused.milliseconds:.4g} µs a step fused, {1 / fused.ratio:.4g} times as fast", flush=True)
    return rows


def by_engine(problem: Problem, method: Method, engine: str, steps: int) -> Callable[[], None]:
    """A case: learn the next `steps` examples with a learner of regrow."""
    learner = build_learner(
        problem.network(),
        problem.learning_rate,
        [method],
        init="kaiming_uniform",
        engine=engine,
        training=problem.training,
    )
    return on_and_on(learner.learn, problem.examples, steps)


def by_hand(problem: Problem, method: Method, steps: int) -> Callable[[], None]:
    """A case: learn the next `steps` examples in a loop without regrow."""
    network = problem.network()
    optimizer = torch.optim.SGD(network.parameters(), lr=problem.learning_rate)
    cbp = None
    if isinstance(method, ContinualBackprop):
        adaptable = method.utility_rule == "adaptable_contribution"
        cbp = PlainCBP(
            network, optimizer, method.replacement_rate, method.maturity_threshold, method.decay_rate, adaptable
        )
    return on_and_on(lambda inputs, labels: learn(network, optimizer, cbp, inputs, labels), problem.examples, steps)


def on_and_on(
    learn: Callable[[Tensor, Tensor], Tensor], examples: Callable[[], tuple[Tensor, Tensor]], steps: int
) -> Callable[[], None]:
    """Each call learns the next `steps` examples, from the first again after the last."""
    inputs, labels = examples()
    position = 0

    def call() -> None:
        nonlocal position
        part = slice(position, position + steps)
        learn(inputs[part], labels[part])
        position = position + steps if position + 2 * steps <= len(labels) else 0

    return call


def bit_flipping_problem() -> Problem:
    """The article's, step size .01."""
    stream = BitFlipping(seed=0)
    tasks = [stream.task(index) for index in range(20)]
    examples = torch.cat([task.inputs for task in tasks]), torch.cat([task.labels for task in tasks])
    return Problem("bit flipping 20–5–1", (20, 5, 1), Training("squared_error"), 0.01, lambda: examples, (500, 100_000))


def mnist_problem(width: int, inputs: Tensor, labels: Tensor) -> Problem:
    """The article's, step size .01, without the permutations, which change no time."""
    steps = {100: (200, 5000), 1000: (30, 500), 2000: (10, 100)}[width]
    widths = (784, width, width, width, 10)
    return Problem(f"MNIST, width {width}", widths, Training(), 0.01, lambda: (inputs, labels), steps)


def mnist() -> tuple[tuple[Tensor, Tensor], str]:
    """Inputs [n, 784] in [0, 1] with fixed order, labels; and their origin: MNIST if it is there, else the packaged
    digits at 28×28.
    """
    random = np.random.default_rng(0)
    try:
        source = load("mnist")
        pixels = source.images.reshape(len(source), -1)
        origin = source.origin
    except DataError:
        source = load()
        # 20×20 pixels of digit on a 28×28 page, as MNIST has it, and as many bright ones: the faint ones are dropped.
        digits = source.images[:, np.arange(20) * 8 // 20][:, :, np.arange(20) * 8 // 20]
        page = np.pad(digits, ((0, 0), (4, 4), (4, 4)))
        pixels = page.reshape(len(source), -1)
        pixels = np.where(pixels > np.quantile(pixels, 1 - 0.19), pixels, 0)
        origin = f"{source.origin}, enlarged to 28×28 and faint pixels dropped (MNIST is not below REGROW_DATA)"
    order = random.permutation(len(source))[:10000]
    inputs = torch.from_numpy(pixels[order].astype(np.float32) / np.float32(source.white))
    return (inputs, torch.from_numpy(source.labels[order])), origin


if __name__ == "__main__":
    main()
