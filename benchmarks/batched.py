"""What seeds side by side cost against seeds one by one: `python -m benchmarks.batched`.

As many seeds as named learn the same problem, one example a step, with plain SGD: bit flipping on 20–5–1, and permuted
MNIST on 784–100–100–100–10. Continual backpropagation runs as the studies have it. Times are of one step of one seed,
of one thread on a CPU. There one fused loop after another is the fastest: the batched path is made for a GPU, where
these figures say nothing.
"""

from collections.abc import Callable

import torch

from benchmarks.engines import METHODS, Problem, bit_flipping_problem, by_engine, mnist, mnist_problem, on_and_on
from benchmarks.interleave import AGAIN, Row, compare_times, parse, report, time_in_turn
from regrow.engines.batched_learner import BatchedLearner

SEEDS = (1, 10, 100)


def main() -> None:
    options = parse(__doc__.splitlines()[0])
    (inputs, labels), origin = mnist()
    rows: list[Row] = []
    for problem in (bit_flipping_problem(), mnist_problem(100, inputs, labels)):
        for name in ("backprop", "cbp"):
            rows += compared(problem, name, 3 if options.quick else 9)
    notes = ["times are of 1,000 steps of one seed: a millisecond there is a microsecond a step", f"MNIST: {origin}"]
    report(rows, "Seeds side by side and one by one, on a CPU", options.json, notes)


def compared(problem: Problem, name: str, rounds: int) -> list[Row]:
    """A row for each engine and number of seeds, in ms per 1,000 steps of one seed."""
    label = f"{problem.name}, {name}"
    slow, fast = problem.steps
    baseline = f"{label}, plain"
    cases = {
        baseline: (by_engine(problem, METHODS[name], "plain", slow), slow),
        f"{label}, fused": (by_engine(problem, METHODS[name], "fused", fast), fast),
    }
    for seeds in SEEDS:
        cases[f"{label}, batched, seeds: {seeds}"] = (side_by_side(problem, name, seeds, slow), slow * seeds)
    cases = {baseline: cases[baseline], baseline + AGAIN: cases[baseline], **cases}
    times = time_in_turn({case: call for case, (call, _) in cases.items()}, rounds)
    return compare_times(
        {case: [1000 / cases[case][1] * time for time in mine] for case, mine in times.items()}, baseline
    )


def side_by_side(problem: Problem, name: str, seeds: int, steps: int) -> Callable[[], None]:
    """A case: learn the next `steps` examples with each of so many networks."""
    learner = BatchedLearner(
        [problem.network() for _ in range(seeds)],
        problem.learning_rate,
        [METHODS[name]],
        init="kaiming_uniform",
        seeds=range(seeds),
        training=problem.training,
    )

    def learn(inputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return learner.learn(inputs.expand(seeds, *inputs.shape), labels.expand(seeds, *labels.shape))

    return on_and_on(learn, problem.examples, steps)


if __name__ == "__main__":
    main()
