import pytest

from regrow.units.verify import verify
from tests.units.hand_written import CASES, Case


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_every_hand_written_network_passes(case: Case) -> None:
    model, example = case.build()
    verification = verify(model, example, units_per_group=2)
    assert verification.ok, str(verification)
    assert verification.modes == ("training", "evaluation")
