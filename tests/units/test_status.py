"""Traps: units that look replaceable and are not, and the reasons given."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import prune

from regrow.units.graph import UnitGraph
from regrow.units.trace import find_units
from regrow.units.verify import verify
from tests.units.hand_written import Net, weight


def two_layers(between: Callable[[Net, Tensor], Tensor], **more: Any) -> tuple[Net, Tensor]:
    """5 → 6 → 2 with something in between."""
    torch.manual_seed(0)
    model = Net(lambda m, x: m.b(between(m, m.a(x))), a=nn.Linear(5, 6), b=nn.Linear(6, 2), **more)
    return model, torch.randn(4, 5)


def found(model: nn.Module, example: Any) -> UnitGraph:
    graph = find_units(model, example)
    assert verify(model, example, graph, units_per_group=2).ok
    return graph


def keeps_an_average(m: Net, h: Tensor) -> Tensor:
    m.average.mul_(0.9).add_(h.mean(0), alpha=0.1)
    return h - m.average


def multiplied_in_place_by_a_view(m: Net, h: Tensor) -> Tensor:
    h[:, :3].mul_(2.0)
    h.view(-1)[:6] += 1.0
    return h


BLOCKED = [
    ("mean taken away and added", lambda m, h: h - h.mean(1, keepdim=True) + h.mean(1, keepdim=True), "mean of the"),
    ("mean that scales others", lambda m, h: h.mean(1, keepdim=True) * m.b.bias[0].detach() + h, "mean of the"),
    ("mean that scales a part", lambda m, h: torch.cat([h[:, :3] * h.mean(1, keepdim=True), h[:, 3:]], 1), "mean of"),
    ("softmax by hand", lambda m, h: h.exp() / h.exp().sum(1, keepdim=True), "sum of the model makes one"),
    ("sort", lambda m, h: h.sort(1).values, "sort of the model makes units depend on each other"),
    ("item", lambda m, h: h * h.sum().item(), "sum of the model makes one value of all units"),
    ("branch", lambda m, h: h if h[0, 0] > 0 else -h, "_local_scalar_dense of the model takes it out of the network"),
    ("numpy", lambda m, h: h + torch.from_numpy(h.detach().numpy()), "numpy() takes it out of the network"),
    ("list", lambda m, h: h * max(h.detach()[0].tolist()), "tolist() takes it out of the network"),
    ("own product", lambda m, h: h @ (h.T @ h), "mm of the model sums over units, with no parameter"),
    ("no rule", lambda m, h: torch.linalg.matrix_exp(h[:4, :4]).sum() + h, "matrix_exp of the model has no rule"),
    ("used as index", lambda m, h: h[(h.sum(1) > 0).long()], "sum of the model makes one value of all units"),
]  # fmt: skip


@pytest.mark.parametrize(("between", "reason"), [row[1:] for row in BLOCKED], ids=[row[0] for row in BLOCKED])
def test_units_with_an_effect_on_the_side_are_blocked(between: Callable[..., Tensor], reason: str) -> None:
    group = found(*two_layers(between))["a"]
    assert group.status == "blocked"
    assert any(reason in text for text in group.reasons), group.reasons


def test_a_value_kept_in_a_buffer_blocks() -> None:
    model, example = two_layers(keeps_an_average)
    model.register_buffer("average", torch.zeros(6))
    group = found(model, example)["a"]
    assert (group.status, group.reasons) == ("blocked", ("average keeps it between forwards",))
    assert not bool(model.average.any())


def test_writes_into_views_are_followed() -> None:
    model, example = two_layers(multiplied_in_place_by_a_view)
    assert [(group.size, group.status) for group in found(model, example)] == [(6, "free"), (2, "output")]


@pytest.mark.parametrize(
    ("forward", "reason"),
    [
        (lambda m, x: F.linear(torch.relu(m.a(x)), m.a.weight.T), "a.weight also makes other units"),
        (lambda m, x: m.b(F.relu(m.a(x))) + m.a.weight.norm(), "a.weight is used as a value by linalg_vector_norm"),
        (lambda m, x: F.linear(F.relu(m.a(x)), m.b.weight.exp()), "with no parameter"),
        (lambda m, x: F.linear(F.relu(m.a(x)), 1 + m.b.weight), "with no parameter"),
        (lambda m, x: m.b(F.relu(m.a(x))) + m.b(x.new_ones(6)), "b.weight also multiplies something else"),
        (lambda m, x: m.b(F.relu(m.a(x))) + m.b(x.new_zeros(6) + 1), "b.weight also multiplies something else"),
        (lambda m, x: m.b(F.relu(F.linear(x, m.a.weight.clamp_(-1, 1)))), "a.weight is written by clamp_"),
    ],
    ids=["tied", "penalty", "exponential", "shifted", "ones", "zeros plus one", "written"],
)
def test_weights_with_a_second_use_block(forward: Callable[..., Tensor], reason: str) -> None:
    torch.manual_seed(0)
    model = Net(forward, a=nn.Linear(5, 6), b=nn.Linear(6, 2))
    for parameter in model.parameters():
        parameter.requires_grad_("written" not in reason)
    group = found(model, torch.randn(4, 5))["a"]
    assert group.status == "blocked"
    assert any(reason in text for text in group.reasons), group.reasons


def test_a_layer_applied_to_its_own_output_and_to_the_input_is_blocked() -> None:
    model = Net(lambda m, x: m.out(F.relu(m.f(F.relu(m.f(x))))), f=nn.Linear(5, 5), out=nn.Linear(5, 2))
    group = found(model, torch.randn(4, 5))["f"]
    assert (group.status, group.reasons) == ("blocked", ("f.weight also multiplies something else",))


def test_frozen_parameters_block_the_units_that_they_make_and_read() -> None:
    model = nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 2))
    model[2].weight.requires_grad_(False)
    graph = found(model, torch.randn(3, 5))
    for name in ("0", "2"):
        assert (graph[name].status, graph[name].reasons) == ("blocked", ("2.weight does not require grad",))


def test_an_operator_without_a_rule_is_named_and_its_parameters_are_unclaimed() -> None:
    model = Net(lambda m, x: m.b(m.a(x @ torch.linalg.matrix_exp(m.c)).relu()), a=nn.Linear(5, 6), b=nn.Linear(6, 2))
    model.c = weight(5, 5)
    graph = found(model, torch.randn(4, 5))
    assert [(group.name, group.status) for group in graph] == [("a", "free"), ("b", "output")]
    assert graph.unclaimed == {"c": "c is used as a value by linalg_matrix_exp of the model"}


def test_what_the_example_does_not_reach_is_unclaimed_and_what_nothing_reads_is_unused() -> None:
    model, example = two_layers(lambda m, h: (m.c(h), h)[1], c=nn.Linear(6, 3), d=nn.Linear(2, 2))
    graph = found(model, example)
    assert (graph["c"].status, graph["c"].reasons) == ("unused", ("nothing reads it",))
    assert graph.unclaimed == dict.fromkeys(("d.weight", "d.bias"), "the example does not reach it")


def test_a_gain_of_several_units_belongs_to_none() -> None:
    model, example = two_layers(lambda m, h: m.act(h) * m.gain, act=nn.PReLU(), gain=weight(1))
    graph = found(model, example)
    assert graph["a"].status == "free"
    assert not graph["a"].having("gain")
    assert graph.unclaimed == {
        "act.weight": "act.weight is shared by several units in _prelu_kernel of act",
        "gain": "gain is shared by several units in mul of the model",
    }


def test_hidden_units_that_are_returned_are_outputs() -> None:
    model = Net(lambda m, x: {"y": m.b(F.relu(m.a(x))), "h": [m.a(x)]}, a=nn.Linear(5, 6), b=nn.Linear(6, 2))
    assert [group.status for group in found(model, torch.randn(4, 5))] == ["output", "output"]
    only_y = lambda m: m(torch.ones(4, 5))["y"]  # noqa: E731
    assert [group.status for group in found(model, only_y)] == ["free", "output"]


def test_bias_gain_and_statistic_slices_and_their_fresh_values() -> None:
    model = nn.Sequential(nn.Linear(5, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 2))
    group = found(model, torch.randn(4, 5))["0"]
    assert [(part.parameter, part.role, part.fresh) for part in group.slices] == [
        ("0.weight", "incoming", None),
        ("0.bias", "bias", 0.0),
        ("1.weight", "gain", 1.0),
        ("1.bias", "bias", 0.0),
        ("1.running_mean", "statistic", 0.0),
        ("1.running_var", "statistic", 1.0),
        ("3.weight", "outgoing", None),
    ]
    assert all(part.rows.keys() == {0} for part in group.slices[:-1])


def test_a_unit_owns_the_columns_of_all_its_places_after_a_flatten() -> None:
    channels_first = nn.Sequential(nn.Conv2d(1, 2, 1), nn.Flatten(), nn.Linear(8, 2))
    rows = found(channels_first, torch.randn(3, 1, 2, 2))["0"].having("outgoing")[0].rows
    assert rows[1].tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]]
    model = Net(
        lambda m, x: m.fc(m.conv(x).permute(0, 2, 3, 1).flatten(1)), conv=nn.Conv2d(1, 2, 1), fc=nn.Linear(8, 2)
    )
    rows = found(model, torch.randn(3, 1, 2, 2))["conv"].having("outgoing")[0].rows
    assert rows[1].tolist() == [[0, 2, 4, 6], [1, 3, 5, 7]]


def test_grouped_convolution_reads_a_block_of_rows_and_columns() -> None:
    model = nn.Sequential(nn.Conv2d(1, 4, 1), nn.Conv2d(4, 6, 1, groups=2), nn.Flatten(), nn.Linear(24, 2))
    rows = found(model, torch.randn(3, 1, 2, 2))["0"].having("outgoing")[0].rows
    assert rows[0].tolist() == [[0, 1, 2], [0, 1, 2], [3, 4, 5], [3, 4, 5]]
    assert rows[1].tolist() == [[0], [1], [0], [1]]


def test_elements_that_are_no_block_block() -> None:
    order = torch.tensor([0, 1, 3, 2, 5, 4])  # unit i makes element i of row 0 and another of row 1
    model = Net(
        lambda m, x: torch.stack([h := torch.tanh(m.a(x)), h[:, order]], 1).mul(m.gain).flatten(1) @ m.out,
        a=nn.Linear(5, 6), gain=weight(2, 6), out=weight(12, 2),
    )  # fmt: skip
    graph = found(model, torch.randn(4, 5))
    assert {(group.size, group.status) for group in graph} == {(2, "free"), (4, "blocked"), (2, "output")}
    reasons = {reason for group in graph for reason in group.reasons if group.status == "blocked"}
    assert reasons == {"its part of gain is not a block of rows and columns"}


def test_units_of_one_layer_with_different_consumers_are_two_groups() -> None:
    def halves(m: Net, x: Tensor) -> Tensor:
        left, right = torch.relu(m.a(x)).chunk(2, 1)
        return m.b(left) + m.c(right)

    model = Net(halves, a=nn.Linear(5, 8), b=nn.Linear(4, 2), c=nn.Linear(4, 2))
    graph = found(model, torch.randn(4, 5))
    assert [(group.name, group.size, group.consumers) for group in graph] == [
        ("a", 4, ("b.weight",)),
        ("a:2", 4, ("c.weight",)),
        ("b", 2, ()),
    ]
    assert graph["a:2"].slices[0].rows[0].flatten().tolist() == [4, 5, 6, 7]


def test_recurrent_cells_need_no_rule() -> None:
    def unrolled(m: Net, x: Tensor) -> Tensor:
        state = x.new_zeros(x.size(0), 6)
        for time in range(3):
            state = torch.tanh(m.i(x[:, time]) + m.h(state))
        return m.out(state)

    model = Net(unrolled, i=nn.Linear(5, 6), h=nn.Linear(6, 6), out=nn.Linear(6, 2))
    group = found(model, torch.randn(4, 3, 5))["i"]
    assert (group.status, group.producers, group.consumers) == (
        "shared", ("i.weight", "h.weight"), ("h.weight", "out.weight"),
    )  # fmt: skip


@pytest.mark.parametrize(
    "prepare",
    [
        lambda model: model.bfloat16(),
        lambda model: prune.random_unstructured(model[0], "weight", 0.3) and model,
    ],
    ids=["bfloat16", "pruning mask"],
)
def test_odd_weights_that_are_fine(prepare: Callable[[nn.Module], nn.Module]) -> None:
    model = nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 2))
    prepare(model)
    group = found(model, torch.randn(4, 5, dtype=next(model.parameters()).dtype))["0"]
    assert group.status == "free"


def test_a_cast_weight_is_still_the_weight() -> None:
    def cast(m: Net, x: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return m.b(F.relu(m.a(x)))

    model = Net(cast, a=nn.Linear(5, 6), b=nn.Linear(6, 2))
    assert found(model, torch.randn(4, 5))["a"].status == "free"


def test_functions_mapped_over_the_batch_are_followed() -> None:
    model = Net(lambda m, x: m.b(torch.vmap(lambda one: F.relu(m.a(one)))(x)), a=nn.Linear(5, 6), b=nn.Linear(6, 2))
    assert [group.status for group in found(model, torch.randn(4, 5))] == ["free", "output"]


def test_what_becomes_sparse_is_not_followed() -> None:
    model, example = two_layers(lambda m, h: h.to_sparse().to_dense())
    group = found(model, example)["a"]
    assert (group.status, group.reasons) == ("blocked", ("_to_sparse of the model takes it out of the network",))


@pytest.mark.filterwarnings("ignore:The .grad attribute:UserWarning")  # torch's compiler, of itself
def test_compiled_parts_are_followed_as_they_were_written() -> None:
    inner = torch.compile(nn.Sequential(nn.ReLU(), nn.Linear(6, 6)), backend="eager")
    model = nn.Sequential(nn.Linear(5, 6), inner, nn.Linear(6, 2))
    example = torch.randn(4, 5)
    model(example)
    assert [group.status for group in found(model, example)] == ["free", "free", "output"]


def test_the_meta_device_needs_no_data() -> None:
    model = nn.Sequential(nn.Linear(4000, 4000), nn.ReLU(), nn.Linear(4000, 10)).to("meta")
    graph = find_units(model, torch.empty(512, 4000, device="meta"))
    assert [(group.size, group.status) for group in graph] == [(4000, "free"), (10, "output")]


def test_frozen_tables_are_constants() -> None:
    torch.manual_seed(0)
    model = Net(
        lambda m, ids: m.out(m.a(m.tok(ids) + m.pos + m.kind(torch.zeros_like(ids)))),
        tok=nn.Embedding(9, 6), pos=weight(5, 6), kind=nn.Embedding(2, 6), a=nn.Linear(6, 4), out=nn.Linear(4, 2),
    )  # fmt: skip
    model.pos.requires_grad_(False)
    model.kind.requires_grad_(False)
    graph = found(model, torch.randint(9, (3, 5)))
    assert (graph["tok"].status, graph["tok"].producers) == ("free", ("tok.weight",))
    assert graph.unclaimed == {
        "pos": "pos does not require grad and is only added, in add of the model",
        "kind.weight": "kind.weight does not require grad and is only looked up, in embedding of kind",
    }
