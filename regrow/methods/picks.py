"""What a method picked last to draw anew, and how much of that it had picked the time before too."""

from collections.abc import Iterable

import torch
from torch import Tensor


class Picks:
    """Successive picks among the units of one group or the weights of one tensor. Figures to log: no method decides by
    them, and they are not saved.

    Args:
        size: how many there are to pick from.

    Attributes:
        count: how many were picked last.
        compared: how many there were in the last pick that could be compared with one before it; picks of nothing are
            passed over.
        again: how many of these had been in that one too, on the device.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.count: int | None = None
        self.compared = 0
        self.again: Tensor | None = None
        self._last: Tensor | None = None

    def take(self, picked: Tensor) -> None:
        """Take note of a pick, given as indices of shape (n,). Nothing is fetched from the device."""
        self.count = len(picked)
        if not self.count:
            return
        if self._last is not None:
            before = torch.zeros(self.size, dtype=torch.bool, device=picked.device)
            before[self._last.to(picked.device)] = True
            self.compared, self.again = self.count, before[picked].sum()
        self._last = picked.clone()  # which may be a view of far more


def pick_figures(picks: Iterable[Picks]) -> dict[str, float]:
    """Of several at once: `last_share`, what part of all was picked last; `overlap`, what part of the last pick had
    been in the one before it too. Each is left out as long as there is nothing to take it from.
    """
    seen = [one for one in picks if one.count is not None]
    compared = [one for one in seen if one.again is not None]
    figures = {}
    if seen:
        figures["last_share"] = sum(one.count or 0 for one in seen) / sum(one.size for one in seen)
    if compared:
        again = sum(int(one.again) for one in compared if one.again is not None)
        figures["overlap"] = again / sum(one.compared for one in compared)
    return figures
