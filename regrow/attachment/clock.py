"""Time that passes as fast as weights can move."""

from typing import Literal

import torch
from torch import Tensor
from torch.optim import Optimizer

from regrow.units import host

Time = Literal["steps", "step_sizes"]


class Clock:
    """Counts steps by their size: one of a tenth of the largest so far is a tenth of a step.

    Args:
        parameter: the step size is that of the optimizer's group that holds it.
    """

    def __init__(self, parameter: Tensor) -> None:
        self._parameter = parameter
        self._place: int | None = None
        self._largest = 0.0
        self._passed = 0.0
        """Of the next whole step."""

    def ticks(self, optimizer: Optimizer) -> bool:
        """Let a step of the optimizer pass, and say whether a whole one has."""
        if self._place is None:
            self._place = _place_of(self._parameter, optimizer)
        size = float(optimizer.param_groups[self._place]["lr"])
        self._largest = max(self._largest, size)
        if size > 0:
            self._passed += size / self._largest
        if self._passed < 1:
            return False
        self._passed -= 1
        return True

    def state(self) -> Tensor:
        """Everything that `load` needs, as one float64 tensor."""
        return host.tensor([self._largest, self._passed], dtype=torch.float64)

    def load(self, state: Tensor) -> None:
        """Go on from what `state` returned."""
        self._largest, self._passed = state.tolist()


def _place_of(parameter: Tensor, optimizer: Optimizer) -> int:
    groups = optimizer.param_groups
    return next(place for place, group in enumerate(groups) if any(held is parameter for held in group["params"]))
