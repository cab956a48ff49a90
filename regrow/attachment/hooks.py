"""Hooks on modules and on the optimizer: when something counts, and when it is time to act."""

import sys
from collections.abc import Callable, Sequence
from itertools import count
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from regrow.attachment.places import Seat
from regrow.units.graph import Tap
from regrow.units.taps import ModuleHook, is_training, per_unit
from regrow.units.wrappers import as_written


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
        statistic: as given.
        examples: length of the first dimension of all that was read since `clear`; 0 where that is the units'.
        called: whether the hook has ever run in training.
        last: the last reading that was asked for, to be repeated where there is no new one; None before the first.
    """

    def __init__(self, model: nn.Module, tap: Tap, statistic: str | None, switches: Sequence[Switch]) -> None:
        self._tap = tap
        self._rows = tap.rows
        self.statistic = statistic
        self._switches = switches
        self.examples: int | Tensor = 0
        self.called = False
        self._sum: Tensor | None = None  # of |h|, or the largest h
        self._count: int | Tensor = 0
        self._kept: list[Tensor] = []
        self.last: Tensor | None = None
        self.handle = Seat(model, tap, self)

    def wants(self, module: nn.Module, value: Tensor) -> bool:
        """Whether this forward counts, and is to be read."""
        if not is_training(module):
            return False
        self.called = True
        return all(switch.on for switch in self._switches) and value.numel() > 0

    def take(self, value: Tensor, reduced: Tensor) -> None:
        """Take in one forward."""
        if self.statistic == "activations":
            as_written(self._keep)(per_unit(self._tap, reduced).float())
            return
        # Where it has no dimension before the units', there is no way to tell.
        examples = _number(len(value), value) if value.dim() + self._tap.dim else 0
        count = _number(value.numel() // value.shape[self._tap.dim], value)
        if self._sum is None:
            self._sum, self._count, self.examples = reduced, count, examples
            return
        self._sum = torch.maximum(self._sum, reduced) if self.statistic == "fired" else self._sum + reduced
        self._count, self.examples = self._count + count, self.examples + examples

    def _keep(self, activations: Tensor) -> None:
        self._kept.append(activations)

    @property
    def seen(self) -> bool:
        """Whether a forward counted since `clear`."""
        return self._sum is not None or bool(self._kept)

    def _rows_on(self, device: torch.device) -> Tensor:
        if self._rows.device != device:  # once: such a copy waits for the device
            self._rows = self._rows.to(device)
        return self._rows

    def mean_abs(self, device: torch.device) -> Tensor:
        """Mean |h| of each unit, of shape (units,), over observations and over the unit's positions.

        A tap that no forward has reached since `clear` (a branch that is not taken at each step) repeats its
        last reading, at first 0.
        """
        rows = self._rows_on(device)
        if self._sum is not None:
            mean = self._sum / self._count
            self.last = mean[rows[:, 0]] if rows.shape[1] == 1 else mean[rows].mean(dim=1)
        return torch.zeros(len(rows), dtype=torch.float32, device=device) if self.last is None else self.last

    def fired(self, device: torch.device) -> Tensor:
        """Whether each unit was positive anywhere, bool of shape (units,); False where nothing was read."""
        rows = self._rows_on(device)
        if self._sum is None:
            return torch.zeros(len(rows), dtype=torch.bool, device=device)
        return (self._sum[rows] > 0).any(dim=1)

    def activations(self, device: torch.device) -> Tensor:
        """h of each unit, of shape (observations, units), in float32; a tap that was not reached repeats its last
        readings, at first a single 0.
        """
        if self._kept:
            self.last = torch.cat(self._kept)
        return torch.zeros(1, len(self._rows), dtype=torch.float32, device=device) if self.last is None else self.last

    def clear(self) -> None:
        """Forget what was read since the last step."""
        self._sum, self._count, self._kept, self.examples = None, 0, [], 0


def _number(count: int, like: Tensor) -> int | Tensor:
    """A count to be added to others; where it is compiled a tensor, since what Python counts is compiled in."""
    return torch.full((), count, device=like.device) if torch.compiler.is_compiling() else count


class FirstForward(ModuleHook):
    """Calls back once, just before the first forward that counts, with its arguments."""

    def __init__(
        self, model: nn.Module, then: Callable[[tuple[Any, ...], dict[str, Any]], None], switch: Switch
    ) -> None:
        self._then = then
        self._switch = switch
        # Before the hooks that keep inputs: what was saved is restored as soon as units are known.
        self.handle = self.hung(model.register_forward_pre_hook(self, with_kwargs=True, prepend=True))

    def __call__(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Forward pre-hook."""
        if self._switch.on and is_training(module):
            self.handle.remove()
            as_written(self._then)(args, kwargs)  # not compiled with the model


class StepHooks:
    """Calls back once before and once after each step of an optimizer.

    A subclass that calls `super().step()` makes torch fire its hooks twice, one pair inside the other; only the
    outer pair counts. A step that raised never reports its end: that is noticed at the next one.

    A step that is given a closure has its gradients only when it has called that: "before" is then right after the
    closure's first call.

    Args:
        optimizer: the optimizer.
        before: called before a step, when its gradients are there.
        again: called in the place of that after each further call of the closure in the same step.
        after: called after a step.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        before: Callable[[], None],
        again: Callable[[], None],
        after: Callable[[], None],
    ) -> None:
        self._before = before
        self._again = again
        self._after = after
        self._outer: FrameType | None = None
        self._skips: bool | None = None  # whether this step is skipped, once it is known
        self.handles = [
            optimizer.register_step_pre_hook(self._on_start),
            optimizer.register_step_post_hook(self._on_end),
        ]

    def _on_start(self, optimizer: Optimizer, args: Any, kwargs: Any) -> tuple[Any, Any] | None:
        caller = sys._getframe(1)
        if self._outer is not None and _is_running(self._outer, caller):
            return None
        self._outer, self._skips = caller, None
        if len(args) > 1 and callable(args[1]):  # the first is the optimizer
            return (args[0], self._followed(args[1], optimizer), *args[2:]), kwargs
        if callable(kwargs.get("closure")):
            return args, {**kwargs, "closure": self._followed(kwargs["closure"], optimizer)}
        self._skips = _is_skipped(optimizer)
        if not self._skips:
            as_written(self._before)()
        return None

    def _followed(self, closure: Callable[[], Any], optimizer: Optimizer) -> Callable[[], Any]:
        """A closure that calls back as soon as it has computed gradients."""
        calls = count()

        def call() -> Any:
            result = closure()
            if not _is_skipped(optimizer):
                with torch.no_grad():
                    self._again() if next(calls) else self._before()
            return result

        return call

    def _on_end(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        if sys._getframe(1) is not self._outer:
            return
        self._outer = None
        # Asked once in a step, for the answer waits for the device.
        if not (_is_skipped(optimizer) if self._skips is None else self._skips):
            as_written(self._after)()


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
