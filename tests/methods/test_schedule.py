import math
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from regrow.methods.schedule import Quota

NO_DRAWS = torch.Generator()


@settings(deadline=None, max_examples=60)
@given(
    size=st.integers(1, 40),
    rate=st.sampled_from([0.0, 1e-4, 0.003, 0.1, 1 / 3, 0.7, 1.0]),
    maturity=st.integers(0, 60),
    seed=st.integers(0, 10),
)
def test_equals_a_simulation_with_real_ages(size: int, rate: float, maturity: int, seed: int) -> None:
    """Whichever eligible units are replaced, the host's count of eligible ones stays right."""
    schedule = Quota(size, rate, maturity)
    pick = torch.Generator().manual_seed(seed)
    age = torch.zeros(size, dtype=torch.int64)
    total = replaced = 0
    for _ in range(300):
        age += 1
        eligible = (age > maturity).nonzero().flatten()
        total += len(eligible)
        due = schedule.advance(NO_DRAWS)
        assert due == math.floor(Fraction(str(rate)) * total) - replaced
        assert due <= len(eligible)
        replaced += due
        age[eligible[torch.randperm(len(eligible), generator=pick)[:due]]] = 0
        assert schedule.eligible == int((age > maturity).sum())
    assert schedule.replaced == replaced


def test_no_rounding_error_ever_adds_or_loses_one() -> None:
    schedule = Quota(10, 0.1, 0)
    due = [schedule.advance(NO_DRAWS) for _ in range(100)]
    # Ten eligible at step 1, nine later: the one just replaced is as old as 1 at the next step, so eligible again.
    assert due == [1] * 100


def test_the_whole_layer_does_not_earn_while_it_is_young() -> None:
    schedule = Quota(100, 0.01, 50)
    due = [schedule.advance(NO_DRAWS) for _ in range(60)]
    assert due[:52] == [0] * 50 + [1, 0]
    assert max(due) == 1 and sum(due) == schedule.eligible_sum // 100 > 5


def test_a_budget_of_all_units_grows_by_the_rate_times_all_once_one_is_eligible() -> None:
    """D6: the published code for convolutions counts units that are too young."""
    random = torch.Generator()
    eligible, of_all = (Quota(10, 0.25, 4, budget) for budget in ("carried", "carried_of_all"))
    assert [of_all.advance(random) for _ in range(8)] == [0, 0, 0, 0, 2, 3, 2, 3]
    assert [eligible.advance(random) for _ in range(8)] == [0, 0, 0, 0, 2, 2, 2, 1]
    # None is left, and the budget rests until the two of step 5 have come of age.
    assert [of_all.advance(random) for _ in range(3)] == [0, 2, 3]


@pytest.mark.parametrize("budget", ["carried", "carried_of_all", "bernoulli"])
def test_state_goes_on_where_it_was(budget: str) -> None:
    generator = torch.Generator().manual_seed(0)
    schedule = Quota(30, 0.02, 5, budget)
    for _ in range(100):
        schedule.advance(generator)
    other, its_generator = Quota(30, 0.02, 5, budget), torch.Generator()
    other.load(schedule.state())
    its_generator.set_state(generator.get_state())
    assert [schedule.advance(generator) for _ in range(200)] == [other.advance(its_generator) for _ in range(200)]


def test_bernoulli_replaces_the_whole_part_for_sure() -> None:
    schedule = Quota(10, 0.25, 0, "bernoulli")
    generator = torch.Generator().manual_seed(0)
    due = [schedule.advance(generator) for _ in range(200)]
    assert set(due) <= {2, 3} and 0.4 < due.count(3) / 200 < 0.6
