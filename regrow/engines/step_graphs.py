"""Steps in a row: one by one on a CPU, many per launch of a CUDA graph on a GPU."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

# Called with inputs, labels and noise of one step; returns what was judged.
Step = Callable[[Tensor, Tensor, Tensor | None], Tensor]
Batches = tuple[Tensor, Tensor, Tensor | None]


def run_eagerly(step: Step, batches: Batches, judged: Tensor) -> None:
    """Take steps one by one.

    Args:
        step: takes one.
        batches: inputs, labels and noise, each with the steps as the first dimension; no noise for no perturbation.
        judged: output, with the steps first.
    """
    inputs, labels, noise = batches
    for place in range(len(inputs)):
        judged[place].copy_(step(inputs[place], labels[place], None if noise is None else noise[place]))


class StepGraphs:
    """Records `unroll` steps in a row as one CUDA graph, and launches it as often as it fits.

    Args:
        step: takes one step, changing nothing but `state`.
        state: all tensors that last from step to step.
        unroll: how many steps a graph holds; what is left over is launched in graphs of one step.
    """

    def __init__(self, step: Step, state: Sequence[Tensor], unroll: int) -> None:
        self._step = step
        self._state = state
        self._unroll = unroll
        self._graphs: dict[tuple[object, ...], tuple[torch.cuda.CUDAGraph, Batches, Tensor]] = {}

    def prepare(self, batches: Batches, judged: Tensor) -> None:
        """Record what `run` needs for batches of such shapes: recording waits for the device, launching does not."""
        for count in {self._unroll, 1}:
            key = _key(count, batches)
            if key not in self._graphs:
                self._graphs[key] = self._record(count, batches, judged)

    def run(self, batches: Batches, judged: Tensor) -> None:
        """Take steps; see `run_eagerly`. `prepare` must have been called for batches of these shapes."""
        place, steps = 0, len(batches[0])
        while place < steps:
            count = self._unroll if place + self._unroll <= steps else 1
            graph, held, results = self._graphs[_key(count, batches)]
            for mine, given in zip(held, batches, strict=True):
                if mine is not None and given is not None:
                    mine.copy_(given[place : place + count])
            graph.replay()
            judged[place : place + count].copy_(results)
            place += count

    def _record(self, count: int, batches: Batches, judged: Tensor) -> tuple[torch.cuda.CUDAGraph, Batches, Tensor]:
        inputs, labels, noise = (None if given is None else _empty(count, given) for given in batches)
        assert inputs is not None and labels is not None
        held, results = (inputs, labels, noise), _empty(count, judged)
        before = [value.clone() for value in self._state]
        # Libraries set themselves up at their first calls, which may not be recorded. They take steps: undone below.
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            run_eagerly(self._step, held, results)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            run_eagerly(self._step, held, results)
        for value, old in zip(self._state, before, strict=True):
            value.copy_(old)
        return graph, held, results


def _key(count: int, batches: Batches) -> tuple[object, ...]:
    return (count, *(None if given is None else given.shape[1:] for given in batches))


def _empty(count: int, like: Tensor) -> Tensor:
    return torch.zeros(count, *like.shape[1:], dtype=like.dtype, device=like.device)
