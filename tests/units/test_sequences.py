import pytest

from regrow.units.trace import find_units
from regrow.units.verify import verify
from tests.units.hand_written import Case
from tests.units.sequence_networks import SEQUENCES


@pytest.mark.parametrize("case", SEQUENCES, ids=lambda case: case.name)
def test_groups_are_those_found_by_hand(case: Case) -> None:
    graph = find_units(*case.build())
    rows = [
        (group.name, group.size, group.status, " ".join(group.producers), " ".join(group.consumers)) for group in graph
    ]
    assert rows == case.rows


@pytest.mark.parametrize("case", SEQUENCES, ids=lambda case: case.name)
def test_groups_are_proven(case: Case) -> None:
    verification = verify(*case.build(), units_per_group=2)
    assert verification.ok, str(verification)
    assert verification.modes == ("training", "evaluation")
