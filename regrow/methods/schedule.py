"""When replacements are due: known on the host, without looking at the data.

Which unit is replaced depends on utilities, but *how many* are due does not: a replaced unit is always an
eligible one, so the number of eligible units follows from the group's size, the replacement rate and the
maturity threshold alone. Keeping it here means that a training step touches the device only when something is
due: no synchronisation and no top-k otherwise.
"""

from collections import deque
from fractions import Fraction
from typing import Literal, Protocol

import torch
from torch import Generator, Tensor

from regrow.units import host

Budget = Literal["carried", "carried_of_all", "bernoulli"]


class Schedule(Protocol):
    """When something is due in one group. Everything but the draws of the generator is known beforehand.

    Attributes:
        step: optimizer steps that have passed.
        eligible: units that may be re-drawn at the moment.
        replaced: how many have been.
    """

    step: int
    eligible: int
    replaced: int

    def advance(self, generator: Generator) -> int:
        """Let one optimizer step pass and say how many replacements are due now, at most."""

    def next_may_be_due(self) -> bool:
        """Whether something can be due at the next step."""

    def confirm(self, replaced: int) -> None:
        """Note how many units were re-drawn after all."""

    def state(self) -> Tensor:
        """Everything that `load` needs, as one int64 tensor."""

    def load(self, state: Tensor) -> None:
        """Go on from what `state` returned."""


class Periodic:
    """All units, every `period` optimizer steps: how many are re-drawn then is up to the data. Implements `Schedule`.

    Args:
        size: number of units in the group.
        period: optimizer steps.
    """

    def __init__(self, size: int, period: int) -> None:
        self._period = period
        self.step = 0
        self.eligible = size
        self.replaced = 0

    def advance(self, generator: Generator) -> int:
        """See `Schedule`."""
        self.step += 1
        return self.eligible if self.step % self._period == 0 else 0

    def next_may_be_due(self) -> bool:
        """See `Schedule`."""
        return (self.step + 1) % self._period == 0

    def confirm(self, replaced: int) -> None:
        """See `Schedule`."""
        self.replaced += replaced

    def state(self) -> Tensor:
        """See `Schedule`."""
        return host.tensor([self.step, self.replaced], dtype=torch.int64)

    def load(self, state: Tensor) -> None:
        """See `Schedule`."""
        self.step, self.replaced = (int(number) for number in state.tolist())


class Quota:
    """Replacements due in one group, step by step. Implements `Schedule`.

    With the carried budget, the total after any number of steps is exactly ⌊rate · Σ eligible⌋, where the rate
    is the decimal that the user wrote. With the one carried of all, the sum is over all units of the group at each
    step at which any is eligible (as in the published code for convolutions), and what is due beyond those that are
    eligible waits. With the Bernoulli budget (as in the published PPO), each step replaces
    ⌊rate · eligible⌋ units and one more with the probability of the fraction that is left.

    Args:
        size: number of units in the group.
        rate: share of the eligible units to replace per step, in [0, 1].
        maturity: a unit is eligible once its age, in optimizer steps, is greater than this.
        budget: "carried", "carried_of_all" or "bernoulli".
    """

    def __init__(self, size: int, rate: float, maturity: int, budget: Budget = "carried") -> None:
        self._size = size
        # Whole numbers throughout, so that no rounding error can ever add or lose a replacement.
        self._rate = Fraction(str(rate))
        self._maturity = maturity
        self._budget = budget
        self.step = 0
        self.eligible = 0
        self.eligible_sum = 0
        self.replaced = 0
        # Units too young to be replaced: (first step at which they are eligible, how many), oldest first.
        self._young: deque[tuple[int, int]] = deque([(maturity + 1, size)])

    def advance(self, generator: Generator) -> int:
        """Let one optimizer step pass and say how many replacements are due now.

        The caller must carry out exactly that many, all among the eligible units. `generator` is drawn from
        only by the Bernoulli budget.
        """
        self.step += 1
        while self._young and self._young[0][0] <= self.step:
            self.eligible += self._young.popleft()[1]
        self.eligible_sum += self._size if self._budget == "carried_of_all" and self.eligible else self.eligible
        due = self._due(generator)
        if due:
            self._replace(due)
        return due

    def next_may_be_due(self) -> bool:
        """See `Schedule`."""
        return self._rate > 0

    def confirm(self, replaced: int) -> None:
        """Nothing to note: exactly what was due has been counted already."""

    def plan(self, steps: int) -> list[tuple[int, int]]:
        """Let many optimizer steps pass at once: as so many calls of `advance`, but from one replacement to the next.

        For the carried budget, which draws nothing.

        Returns (which step, how many are due) for each step with any due; the first step that passes is 1.
        """
        start, end = self.step, self.step + steps
        plan = []
        while self.step < end:
            while self._young and self._young[0][0] <= self.step + 1:
                self.eligible += self._young.popleft()[1]
            # Until then the number of eligible units stays as it is, unless some are replaced.
            until = min(end, self._young[0][0] - 1) if self._young else end
            missing = (self.replaced + 1) * self._rate.denominator - self.eligible_sum * self._rate.numerator
            gain = self.eligible * self._rate.numerator
            wait = -(-missing // gain) if gain else until - self.step + 1
            passed = min(wait, until - self.step)
            self.step += passed
            self.eligible_sum += passed * self.eligible
            if passed == wait:
                due = self.eligible_sum * self._rate.numerator // self._rate.denominator - self.replaced
                self._replace(due)
                plan.append((self.step - start, due))
        return plan

    def outlook(self) -> tuple[Fraction, int | None]:
        """Let the units come of age that do so at the next step, and look ahead.

        Returns how many are due per step on average, and for how many steps that stays so if none is replaced; None for
        ever.
        """
        while self._young and self._young[0][0] <= self.step + 1:
            self.eligible += self._young.popleft()[1]
        return self._rate * self.eligible, self._young[0][0] - 1 - self.step if self._young else None

    def pass_by(self, steps: int) -> None:
        """Let optimizer steps pass, within the outlook, of which the caller has found that nothing is due in them."""
        self.step += steps
        self.eligible_sum += steps * self.eligible

    def _replace(self, due: int) -> None:
        self.replaced += due
        self.eligible -= due
        # A unit re-drawn now has age 0 and reaches age maturity + 1 that many steps later.
        self._young.append((self.step + self._maturity + 1, due))

    def _due(self, generator: Generator) -> int:
        if self._budget != "bernoulli":
            due = self._rate.numerator * self.eligible_sum // self._rate.denominator - self.replaced
            return min(due, self.eligible)
        whole, part = divmod(self._rate * self.eligible, 1)
        # One draw a step whatever the fraction is, so that the sequence of draws does not depend on it.
        return int(whole) + int(host.rand((), generator=generator, dtype=torch.float64).item() < part)

    def state(self) -> Tensor:
        """Everything that `load` needs, as one int64 tensor."""
        flat = [number for pair in self._young for number in pair]
        return host.tensor([self.step, self.eligible, self.eligible_sum, self.replaced, *flat], dtype=torch.int64)

    def load(self, state: Tensor) -> None:
        """Go on from what `state` returned."""
        self.step, self.eligible, self.eligible_sum, self.replaced, *flat = (int(number) for number in state.tolist())
        self._young = deque(zip(flat[::2], flat[1::2], strict=True))
