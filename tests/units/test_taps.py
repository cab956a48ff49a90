import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from regrow.networks.convnet import ConvNet
from regrow.units.example import tensors_of
from regrow.units.graph import Slice, Tap, UnitGroup
from regrow.units.trace import find_units
from tests.units.all_networks import NETWORKS
from tests.units.hand_written import CASES, Case, Net, weight


def taps(group: UnitGroup) -> list[Tap | None]:
    return [part.tap for part in group.having("outgoing")]


def place(tap: Tap | None) -> tuple[object, ...] | None:
    return None if tap is None else (tap.module, tap.where, tap.position, tap.dim, tuple(tap.rows.shape), tap.exact)


def tap_of(model: nn.Module, example: object, group: str) -> tuple[object, ...] | None:
    (tap,) = set(taps(find_units(model, example)[group]))
    return place(tap)


def test_the_input_of_the_module_that_reads_the_units() -> None:
    model = ConvNet(2, (4, 6), (3, 3), (5,), 14)
    example = torch.randn(2, 3, 14, 14)
    assert tap_of(model, example, "0") == ("3", "input", 0, -3, (4, 1), True)
    assert tap_of(model, example, "3") == ("7", "input", 0, -1, (6, 4), True)
    assert tap_of(model, example, "7") == ("9", "input", 0, -1, (5, 1), True)


def test_one_tap_for_the_same_value_read_by_several() -> None:
    def forward(m: Net, x: Tensor) -> Tensor:
        h = F.relu(m.a(x))
        return m.b(h) + m.c(h) + m.d(torch.tanh(h))

    model = Net(forward, a=nn.Linear(5, 6), b=nn.Linear(6, 2), c=nn.Linear(6, 2), d=nn.Linear(6, 2))
    first, second, third = taps(find_units(model, torch.randn(3, 5))["a"])
    assert first is second
    assert place(first) == ("b", "input", 0, -1, (6, 1), True)
    assert place(third) == ("d", "input", 0, -1, (6, 1), True)


def test_keyword_arguments() -> None:
    model = Net(lambda m, x: m.b(input=F.relu(m.a(x))), a=nn.Linear(5, 6), b=nn.Linear(6, 2))
    assert tap_of(model, torch.randn(3, 5), "a") == ("b", "input", "input", -1, (6, 1), True)


def test_the_output_of_the_module_that_made_the_value_if_no_module_reads_it() -> None:
    model = Net(lambda m, x: F.linear(m.act(F.linear(x, m.w)), m.v), w=weight(6, 5), act=nn.ReLU(), v=weight(2, 6))
    assert tap_of(model, torch.randn(3, 5), "w") == ("act", "output", 0, -1, (6, 1), True)


def test_none_if_no_module_sees_the_value() -> None:
    model = Net(lambda m, x: F.linear(F.relu(F.linear(x, m.w)), m.v), w=weight(6, 5), v=weight(2, 6))
    assert tap_of(model, torch.randn(3, 5), "w") is None


def test_none_if_the_module_also_sees_other_units_there() -> None:
    def forward(m: Net, x: Tensor) -> Tensor:
        return F.linear(m.act(F.linear(m.act(F.linear(x, m.u)), m.v)), m.w)

    model = Net(forward, act=nn.ReLU(), u=weight(6, 5), v=weight(6, 6), w=weight(2, 6))
    assert tap_of(model, torch.randn(3, 5), "u") is None


def test_none_if_the_module_changes_the_value_in_place_before_it_reads_it() -> None:
    class ReluThenLinear(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = weight(2, 6)

        def forward(self, value: Tensor) -> Tensor:
            return F.linear(F.relu_(value), self.weight)

    model = nn.Sequential(nn.Linear(5, 6), ReluThenLinear())
    # The same memory, but before the ReLU: a near value.
    assert tap_of(model, torch.randn(3, 5), "0") == ("1", "input", 0, -1, (6, 1), False)


def test_a_layer_that_is_called_twice_is_read_at_every_call() -> None:
    case = next(case for case in CASES if case.name == "one layer twice in sequence")
    model, example = case.build()
    first, second = taps(find_units(model, example)["a"])
    assert place(first) == ("f", "input", 0, -1, (6, 1), True)
    assert place(second) == ("out", "input", 0, -1, (6, 1), True)


def test_concatenated_units_are_found_at_their_positions() -> None:
    case = next(case for case in CASES if case.name == "concatenation")
    model, example = case.build()
    (tap, *_) = taps(find_units(model, example)["a"])
    assert tap is not None
    assert tap.rows.flatten().tolist() == [3, 4, 5, 6]


def zero_at(tap: Tap, unit: int):  # noqa: ANN201
    def hook(module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        value = args[tap.position].clone()
        value.movedim(tap.dim, 0)[tap.rows[unit]] = 0.0
        # What is query, key and value at once is one value.
        return tuple(value if given is args[tap.position] else given for given in args)

    return hook


def with_zeroed_slices(model: nn.Module, parts: list[Slice], unit: int, example: object) -> list[Tensor]:
    tensors = [model.get_parameter(part.parameter) for part in parts]
    before = [tensor.detach().clone() for tensor in tensors]
    with torch.no_grad():
        for tensor, part in zip(tensors, parts, strict=True):
            tensor[part.index(unit)] = 0.0
        result = run(model, example)
        for tensor, present in zip(tensors, before, strict=True):
            tensor.copy_(present)
    return result


def run(model: nn.Module, example: object) -> list[Tensor]:
    return list(tensors_of(model(*example) if isinstance(example, tuple) else model(example)))


ONLY_NEAR = {"functions on edges"}  # its modules make something else of a value before their weights meet it


@pytest.mark.parametrize("case", NETWORKS, ids=lambda case: case.name)
def test_zeroing_the_units_at_a_tap_is_zeroing_what_reads_them_there(case: Case) -> None:
    model, example = case.build()
    model.eval()
    for group in find_units(model, example):
        for part in group.having("outgoing"):
            tap = part.tap
            if tap is None or tap.where == "output" or tap.module != part.parameter.rpartition(".")[0]:
                continue
            if isinstance(model.get_submodule(tap.module), nn.GRUCell):
                continue  # the state also goes on without any weight
            if not tap.exact:
                assert case.name in ONLY_NEAR
                continue
            parts = [  # all through which this module reads the unit there
                one
                for one in group.having("outgoing")
                if one.parameter.rpartition(".")[0] == tap.module and place(one.tap) == place(tap)
            ]
            for unit in {0, group.size - 1}:
                handle = model.get_submodule(tap.module).register_forward_pre_hook(zero_at(tap, unit))
                with torch.no_grad():
                    expected = run(model, example)
                handle.remove()
                torch.testing.assert_close(with_zeroed_slices(model, parts, unit, example), expected)
