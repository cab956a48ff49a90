import pytest

from regrow.units.graph import UnitGraph
from regrow.units.trace import find_units
from tests.units.all_networks import NETWORKS
from tests.units.hand_written import RESNET18, Case, Row


def rows(graph: UnitGraph) -> list[Row]:
    return [
        (group.name, group.size, group.status, " ".join(group.producers), " ".join(group.consumers)) for group in graph
    ]


@pytest.mark.parametrize("case", [*NETWORKS, RESNET18], ids=lambda case: case.name)
@pytest.mark.parametrize("training", [True, False])
def test_groups_are_those_that_a_person_finds(case: Case, training: bool) -> None:
    model, example = case.build()
    assert rows(find_units(model.train(training), example)) == case.rows
