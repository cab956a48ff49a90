"""Hooks on modules and on the optimizer: when something counts, and when it is time to act."""

import sys
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from regrow.units.graph import Tap
from regrow.units.taps import ModuleHook, TapHook, is_training, per_unit


class Switch:
    """Whether the hooks of one attachment count at the moment."""

    def __init__(self) -> None:
        self.on = True


class TapReader:
    """Reads the activation of a group at one tap: forwards with grad enabled on a training-mode module, until
    `clear`. Several are averaged by their number of elements.

    Args:
        model: the model.
        tap: where to read.
        statistic: what of it: "mean_abs", "activations" or "fired".
        switches: read only while all of them are on.

    Attributes:
        examples: length of the first dimension of all that was read since `clear`; 0 where that is the units'.
        called: whether the hook has ever run in training.
    """

    def __init__(self, model: nn.Module, tap: Tap, statistic: str | None, switches: Sequence[Switch]) -> None:
        self._tap = tap
        self._statistic = statistic
        self._switches = switches
        self.examples = 0
        self.called = False
        self._sum: Tensor | None = None  # of |h|, or how often h > 0
        self._count = 0
        self._kept: list[Tensor] = []
        self._last: Tensor | None = None
        self.handle = TapHook(model, tap, self._read).handle

    def _read(self, module: nn.Module, value: Tensor) -> None:
        if not is_training(module):
            return
        self.called = True
        if not all(switch.on for switch in self._switches):
            return
        if value.dim() + self._tap.dim:  # else its first dimension is the units'
            self.examples += len(value)
        if self._statistic == "activations":
            self._kept.append(per_unit(self._tap, value).float())
            return
        dim = value.dim() + self._tap.dim
        others = [other for other in range(value.dim()) if other != dim]
        counted = value > 0 if self._statistic == "fired" else value.abs()
        total = counted.sum(dim=others, dtype=torch.float32) if others else counted.float()
        self._sum = total if self._sum is None else self._sum + total
        self._count += value.numel() // value.shape[dim]

    @property
    def seen(self) -> bool:
        """Whether a forward counted since `clear`."""
        return self._sum is not None or bool(self._kept)

    def mean_abs(self) -> Tensor:
        """Mean |h| of each unit, of shape (units,), over observations and over the unit's positions.

        A tap that no forward has reached since `clear` (a branch that is not taken at each step) repeats its
        last reading, at first 0.
        """
        rows = self._tap.rows
        if self._sum is not None:
            rows = rows.to(self._sum.device)
            mean = self._sum / self._count
            self._last = mean[rows[:, 0]] if rows.shape[1] == 1 else mean[rows].mean(dim=1)
        return torch.zeros(len(rows)) if self._last is None else self._last

    def fired(self) -> Tensor:
        """Whether each unit was positive anywhere, bool of shape (units,); False where nothing was read."""
        rows = self._tap.rows
        if self._sum is None:
            return torch.zeros(len(rows), dtype=torch.bool)
        return self._sum[rows.to(self._sum.device)].any(dim=1)

    def activations(self) -> Tensor:
        """h of each unit, of shape (observations, units), in float32; a tap that was not reached repeats its last
        readings, at first a single 0.
        """
        if self._kept:
            self._last = torch.cat(self._kept)
        return torch.zeros(1, len(self._tap.rows)) if self._last is None else self._last

    def clear(self) -> None:
        """Forget what was read since the last step."""
        self._sum, self._count, self._kept, self.examples = None, 0, [], 0


class FirstForward(ModuleHook):
    """Calls back once, just before the first forward that counts, with its arguments."""

    def __init__(
        self, model: nn.Module, then: Callable[[tuple[Any, ...], dict[str, Any]], None], switch: Switch
    ) -> None:
        self._then = then
        self._switch = switch
        self.handle = model.register_forward_pre_hook(self, with_kwargs=True)

    def __call__(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Forward pre-hook."""
        if self._switch.on and is_training(module):
            self.handle.remove()
            # A compiled model must not have the search for units compiled with it.
            then = torch.compiler.disable(self._then) if "torch._dynamo" in sys.modules else self._then
            then(args, kwargs)


class StepHooks:
    """Calls back once before and once after each step of an optimizer.

    A subclass that calls `super().step()` makes torch fire its hooks twice, one pair inside the other; only the
    outer pair counts. A step that raised never reports its end: that is noticed at the next one.
    """

    def __init__(self, optimizer: Optimizer, before: Callable[[], None], after: Callable[[], None]) -> None:
        self._before = before
        self._after = after
        self._outer: FrameType | None = None
        self.handles = [
            optimizer.register_step_pre_hook(self._on_start),
            optimizer.register_step_post_hook(self._on_end),
        ]

    def _on_start(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        caller = sys._getframe(1)
        if self._outer is None or not _is_running(self._outer, caller):
            self._outer = caller
            if not _is_skipped(optimizer):
                self._before()

    def _on_end(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        if sys._getframe(1) is not self._outer:
            return
        self._outer = None
        if not _is_skipped(optimizer):
            self._after()


def _is_skipped(optimizer: Optimizer) -> bool:
    # With GradScaler, a fused optimizer is called even when it then skips the step.
    found_inf = getattr(optimizer, "found_inf", None)
    return found_inf is not None and bool(found_inf.item())


def _is_running(frame: FrameType, top: FrameType | None) -> bool:
    while top is not None:
        if top is frame:
            return True
        top = top.f_back
    return False
