import dataclasses
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from regrow.errors import ConfigError, ModelError
from regrow.units.graph import Slice, UnitGraph, UnitGroup
from regrow.units.trace import find_units
from regrow.units.verify import verify
from tests.units.all_networks import NETWORKS
from tests.units.hand_written import RESNET18, Case, Net


@pytest.mark.parametrize("case", NETWORKS, ids=lambda case: case.name)
def test_every_hand_written_network_passes(case: Case) -> None:
    model, example = case.build()
    verification = verify(model, example, units_per_group=2)
    assert verification.ok, str(verification)
    assert verification.modes == ("training", "evaluation")


@pytest.mark.slow
def test_resnet18_passes() -> None:
    model, example = RESNET18.build()
    verification = verify(model, example, units_per_group=1)
    assert verification.ok, str(verification)
    assert len(verification.checks) == 12


def test_the_table_of_a_network_with_a_layer_norm() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 6), nn.LayerNorm(6), nn.ReLU(), nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 2))
    verification = verify(model, torch.randn(4, 5))
    coupled, free = verification.checks
    assert verification.ok
    assert 0 < coupled.leak < 2
    assert str(verification).splitlines() == [
        f"ok     0  coupled  4 units: leaks {coupled.leak:.2g} of its effect",
        "ok     3  free  4 units: silent without its outgoing slices",
        "2 groups in training and evaluation: all as the graph says",
    ]


def test_dead_units_hide_no_mistake_and_are_none() -> None:
    model = nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 2))
    nn.init.constant_(model[2].bias, -1e6)
    nn.init.zeros_(model[4].weight)  # as after a reset of the output layer
    assert verify(model, torch.randn(4, 5)).ok


def changed(graph: UnitGraph, name: str, change: Callable[[Slice], Slice | None], role: str = "outgoing") -> UnitGraph:
    """The graph with one group's slices of a role changed, or left out."""

    def of(group: UnitGroup) -> UnitGroup:
        if group.name != name:
            return group
        parts = [part if part.role != role else change(part) for part in group.slices]
        return dataclasses.replace(group, slices=tuple(part for part in parts if part is not None))

    return UnitGraph(tuple(of(group) for group in graph))


def shifted(part: Slice) -> Slice:
    return dataclasses.replace(part, rows={dim: rows.roll(1, 0) for dim, rows in part.rows.items()})


def other_order(part: Slice) -> Slice:
    """As if the units were the last dimension of what was flattened."""
    units, places = part.rows[1].shape
    return dataclasses.replace(part, rows={1: torch.arange(units * places).view(places, units).T})


def conv() -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(36, 2)), torch.randn(
        4, 3, 5, 5
    )


@pytest.mark.parametrize(
    ("change", "role"),
    [(shifted, "outgoing"), (other_order, "outgoing"), (shifted, "bias"), (shifted, "gain"), (shifted, "statistic"),
     (shifted, "incoming")],
    ids=["outgoing rows", "flatten order", "bias rows", "gain rows", "statistic rows", "incoming rows"],
)  # fmt: skip
def test_wrong_rows_are_caught(change: Callable[[Slice], Slice], role: str) -> None:
    model, example = conv()
    graph = find_units(model, example)
    assert verify(model, example, graph).ok
    verification = verify(model, example, changed(graph, "0", change, role))
    assert not verification.ok
    assert str(verification).startswith("WRONG  0  free  4 units: not silent: unit 0 in")


def test_a_missing_outgoing_slice_is_caught() -> None:
    torch.manual_seed(0)
    model = Net(lambda m, x: m.b(h := m.a(x)) + m.c(h), a=nn.Linear(5, 6), b=nn.Linear(6, 2), c=nn.Linear(6, 2))
    example = torch.randn(4, 5)
    graph = find_units(model, example)
    without = changed(graph, "a", lambda part: None if part.parameter == "c.weight" else part)
    assert verify(model, example, graph).ok
    assert "unit 0 in training, unit 0 in evaluation" in str(verify(model, example, without))


def test_an_outgoing_slice_that_reads_other_units_is_caught() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 2))
    example = torch.randn(4, 5)
    graph = find_units(model, example)
    first, second, output = graph
    foreign = dataclasses.replace(first, slices=(*first.slices, *second.having("outgoing")))
    verification = verify(model, example, UnitGraph((foreign, second, output)))
    assert not verification.ok
    assert str(verification).splitlines()[0].endswith("no effect shown through 4.weight")
    assert str(verification).endswith("1 not as the graph says")


def test_coupled_units_called_free_are_caught() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 6), nn.LayerNorm(6), nn.Linear(6, 2))
    graph = find_units(model, torch.randn(4, 5))
    claimed = UnitGraph(tuple(dataclasses.replace(group, status="free") for group in graph if group.name == "0"))
    assert not verify(model, torch.randn(4, 5), claimed).ok


def test_a_network_that_is_not_deterministic() -> None:
    counter = iter(range(1000))
    model = Net(lambda m, x: m.a(x) + next(counter), a=nn.Linear(5, 2))
    with pytest.raises(ModelError, match="^Net returns different values when it is run twice on the same example wi"):
        verify(model, torch.randn(4, 5))


def test_a_network_that_returns_nan() -> None:
    model = Net(lambda m, x: m.a(x).log(), a=nn.Linear(5, 2, bias=False))
    with pytest.raises(ModelError) as caught:
        verify(model, torch.full((4, 5), torch.nan))
    text = "Net returns NaN in training mode, so nothing can be proved. Take another example."
    assert str(caught.value) == text


def test_no_units_to_try() -> None:
    with pytest.raises(ConfigError, match="at least 1 as units_per_group=, but got 0"):
        verify(nn.Linear(5, 2), torch.randn(4, 5), units_per_group=0)


def test_a_network_on_the_meta_device() -> None:
    model = nn.Linear(5, 2, device="meta")
    with pytest.raises(ModelError, match="weight is on the meta device and has no values"):
        verify(model, torch.empty(4, 5, device="meta"))
