"""Weights that a parametrization computes: units found as for plain ones, written through the originals, or blocked."""

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize, spectral_norm, weight_norm
from torch.nn.utils.parametrizations import orthogonal
from torch.nn.utils.parametrizations import spectral_norm as spectral
from torch.nn.utils.parametrizations import weight_norm as normed

from regrow.units.graph import Slice, UnitGraph
from regrow.units.parametrized import Parametrized, behind
from regrow.units.surgery import Region
from regrow.units.trace import find_units
from regrow.units.verify import verify
from tests.units.hand_written import Net, Row

OLD_STYLE = pytest.mark.filterwarnings("ignore:`torch.nn.utils.weight_norm` is deprecated:FutureWarning")


class Fixed(nn.Module):
    """A parametrization given by its forward alone."""

    def __init__(self, forward: Callable[[nn.Module, Tensor], Tensor], **parts: Any) -> None:
        super().__init__()
        for name, part in parts.items():
            setattr(self, name, part) if isinstance(part, nn.Parameter) else self.register_buffer(name, part)
        self._forward = forward

    def forward(self, original: Tensor) -> Tensor:
        return self._forward(self, original)


class Invertible(Fixed):
    """And by what undoes it."""

    def __init__(self, forward: Callable[..., Tensor], inverse: Callable[..., Tensor], **parts: Any) -> None:
        super().__init__(forward, **parts)
        self._inverse = inverse

    def right_inverse(self, weight: Tensor) -> Tensor:
        return self._inverse(self, weight)


def parametrized(layer: nn.Module, by: nn.Module) -> nn.Module:
    parametrize.register_parametrization(layer, "weight", by)
    return layer


def dense(dim: int | None = 0) -> nn.Module:
    """5 → 6 → 7 → 2."""
    layers = [normed(nn.Linear(a, b), dim=dim) for a, b in ((5, 6), (6, 7), (7, 2))]
    return nn.Sequential(layers[0], nn.ReLU(), layers[1], nn.BatchNorm1d(7), nn.ReLU(), layers[2])


DENSE: list[Row] = [
    ("0", 6, "free", "0.weight", "2.weight"),
    ("2", 7, "free", "2.weight", "5.weight"),
    ("5", 2, "output", "5.weight", ""),
]


def images() -> nn.Module:
    """Plain, depthwise, transposed and grouped convolutions, and a flatten. In a transposed one, zeroing an outgoing
    slice leaves a row of weights without a direction.
    """
    return nn.Sequential(
        normed(nn.Conv2d(3, 4, 3)), nn.ReLU(), normed(nn.Conv2d(4, 4, 3, groups=4)),
        normed(nn.ConvTranspose2d(4, 6, 3)), nn.ReLU(), normed(nn.Conv2d(6, 6, 3, groups=2)), nn.ReLU(),
        nn.Flatten(), normed(nn.Linear(24, 2)),
    )  # fmt: skip


def recurrent() -> nn.Module:
    def forward(m: Net, x: Tensor) -> Tensor:
        state = x.new_zeros(len(x), 6)
        for step in range(3):
            state = torch.tanh(m.read(x[:, step]) + m.keep(state))
        return m.out(state)

    parts = {"read": nn.Linear(5, 6), "keep": nn.Linear(6, 6, bias=False), "out": nn.Linear(6, 2)}
    return Net(forward, **{name: normed(layer) for name, layer in parts.items()})


def residual() -> nn.Module:
    def forward(m: Net, ids: Tensor) -> Tensor:
        h = m.table(ids)
        h = h + m.back(F.relu(m.up(h)))
        return m.out(h) + m.out(F.relu(h))

    parts = {"table": nn.Embedding(9, 6), "up": nn.Linear(6, 8), "back": nn.Linear(8, 6), "out": nn.Linear(6, 2)}
    return Net(forward, **{name: normed(layer) for name, layer in parts.items()})


def lstm() -> nn.Module:
    layer = nn.LSTM(5, 6, batch_first=True)
    for name in ("weight_ih_l0", "weight_hh_l0"):
        normed(layer, name)
    return Net(lambda m, x: m.out(m.lstm(x)[0]), lstm=layer, out=normed(nn.Linear(6, 2)))


def attention() -> nn.Module:
    layer = normed(nn.MultiheadAttention(8, 2, batch_first=True), "in_proj_weight")
    normed(layer.out_proj)
    return Net(lambda m, x: m.out(m.mix(x, x, x, need_weights=False)[0]), mix=layer, out=nn.Linear(8, 3))


NETWORKS: list[tuple[str, Callable[[], nn.Module], Callable[[], Tensor], list[Row]]] = [
    ("norm of rows", dense, lambda: torch.randn(4, 5), DENSE),
    ("norm of columns", lambda: dense(1), lambda: torch.randn(4, 5), DENSE),
    ("norm of all", lambda: dense(None), lambda: torch.randn(4, 5), DENSE),
    ("bfloat16", lambda: dense().bfloat16(), lambda: torch.randn(4, 5, dtype=torch.bfloat16), DENSE),
    ("images", images, lambda: torch.randn(2, 3, 6, 6), [
        ("0", 4, "free", "0.weight", "3.weight"),
        ("3", 6, "free", "3.weight", "5.weight"),
        ("5", 6, "free", "5.weight", "8.weight"),
        ("8", 2, "output", "8.weight", ""),
    ]),
    ("recurrent", recurrent, lambda: torch.randn(4, 3, 5), [
        ("read", 6, "shared", "read.weight, keep.weight", "keep.weight, out.weight"),
        ("out", 2, "output", "out.weight", ""),
    ]),
    ("lstm", lstm, lambda: torch.randn(4, 3, 5), [
        ("lstm.weight_ih_l0", 6, "shared", "lstm.weight_ih_l0, lstm.weight_hh_l0", "lstm.weight_hh_l0, out.weight"),
        ("out", 2, "output", "out.weight", ""),
    ]),
    ("attention", attention, lambda: torch.randn(4, 3, 8), [
        ("mix", 16, "blocked", "mix.in_proj_weight", ""),
        ("mix:2", 8, "free", "mix.in_proj_weight", "mix.out_proj.weight"),
        ("mix.out_proj", 8, "free", "mix.out_proj.weight", "out.weight"),
        ("out", 3, "output", "out.weight", ""),
    ]),
    ("residual", residual, lambda: torch.randint(9, (3, 4)), [
        ("table", 6, "shared", "table.weight, back.weight", "up.weight, out.weight"),
        ("up", 8, "free", "up.weight", "back.weight"),
        ("out", 2, "output", "out.weight", ""),
    ]),
]  # fmt: skip


@pytest.mark.parametrize(("build", "example", "rows"), [row[1:] for row in NETWORKS], ids=[row[0] for row in NETWORKS])
def test_weight_normalised_layers_have_the_units_of_plain_ones(
    build: Callable[[], nn.Module], example: Callable[[], Tensor], rows: list[Row]
) -> None:
    torch.manual_seed(0)
    model, data = build(), example()
    graph = find_units(model, data)
    assert [
        (group.name, group.size, group.status, ", ".join(group.producers), ", ".join(group.consumers))
        for group in graph
    ] == rows
    assert graph.unclaimed == {}
    verification = verify(model, data, graph, units_per_group=2)
    assert verification.ok, str(verification)


def test_no_part_of_a_unit_is_other_than_in_a_plain_network() -> None:
    model, plain, data = images(), images(), torch.randn(2, 3, 6, 6)
    for module in plain.children():
        if parametrize.is_parametrized(module):
            parametrize.remove_parametrizations(module, "weight")
    for one, other in zip(find_units(model, data), find_units(plain, data), strict=True):
        assert [(part.parameter, part.role, part.shape) for part in one.slices] == [
            (part.parameter, part.role, part.shape) for part in other.slices
        ]
        for part, twin in zip(one.slices, other.slices, strict=True):
            assert part.rows.keys() == twin.rows.keys()
            assert all(torch.equal(part.rows[dim], twin.rows[dim]) for dim in part.rows)
            assert (part.tap is None) == (twin.tap is None)


def test_a_model_without_data() -> None:
    graph = find_units(dense().to("meta"), torch.empty(4, 5, device="meta"))
    assert [group.status for group in graph] == ["free", "free", "output"]


CANNOT = "2.weight is computed by {}, through which single weights cannot be set"
NO_INVERSE = "2.weight is computed by Fixed, which has no right_inverse: single weights cannot be set"
OLD = (
    "2.weight is computed by an old-style {} hook, through which single weights cannot be set: use "
    "torch.nn.utils.parametrizations.{} instead"
)
BLOCKED: list[tuple[str, Callable[[nn.Linear], nn.Module], str]] = [
    ("spectral norm", spectral, CANNOT.format("SpectralNorm")),
    ("orthogonal", orthogonal, CANNOT.format("Orthogonal")),
    ("householder", lambda layer: orthogonal(layer, orthogonal_map="householder"), CANNOT.format("Orthogonal")),
    ("exponential", lambda layer: parametrized(
        layer, Invertible(lambda m, w: w.exp(), lambda m, w: w.clamp(min=1e-3).log())), CANNOT.format("Invertible")),
    ("exponential without inverse", lambda layer: parametrized(layer, Fixed(lambda m, w: w.exp())), NO_INVERSE),
    ("symmetric", lambda layer: parametrized(
        layer, Invertible(lambda m, w: w.triu() + w.triu(1).mT, lambda m, w: w.triu())), CANNOT.format("Invertible")),
    ("skew", lambda layer: parametrized(layer, Fixed(lambda m, w: w.triu(1) - w.triu(1).mT)), NO_INVERSE),
    ("dropped weights", lambda layer: parametrized(
        layer, Invertible(lambda m, w: F.dropout(w, training=m.training), lambda m, w: w)),
     CANNOT.format("Invertible")),
    ("norm of a norm", lambda layer: spectral(normed(layer)), CANNOT.format("WeightNorm and SpectralNorm")),
    ("old weight norm", weight_norm, OLD.format("WeightNorm", "weight_norm")),
    ("old spectral norm", spectral_norm, OLD.format("SpectralNorm", "spectral_norm")),
]  # fmt: skip


def in_the_middle(change: Callable[[nn.Linear], nn.Module]) -> tuple[nn.Module, Tensor]:
    """5 → 6 → 6 → 2, one layer changed."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 6), nn.ReLU(), change(nn.Linear(6, 6)), nn.ReLU(), nn.Linear(6, 2))
    return model, torch.randn(4, 5)


@OLD_STYLE
@pytest.mark.parametrize(("change", "reason"), [row[1:] for row in BLOCKED], ids=[row[0] for row in BLOCKED])
def test_weights_that_cannot_be_set_one_by_one_block_what_they_make_and_read(
    change: Callable[[nn.Linear], nn.Module], reason: str
) -> None:
    model, data = in_the_middle(change)
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    graph = find_units(model, data)
    assert [(group.name, group.status, group.reasons) for group in graph] == [
        ("0", "blocked", (reason,)),
        ("2", "blocked", (reason,)),
        ("4", "output", ("the network returns it",)),
    ]
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())


ANSWERED: list[tuple[str, Callable[[nn.Linear], nn.Module]]] = [
    ("elementwise and onto", lambda layer: parametrized(
        layer, Invertible(lambda m, w: w.sinh(), lambda m, w: w.asinh()))),
    ("two in sequence", lambda layer: parametrized(
        normed(layer), Invertible(lambda m, w: w * m.c, lambda m, w: w / m.c, c=torch.rand(6, 1) + 1))),
    ("low rank added", lambda layer: parametrized(layer, Invertible(
        lambda m, w: w + m.a @ m.a.T, lambda m, w: w - m.a @ m.a.T, a=nn.Parameter(torch.full((6, 1), 0.1))))),
]  # fmt: skip


@pytest.mark.parametrize("change", [row[1] for row in ANSWERED], ids=[row[0] for row in ANSWERED])
def test_not_the_name_decides_but_whether_any_weight_can_be_set(change: Callable[[nn.Linear], nn.Module]) -> None:
    model, data = in_the_middle(change)
    graph = find_units(model, data)
    assert [(group.name, group.status) for group in graph] == [("0", "free"), ("2", "free"), ("4", "output")]
    assert verify(model, data, graph).ok


def test_a_mask_or_a_transposition_is_seen_through() -> None:
    """The elements are the original's, so there is nothing to go through."""
    mask = (torch.arange(36).reshape(6, 6) % 3 > 0).float()
    for by in (Fixed(lambda m, w: w * m.mask, mask=mask), Fixed(lambda m, w: w.mT)):
        model, data = in_the_middle(lambda layer, by=by: parametrized(layer, by))
        graph = find_units(model, data)
        assert graph["0"].consumers == ("2.parametrizations.weight.original",)
        assert [group.status for group in graph] == ["free", "free", "output"]
        assert verify(model, data, graph).ok


def test_what_else_it_is_computed_from_is_unclaimed() -> None:
    scaled = Invertible(lambda m, w: w * m.scale, lambda m, w: w / m.scale, scale=nn.Parameter(torch.tensor([2.0])))
    model, data = in_the_middle(lambda layer: parametrized(layer, scaled))
    graph = find_units(model, data)
    assert [group.status for group in graph] == ["free", "free", "output"]
    assert graph.unclaimed == {"2.parametrizations.weight.0.scale": (
        "2.parametrizations.weight.0.scale is used to compute 2.weight"
    )}  # fmt: skip
    assert verify(model, data, graph).ok


def two(forward: Callable[[Net, Tensor], Tensor] = lambda m, x: m.b(F.relu(m.a(x)))) -> Net:
    torch.manual_seed(0)
    return Net(forward, a=normed(nn.Linear(6, 6)), b=normed(nn.Linear(6, 6)))


def reasons(model: nn.Module) -> tuple[str, ...]:
    group = find_units(model, torch.randn(4, 6))["a"]
    assert group.status == "blocked"
    return group.reasons


LENGTH, DIRECTION = "b.parametrizations.weight.original0", "b.parametrizations.weight.original1"


def test_frozen_originals_block() -> None:
    model = two()
    model.get_parameter(LENGTH).requires_grad_(False)
    assert reasons(model) == (f"{LENGTH} does not require grad",)
    model.get_parameter(DIRECTION).requires_grad_(False)
    assert reasons(model) == ("b.weight does not require grad",)


def test_originals_with_a_second_use_block() -> None:
    beside = f"{DIRECTION} is used beside b.weight, which is computed from it"
    penalised = two(lambda m, x: m.b(F.relu(m.a(x))) + m.get_parameter(DIRECTION).norm())
    assert reasons(penalised) == (beside,)
    again = two(lambda m, x: F.linear(m.b(F.relu(m.a(x))), m.get_parameter(DIRECTION)))
    assert beside in reasons(again)
    assert find_units(again, torch.randn(4, 6))["b"].status == "blocked"

    tied = two()
    tied.b.parametrizations.weight.original1 = tied.a.parametrizations.weight.original1
    assert reasons(tied) == (
        "a.parametrizations.weight.original1 also computes b.weight",
        "a.parametrizations.weight.original1 also computes a.weight",
    )
    tied = Net(lambda m, x: m.c(F.relu(m.a(x))), a=nn.Linear(6, 6), c=normed(nn.Linear(6, 6)))
    tied.c.parametrizations.weight.original1 = tied.a.weight
    assert reasons(tied) == ("a.weight is used beside c.weight, which is computed from it",)


def test_a_computed_weight_with_a_second_use_blocks() -> None:
    model = two(lambda m, x: m.b(F.relu(m.a(x))) + m.b.weight.norm())
    assert any("b.weight is used as a value by linalg_vector_norm" in reason for reason in reasons(model))


def test_a_parametrization_that_reads_an_activation_blocks_it() -> None:
    def forward(m: Net, x: Tensor) -> Tensor:
        m.b.parametrizations.weight[0].seen = h = F.relu(m.a(x))
        return m.b(h)

    by = Invertible(lambda m, w: w + m.seen.mean() * 0, lambda m, w: w, seen=torch.zeros(1))
    model = Net(forward, a=nn.Linear(6, 6), b=parametrized(nn.Linear(6, 6), by))
    assert "the computation of b.weight takes it out of the network" in reasons(model)


# Setting single weights.


def layer(dim: int | None = 0) -> tuple[nn.Module, Parametrized]:
    """Weight norm as after some training: v not of length g, one g negative, one output with a single weight."""
    torch.manual_seed(0)
    module = normed(nn.Linear(5, 4), dim=dim)
    held = behind(module, "weight")
    assert isinstance(held, Parametrized)
    with torch.no_grad():
        length, direction = held.originals.values()
        direction.mul_(3)
        direction[2, 1:] = 0
        length.view(-1)[0] *= -1
    return module, held


@pytest.mark.parametrize("dim", [0, 1, None])
def test_any_weights_become_exactly_0_and_the_others_stay_up_to_rounding(dim: int | None) -> None:
    for zeros in (torch.eye(4, 5), torch.ones(4, 5), *(torch.eye(5)[i].expand(4, 5) for i in range(5))):
        module, held = layer(dim)
        expected = module.weight.detach().masked_fill(zeros.bool(), 0.0)
        held.set(expected)
        torch.testing.assert_close(module.weight.detach(), expected, rtol=1e-6, atol=0)
        assert torch.equal(module.weight == 0, expected == 0)


def test_a_row_is_set_and_no_other_is_touched() -> None:
    module, held = layer()
    length, direction = (tensor.detach().clone() for tensor in held.originals.values())
    expected = module.weight.detach().clone()
    expected[1] = torch.arange(5.0)
    held.set(expected)
    assert torch.equal(module.weight[[0, 2, 3]], expected[[0, 2, 3]])
    torch.testing.assert_close(module.weight[1], expected[1])
    present = list(held.originals.values())
    assert torch.equal(present[0][[0, 2, 3]], length[[0, 2, 3]])
    assert torch.equal(present[1][[0, 2, 3]], direction[[0, 2, 3]])
    assert present[0][1].item() == pytest.approx(torch.arange(5.0).norm().item())


def test_zeroing_a_column_keeps_the_scale_of_the_rest() -> None:
    """So that the effective step size of the other weights, which goes with 1 / |v|², does not jump."""
    module, held = layer()
    direction = held.originals["parametrizations.weight.original1"].detach().clone()
    target = module.weight.detach().clone()
    target[:, 3] = 0
    held.set(target)
    others = [0, 1, 2, 4]
    assert torch.equal(module.parametrizations.weight.original1[1:, others], direction[1:, others])


def test_a_unit_that_reads_nothing_keeps_a_direction_to_grow_in() -> None:
    module, held = layer()
    target = module.weight.detach().clone()
    target[[1, 3]] = 0
    held.set(target)
    assert not module.weight[[1, 3]].any() and held.originals["parametrizations.weight.original1"][1].any()
    module(torch.ones(1, 5)).sum().backward()
    assert all(bool(tensor.grad.isfinite().all()) for tensor in held.originals.values())
    assert held.originals["parametrizations.weight.original0"].grad[[1, 3]].all()


def test_weights_that_are_not_finite_are_no_obstacle() -> None:
    module, held = layer()
    with torch.no_grad():
        held.originals["parametrizations.weight.original1"][3] = float("nan")
    target = module.weight.detach().clone()
    target[0] = 0
    held.set(target)
    assert not module.weight[0].any() and module.weight[3].isnan().all()


@pytest.mark.parametrize("dim", [0, 1])
def test_which_originals_are_a_units_own(dim: int) -> None:
    _, held = layer(dim)
    row, column = torch.zeros(4, 5, dtype=torch.bool), torch.zeros(4, 5, dtype=torch.bool)
    row[2], column[:, 3] = True, True
    for mask, along in ((row, 0), (column, 1)):
        length, direction = held.owned(mask)
        assert torch.equal(direction, mask)
        assert torch.equal(length, mask.all(1 - dim, keepdim=True) if along == dim else torch.zeros_like(length))


def test_regions_read_write_and_clear_through_it() -> None:
    module, held = layer()
    optimizer = torch.optim.Adam(module.parameters())
    module(torch.randn(3, 5)).sum().backward()
    optimizer.step()
    weight = module.weight.detach().clone()
    part = Slice("weight", "incoming", (4, 5), {0: torch.arange(4)[:, None]})
    region, units = Region(part, held), torch.tensor([1, 3])
    assert torch.equal(region.read(units), weight[units])
    assert torch.equal(region.abs_sums(), weight.abs().sum(1))
    assert (region.fan_in, region.unit_shape, region.parameters) == (5, (5,), tuple(held.originals.values()))
    region.write(units, torch.ones(2, 5))
    torch.testing.assert_close(module.weight[units], torch.ones(2, 5))
    region.clear_state(optimizer, units)
    for tensor in held.originals.values():
        for key in ("exp_avg", "exp_avg_sq"):
            moments = optimizer.state[tensor][key]
            assert not moments[units].any() and moments[[0, 2]].any(1).all()
    region.restore(units)
    torch.testing.assert_close(module.weight.detach(), weight)
    region.fill(units, 0.0)
    assert not module.weight[units].any() and torch.equal(module.weight[[0, 2]], weight[[0, 2]])


def test_verify_notices_mistakes_behind_a_parametrization() -> None:
    torch.manual_seed(0)
    model, data = dense(), torch.randn(4, 5)

    def changed(role: str) -> UnitGraph:
        def of(part: Slice) -> Slice:
            rows = {dim: rows.roll(1, 0) for dim, rows in part.rows.items()}
            return dataclasses.replace(part, rows=rows) if part.role == role else part

        return UnitGraph(tuple(
            dataclasses.replace(group, slices=tuple(map(of, group.slices))) for group in find_units(model, data)
        ))  # fmt: skip

    assert verify(model, data).ok
    for role in ("outgoing", "incoming"):
        assert not verify(model, data, changed(role)).ok
