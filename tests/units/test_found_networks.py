"""Networks that random search found to be understood wrongly, made small."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

from regrow.units.trace import find_units
from regrow.units.verify import verify
from tests.units.hand_written import Net, weight

FOUND: dict[str, tuple[Callable[[], nn.Module], list[tuple[str, int, str]]]] = {
    "rows of a weight that is repeated": (
        lambda: Net(lambda m, x: m.out(x @ m.w.repeat(2, 1).T), w=weight(4, 5), out=nn.Linear(8, 2)),
        [("w", 4, "free")],
    ),
    "columns of a weight that is repeated": (
        lambda: Net(lambda m, x: m.a(x).relu() @ m.w.repeat(1, 2).T, a=nn.Linear(5, 8), w=weight(2, 4)),
        [("a", 4, "free")],
    ),
    "overlapping rows": (
        lambda: Net(lambda m, x: m.out(x @ m.w.unfold(0, 5, 1).T), w=weight(8), out=nn.Linear(4, 2)),
        [("w", 1, "free")],  # each row has elements of the next
    ),
}


@pytest.mark.parametrize("name", FOUND)
def test_what_random_search_found(name: str) -> None:
    build, expected = FOUND[name]
    torch.manual_seed(0)
    model, example = build(), torch.randn(4, 5)
    graph = find_units(model, example)
    rows = [(group.name, group.size, group.status) for group in graph if group.status != "output"]
    assert rows == expected
    verification = verify(model, example, graph)
    assert verification.ok, str(verification)
