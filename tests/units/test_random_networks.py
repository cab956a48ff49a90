import pytest

from regrow.units.trace import find_units
from regrow.units.verify import verify
from tests.units.random_networks import RandomNetwork
from tests.units.random_sequences import RandomSequence


@pytest.mark.parametrize(
    "build",
    [lambda seed: RandomNetwork(seed, spatial=seed % 2 == 1), RandomSequence],
    ids=["vectors and images", "sequences"],
)
def test_no_unit_of_a_random_network_is_called_free_when_it_is_not(build) -> None:
    tried = 0
    for seed in range(40):
        model = build(seed)
        example = model.example()
        graph = find_units(model, example)
        verification = verify(model, example, graph, units_per_group=2, seed=seed)
        silent = [check for check in verification.checks if check.status != "coupled"]
        tried += len(silent)
        assert not any(check.moved for check in silent), f"seed {seed}\n{verification}"
    assert tried > 40
