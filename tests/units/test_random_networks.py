"""Properties that hold of the units of any network.

Networks come from the grammar in `grammar/`. What must hold is in `soundness.py`, and is found out numerically. On a
failure hypothesis prints the smallest program that it finds, and a line `@reproduce_failure(...)`; to run that, put
the line above `every_network`.

`pytest --hypothesis-profile=long tests/units/test_random_networks.py` tries many more networks than CI does.
"""

from collections import Counter

import pytest
import torch
from hypothesis import HealthCheck, assume, example, given, note, settings

from tests.units.grammar import Network, Program, Step, programs
from tests.units.soundness import complaints


def check(program: Program, tally: Counter[str]) -> None:
    network = Network(program)
    note(network.listing())
    for training in (True, False):
        with torch.no_grad(), torch.random.fork_rng([]):
            outputs = network.train(training)(network.example.clone())
        assume(all(bool(output.isfinite().all()) for output in outputs))
    tally["networks"] += 1
    found = complaints(network.train(), network.example, tally, units_per_group=1)
    assert not found, "\n".join(found)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["vectors", "images", "sequences"])
def test_the_units_of_a_random_network_are_what_they_are_called(family: str) -> None:
    tally: Counter[str] = Counter()

    @settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.nested_given])
    @example(Program(family, (Step("layer"), Step("layer_norm"), Step("layer")), 0))
    @given(programs(family))
    def every_network(program: Program) -> None:
        check(program, tally)

    every_network()
    # Nothing of this would fail if no unit were ever called free, or if nothing ever moved. Examples come in kin, so
    # that one run is far from the mean of many (1.3 free or shared and 0.2 coupled groups for each network, 20 elements
    # that multiply for one that does not). That the checks find what is wrong is shown by `test_broken_rules.py`.
    assert tally["free"] + tally["shared"] > tally["networks"] / 4, tally
    assert tally["coupled"], tally
    assert tally["multiplied"] > 2 * max(tally["idle"], tally["networks"]), tally
