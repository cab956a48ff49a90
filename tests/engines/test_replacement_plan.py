"""What is planned for many steps at once is what an attachment draws step by step."""

from collections.abc import Iterator
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Generator, Tensor, nn

from regrow.engines.replacement_plan import Planner, _least_above
from regrow.methods import ContinualBackprop, RandomReplacement
from regrow.methods.unit_method import QuotaMethod
from regrow.units.graph import UnitGroup
from regrow.units.initial import law_for
from regrow.units.surgery import Region
from regrow.units.trace import find_units


def planner_for(method: QuotaMethod, sizes: list[int]) -> Planner:
    widths = [3, *sizes, 2]
    layers = [nn.Sequential(nn.Linear(*pair), nn.ReLU()) for pair in zip(widths, widths[1:], strict=False)]
    network = nn.Sequential(*layers)
    groups = [group for group in find_units(network, torch.ones(1, 3)) if group.status == "free"]
    regions = [Region(group.slices[0], network.get_parameter(group.slices[0].parameter)) for group in groups]
    laws = [law_for(network, region, "lecun_uniform") for region in regions]
    return Planner(method, groups, [region.fan_in for region in regions], laws, Generator().manual_seed(1))


def one_by_one(
    planner: Planner, groups: list[UnitGroup], fan_ins: list[int], scored: bool, steps: int
) -> Iterator[Tensor]:
    """All draws of so many steps, in order."""
    for _ in range(steps):
        due = [(number, schedule.advance(planner.generator)) for number, schedule in enumerate(planner.schedules)]
        for number, _ in [pair for pair in due if pair[1] and scored]:
            yield torch.rand(groups[number].size, generator=planner.generator)
        for number, count in [pair for pair in due if pair[1]]:
            yield planner._draw(number, count).flatten()


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 40), min_size=1, max_size=3),
    rate=st.sampled_from([0.0, 1e-4, 0.003, 1 / 3, 0.1, 0.75, 1.0]),
    maturity=st.integers(0, 60),
    scored=st.booleans(),
    chunks=st.lists(st.integers(0, 400), max_size=4),
)
def test_drawn_budgets_of_many_steps(
    sizes: list[int], rate: float, maturity: int, scored: bool, chunks: list[int]
) -> None:
    kind = RandomReplacement if scored else ContinualBackprop
    method = kind(replacement_rate=rate, maturity_threshold=maturity, budget="bernoulli")
    planned, stepped = planner_for(method, sizes), planner_for(method, sizes)
    for steps in chunks:
        plan = planned.plan(steps)
        drawn = list(one_by_one(stepped, stepped._groups, stepped._fan_ins, scored, steps))
        assert len(plan.scores) + len(plan.drawn) == sum(map(len, drawn))
        assert torch.equal(planned.generator.get_state(), stepped.generator.get_state())
        for one, other in zip(planned.schedules, stepped.schedules, strict=True):
            assert torch.equal(one.state(), other.state())


@pytest.mark.parametrize("share", [Fraction(1, 3), Fraction(1, 10), Fraction(1, 2), Fraction(0), Fraction(2, 3)])
def test_a_double_is_below_a_fraction_exactly_if_it_is_below_its_double(share: Fraction) -> None:
    edge = torch.tensor(float(share), dtype=torch.float64)
    near = [torch.nextafter(edge, torch.tensor(end, dtype=torch.float64)).item() for end in (-1.0, 2.0)]
    for value in (float(share), *near):
        assert (value < share) == (value < _least_above(share))
