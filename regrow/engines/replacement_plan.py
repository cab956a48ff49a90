"""What a unit method will replace in the next steps, with all the draws that it takes, before looking at any data.

Which unit goes depends on the data; when, how many, and what they are drawn from do not.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from itertools import groupby
from operator import itemgetter

import numpy as np
import torch
from torch import Generator, Tensor

from regrow.kernels.compiled import Floats, Integers
from regrow.kernels.replacement import Plan
from regrow.methods import QuotaMethod, RandomReplacement
from regrow.units.graph import UnitGroup
from regrow.units.initial import Law

# Budgets are drawn for so many steps at once at most, and one by one where fewer would be.
_MOST_BUDGETS, _FEW_BUDGETS = 1 << 14, 16


class Planner:
    """Draws as an attachment does: the same numbers from the same generator, in the same order.

    Args:
        method: the method; None for none.
        groups: the groups that it serves, front to back.
        fan_ins: how many incoming weights a unit has, by group.
        laws: of the incoming weights, by group. They must not look at which units they draw for.
        generator: the method's.
    """

    def __init__(
        self,
        method: QuotaMethod | None,
        groups: Sequence[UnitGroup],
        fan_ins: Sequence[int],
        laws: Sequence[Law],
        generator: Generator,
    ) -> None:
        self._groups = groups
        self._fan_ins = fan_ins
        self._laws = laws
        self._scored = isinstance(method, RandomReplacement)
        self._carried = method is not None and method.budget == "carried"
        self.generator = generator
        self.schedules = [] if method is None else [method.schedule(group.size) for group in groups]

    def plan(self, steps: int) -> Plan:
        """Let so many steps pass and say what is due in them."""
        entries: list[tuple[int, int, int]] = []
        drawn: list[Tensor] = []
        scores: list[Tensor] = []
        for step, dues in self._dues(steps):
            here = []
            for group, due in dues:
                if due:
                    here.append((step, group, due))
                    if self._scored:
                        scores.append(torch.rand(self._groups[group].size, generator=self.generator))
            for _, group, due in here:
                drawn.append(self._draw(group, due).flatten())
            entries += here
        when, groups, counts = np.array(entries, dtype=np.int64).reshape(-1, 3).T.copy()
        return Plan(
            at=when - 1,
            group=groups,
            due=counts,
            drawn_from=_starts(drawn),
            drawn=_joined(drawn),
            scores_from=_starts(scores),
            scores=_joined(scores),
            chosen_from=np.cumsum(counts) - counts,
            chosen=np.zeros(int(counts.sum()), dtype=np.int64),
        )

    def _dues(self, steps: int) -> Iterator[tuple[int, Iterable[tuple[int, int]]]]:
        """For each step, from 1, that may have any: (group, due), front to back."""
        if self._carried:
            known = sorted(
                (step, group, due)
                for group, schedule in enumerate(self.schedules)
                for step, due in schedule.plan(steps)
            )
            for step, same in groupby(known, key=itemgetter(0)):
                yield step, [(group, due) for _, group, due in same]
        elif self.schedules:
            step = 0
            while (step := step + self._pass_by(steps - step)) < steps:
                step += 1
                # All budgets are drawn before any lots: on several ranks, what is due is put together in between.
                yield step, [(group, each.advance(self.generator)) for group, each in enumerate(self.schedules)]

    def _pass_by(self, steps: int) -> int:
        """Let steps pass in which the drawn budgets have nothing due, as far as that is known by drawing those of many
        steps at once. Returns how many of `steps` passed.
        """
        if not steps:
            return 0
        looks = [each.outlook() for each in self.schedules]
        chances = [chance for chance, _ in looks]
        expected = float(sum(chances))
        alike = min([steps, _MOST_BUDGETS, *(length for _, length in looks if length is not None)])
        count = min(alike, int(2 / expected)) if expected else alike
        if count < _FEW_BUDGETS or max(chances) >= 1:
            return 0
        before = self.generator.get_state()
        shape = (count, len(chances))
        draws = torch.rand(shape, generator=self.generator, dtype=torch.float64)
        hits = (draws < torch.tensor([_least_above(chance) for chance in chances], dtype=torch.float64)).any(dim=1)
        passed = int(hits.int().argmax()) if bool(hits.any()) else count
        if passed < count:  # as if no more had been drawn
            self.generator.set_state(before)
            torch.rand((passed, len(chances)), generator=self.generator, dtype=torch.float64)
        for each in self.schedules:
            each.pass_by(passed)
        return passed

    def _draw(self, group: int, due: int) -> Tensor:
        unknown = torch.full((due,), -1)
        return self._laws[group].draw(self._groups[group], unknown, (due, self._fan_ins[group]), self.generator)


def _least_above(share: Fraction) -> float:
    """The least double that is not below a fraction: a double is below the one exactly if it is below the other."""
    nearest = float(share)
    return nearest if nearest >= share else math.nextafter(nearest, math.inf)


def _starts(parts: Sequence[Tensor]) -> Integers:
    lengths = np.array([len(part) for part in parts], dtype=np.int64)
    return np.cumsum(lengths) - lengths


def _joined(parts: Sequence[Tensor]) -> Floats:
    joined: Floats = torch.cat([torch.empty(0), *parts]).numpy()
    return joined
