"""What `print(graph)` shows."""

import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import regrow
from regrow.units.table import WIDTH, Row, format_table, shorten
from tests.units.test_folding import RANGE, unfolded


class Layer(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm, self.up, self.down = nn.LayerNorm(width), nn.Linear(width, 6), nn.Linear(6, width)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.down(torch.relu(self.up(self.norm(x))))


class Stack(nn.Module):
    """Residual layers under a norm, with one of them left out of the forward."""

    def __init__(self, depth: int, spare: int = 0) -> None:
        super().__init__()
        self.inside, self.out = nn.Linear(3, 4), nn.Linear(4, 2)
        self.layers = nn.ModuleList(Layer(4) for _ in range(depth))
        self.spare = nn.ModuleList(nn.Linear(2, 2) for _ in range(spare))

    def forward(self, x: Tensor) -> Tensor:
        x = self.inside(x)
        for layer in self.layers:
            x = layer(x)
        return self.out(x)


def test_the_table_of_a_small_network() -> None:
    model = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 4), nn.ReLU(), nn.Linear(4, 2))
    assert str(regrow.find_units(model, torch.rand(5, 3))) == "\n".join(
        [
            "3 groups: 2 free, 1 output",
            "",
            "group  units  made by   read by   status  reasons",
            "─────  ─────  ────────  ────────  ──────  ──────────────────────",
            "0      8      0.weight  2.weight  free",
            "2      4      2.weight  4.weight  free",
            "4      2      4.weight  –         output  the network returns it",
        ]
    )


def test_layers_that_repeat_share_a_row_and_the_stream_lists_them_at_once() -> None:
    graph = regrow.find_units(Stack(5, spare=3), torch.rand(2, 3))
    text = str(graph)
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert "layers.0–4.up 5 × 6 layers.0–4.up.weight layers.0–4.down.weight free" in lines
    assert any(
        line.startswith("inside 4 inside.weight layers.0–4.up.weight coupled native_layer_norm of") for line in lines
    )
    assert any(line.startswith("layers.0–4.down.weight out.weight") for line in lines)
    assert "5 × 6: 5 groups of 6 units; table(verbose=True) has a row for each" in lines
    assert lines[-4:] == [
        "",
        "parameters of no unit:",
        "spare.0–2.weight: the example does not reach it",
        "spare.0–2.bias: the example does not reach it",
    ]


def test_verbose_has_every_row_every_name_and_every_reason() -> None:
    graph = regrow.find_units(Stack(6, spare=2), torch.rand(2, 3))
    text = graph.table(verbose=True)
    starts = [line.split("  ")[0] for line in text.splitlines()]
    for group in graph:
        assert group.name in starts
        for name in (*group.producers, *group.consumers, *group.reasons):
            assert name in text
    for name, reason in graph.unclaimed.items():
        assert f"  {name}: {reason}" in text
    assert "–4" not in text and " more" not in text and " × " not in text


def test_a_graph_without_groups() -> None:
    text = str(regrow.UnitGraph((), {"a": "it is odd"}))
    assert text.startswith("0 groups\n\ngroup") and text.endswith("parameters of no unit:\n  a: it is odd")


def row(layer: int, size: int = 4, status: str = "free", remark: str = "", laws: tuple[str, ...] = ()) -> Row:
    return Row(f"h.{layer}", size, (f"h.{layer}.w",), (f"h.{layer + 1}.w", "head.w"), status, remark, "", laws)


def body(rows: list[Row], **options: bool) -> list[str]:
    lines = format_table(rows, {}, **options).splitlines()[2:]
    return [" ".join(line.split()) for line in lines if line[:1].strip()]


@pytest.mark.parametrize(
    "odd",
    [row(1, size=5), row(1, status="blocked"), row(1, remark="the 1 of it"), row(1, laws=("ones",))],
    ids=["size", "status", "remark", "law"],
)
def test_only_like_rows_fold(odd: Row) -> None:
    assert len(body([row(0), row(1), row(2)])) == 2  # with the legend
    assert [line.split()[0] for line in body([row(0), odd, row(2)])] == ["h.0", "h.1", "h.2"]


def test_who_makes_and_who_reads_is_not_mixed_up() -> None:
    rows = [Row("h.0", 4, ("a", "b"), ("c",), "free", ""), Row("h.1", 4, ("a",), ("b", "c"), "free", "")]
    assert [line.split()[0] for line in body(rows)] == ["h.0", "h.1"]


def test_reasons_fold_with_the_names_in_them() -> None:
    rows = [row(layer, status="blocked", remark=f"bmm of h.{layer} sums; norm of h.{layer} too") for layer in range(3)]
    assert body(rows)[0].endswith("blocked bmm of h.0–2 sums; norm of h.0–2 too")


def test_deviations_of_laws_are_spanned_and_other_numbers_are_not() -> None:
    rows = [row(layer, laws=(f"normal, std 0.{21 - layer} (as at attach)",)) for layer in range(3)]
    assert "h.0–2 3 × 4 h.0–2.w h.1–3.w normal, std 0.19 to 0.21 (as at attach) free" in body(rows)[0]
    assert "normal, std 0.20 (as at attach)" in format_table(rows, {}, verbose=True)
    rows = [row(layer, laws=(f"uniform in [-0.{layer}, 0.{layer}]",)) for layer in range(3)]
    assert len(body(rows)) == 3


def test_a_range_as_long_as_the_names_never_means_all() -> None:
    rows = [Row(f"h.{layer}", 4, (f"h.{layer}.w",), ("out.0", "out.1", "out.2"), "free", "") for layer in range(3)]
    text = format_table(rows, {})
    assert "h.0–2" in text and "out.0 " in text and "out.0–2" not in text
    assert "out.0–2" in format_table(rows[:2], {})


NAMES = st.lists(
    st.tuples(st.sampled_from(["a", "b", "h.0", "h.1"]), st.integers(0, 5), st.sampled_from(["", ".w", ".1"])),
    max_size=5,
    unique=True,
).map(lambda names: tuple(f"{first}.{number}{last}" for first, number, last in names))


@st.composite
def networks(draw: st.DrawFn) -> list[Row]:
    """Rows of layers that read neighbours, or the same heads, or whatever."""
    rows: dict[str, Row] = {}
    for block in range(draw(st.integers(1, 3))):
        heads, shift, step = draw(NAMES), draw(st.integers(0, 2)), draw(st.integers(1, 2))
        for layer in range(0, draw(st.integers(1, 7)), step):
            own = tuple(f"s.{block}.l.{layer}.{part}.w" for part in ("q", "k"))
            name = f"s.{block}.l.{layer}"
            rows[name] = Row(name, 4, own, (f"s.{block}.l.{layer + shift}.o.w", *heads), "free", "")
    for name in draw(NAMES):
        rows.setdefault(name, Row(name, 4, draw(NAMES), draw(NAMES), "free", ""))
    return list(rows.values())


def read(text: str) -> dict[str, tuple[set[str], set[str]]]:
    """Makers and readers of each group, from the printed table, by the rule that `format_table` states."""
    lines = text.split("\n\n")[0].splitlines()
    spans = [found.span() for found in re.finditer("─+", lines[1])]
    table: list[list[list[str]]] = []
    for line in lines[2:]:
        cells = [line[start:end].strip() for start, end in spans]
        if cells[0]:
            table.append([[] for _ in spans])
        for column, cell in zip(table[-1], cells, strict=True):
            column += [cell] if cell.strip("–") else []
    found = {}
    for (name,), (units,), makers, readers, *_ in table:
        lengths = {int(last) - int(first) + 1 for first, last in RANGE.findall(name)}
        members = [group for (group,) in unfolded((name,))]
        assert units == (f"{len(members)} × 4" if lengths else "4")
        for place, group in enumerate(members):
            found[group] = tuple(
                {
                    one
                    for text in column
                    for one in _all(RANGE.sub(lambda m: _running(m, unfolded((name, m[0])), lengths, place), text))  # noqa: B023
                }
                for column in (makers, readers)
            )
    return found


def _running(found: re.Match[str], rows: list[tuple[str, ...]], lengths: set[int], place: int) -> str:
    """The number of a range in the row of one group, if it runs along with the name."""
    return rows[place][1] if int(found[2]) - int(found[1]) + 1 in lengths else found[0]


def _all(text: str) -> list[str]:
    """All members of the ranges that are left."""
    found = RANGE.search(text)
    if found is None:
        return [text]
    numbers = range(int(found[1]), int(found[2]) + 1)
    return [one for number in numbers for one in _all(f"{text[: found.start()]}{number}{text[found.end() :]}")]


@settings(deadline=None, max_examples=150)
@given(networks())
def test_what_is_printed_says_exactly_who_makes_and_reads_each_group(rows: list[Row]) -> None:
    said = read(format_table(rows, {}))
    assert said.keys() == {group.name for group in rows}
    for group in rows:
        for names, column in zip((group.made_by, group.read_by), said[group.name], strict=True):
            cut = [int(name[2:-5]) for name in column if name.startswith("+ ")]
            shown = {name for name in column if not name.startswith("+ ")}
            assert shown <= set(names) and len(shown) + sum(cut) == len(names)


def test_all_about_a_group_stands_in_one_cell_if_the_names_are_long() -> None:
    name = "model.decoder.layers.{}.encoder_attention.{}.weight"
    rows = [
        Row(f"layer.{layer}", 4, (name.format(layer, "v"),), (name.format(layer, "out"),), "free", "it is so " * 40)
        for layer in (0, 5)
    ]
    lines = format_table(rows, {}, "reasons").splitlines()
    assert max(map(len, lines)) <= WIDTH
    assert [line.split()[0] for line in lines if line[:1].strip()] == ["group", "───────", "layer.0", "layer.5"]
    assert lines[0].split("  ")[-1] == "made by, read by, reasons"
    assert (
        " ".join(lines[2].split()) == f"layer.0 4 free made by {name.format(0, 'v')}; read by {name.format(0, 'out')}"
    )
    assert lines[3].strip().startswith("it is so it is so")
    assert ("it is so " * 40).strip() in format_table(rows, {}, verbose=True)


def test_reasons_of_a_stream_fold_among_themselves() -> None:
    reasons = [f"{kind}norm of h.{layer} takes statistics" for layer in range(6) for kind in ("", "batch ")]
    stream = Row("wte", 4, ("wte.w",), (), "blocked", "; ".join(reasons), "not served: ")
    expected = "not served: norm of h.0–5 takes statistics; batch norm of h.0–5 takes statistics"
    assert expected in format_table([stream], {})


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 12), st.sampled_from(["a", "b.w", "c.1"])), unique=True))
def test_a_shortened_list_says_how_many_names_it_leaves_out(pairs: list[tuple[int, str]]) -> None:
    names = [f"h.{number}.{part}" for number, part in pairs]
    *shown, last = [*shorten(names), ""] if len(shorten(names)) < 4 else shorten(names)
    more = re.fullmatch(r"\+ (\d+) more", last)
    if last and more is None:
        shown.append(last)
    said = [text for name in shown for (text,) in unfolded((name,))]
    assert len(shown) <= 4 and set(said) <= set(names) and len(said) == len(set(said))
    assert len(said) + (int(more[1]) if more else 0) == len(names)
