"""Folding loses nothing: what a folded row says is exactly the rows that it stands for."""

import re
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from regrow.units.folding import fold

RANGE = re.compile(r"(\d+)–(\d+)")


def unfolded(texts: tuple[str, ...]) -> list[tuple[str, ...]]:
    """Every row that folded texts stand for: ranges of one length run together, those of different lengths do not."""
    joined = "\n".join(texts)
    lengths = sorted({int(last) - int(first) + 1 for first, last in RANGE.findall(joined)})
    rows = []
    for numbers in product(*(range(length) for length in lengths)):
        at = dict(zip(lengths, numbers, strict=True))

        def one(found: re.Match[str], at: dict[int, int] = at) -> str:
            first, last = int(found[1]), int(found[2])
            return str(first + at[last - first + 1])

        rows.append(tuple(RANGE.sub(one, joined).split("\n")))
    return rows


def names_of(*rows: str, alike: list[object] | None = None) -> list[str]:
    return [found.texts[0] for found in fold([(row,) for row in rows], alike)]


PARTS = st.sampled_from(["h", "mlp", "fc1", "l0_reverse", "weight", "0", "1", "2", "3", "10", "01", "a:2"])
NAME = st.lists(PARTS, min_size=1, max_size=4).map(".".join)
SENTENCE = st.tuples(NAME, st.sampled_from(["takes 2 of", "is shared with", "in [-0.5, 1.5] of"]), NAME).map(" ".join)
ROW = st.tuples(NAME, NAME, SENTENCE)


@st.composite
def layered(draw: st.DrawFn) -> list[tuple[str, ...]]:
    """Rows as networks have them: layers in layers, some left out, with neighbours and constants."""
    rows = []
    shift, depth, width = draw(st.integers(0, 2)), draw(st.integers(1, 5)), draw(st.integers(1, 4))
    for outer, inner in product(range(depth), range(width)):
        for part in ("attn", "mlp"):
            reader = f"s.{outer}.b.{inner + shift}.{part}.weight"
            row = (f"s.{outer}.b.{inner}.{part}", reader, f"norm of s.{outer}.b.{inner} takes 3 of s.{outer}")
            if draw(st.integers(0, 9)):
                rows.append(row)
    return rows


@settings(deadline=None, max_examples=300)
@given(st.one_of(st.lists(ROW, max_size=12, unique_by=lambda row: row[0]), layered()))
def test_unfolding_gives_exactly_the_rows(rows: list[tuple[str, ...]]) -> None:
    found = fold(rows)
    assert sorted(row for one in found for row in unfolded(one.texts)) == sorted(rows)
    for one in found:
        assert sorted(rows[place] for place in one.members) == sorted(unfolded(one.texts))
    assert [one.members[0] for one in found] == sorted(one.members[0] for one in found)


@settings(deadline=None)
@given(st.lists(NAME, max_size=30, unique=True), st.integers(0, 3))
def test_a_length_that_is_taken_is_no_range(names: list[str], taken: int) -> None:
    found = fold([(name,) for name in names], taken=(taken,))
    assert sorted(row[0] for one in found for row in unfolded(one.texts)) == sorted(names)
    assert all(taken not in one.lengths for one in found)


def test_layers_fold_and_gaps_stay_apart() -> None:
    names = [f"h.{layer}.{part}" for layer in (0, 1, 2, 5, 7, 8) for part in ("attn", "mlp")]
    assert names_of("wte", *names, "head") == [
        "wte",
        "h.0–2.attn",
        "h.0–2.mlp",
        "h.5.attn",
        "h.5.mlp",
        "h.7–8.attn",
        "h.7–8.mlp",
        "head",
    ]


def test_the_order_does_not_matter_and_10_comes_after_9() -> None:
    assert names_of(*(f"h.{layer}" for layer in (10, 9, 11, 8))) == ["h.8–11"]


@pytest.mark.parametrize(
    ("depths", "expected"),
    [
        ((2, 2, 2), ["s.0–2.b.0–1"]),
        ((2, 2, 6), ["s.0.b.0–1", "s.1.b.0–1", "s.2.b.0–5"]),
        ((3, 3, 3), ["s.0.b.0–2", "s.1.b.0–2", "s.2.b.0–2"]),  # 3 × 3 could be taken for three pairs
    ],
)
def test_nested_layers_fold_from_within(depths: tuple[int, ...], expected: list[str]) -> None:
    names = [f"s.{stage}.b.{block}" for stage, depth in enumerate(depths) for block in range(depth)]
    assert names_of(*names) == expected


def test_two_numbers_of_one_name_do_not_run_together() -> None:
    assert names_of("s.0.b.0", "s.1.b.1") == ["s.0.b.0", "s.1.b.1"]  # 2 × 2 would be read


def test_neighbours_fold_in_step_from_three_on() -> None:
    rows = [(f"layers.{layer}", f"layers.{layer + 1}.weight") for layer in range(3)]
    assert [found.texts for found in fold(rows)] == [("layers.0–2", "layers.1–3.weight")]
    assert len(fold(rows[:2])) == 2


def test_every_second_module_does_not_fold() -> None:
    assert names_of("0.weight", "2.weight", "4.weight") == ["0.weight", "2.weight", "4.weight"]


def test_what_must_be_alike_is() -> None:
    assert names_of("h.0", "h.1", "h.2", alike=[16, 16, 8]) == ["h.0–1", "h.2"]


def test_a_number_counts_layers_if_it_ends_a_part_of_a_name() -> None:
    assert names_of("conv1d.a", "conv2d.a", "x.01", "x.02") == ["conv1d.a", "conv2d.a", "x.01", "x.02"]
    assert names_of("conv1", "conv2") == ["conv1–2"]
    assert names_of("lstm.weight_ih_l0", "lstm.weight_ih_l1") == ["lstm.weight_ih_l0–1"]
    assert names_of("lstm.weight_ih_l0_reverse", "lstm.weight_ih_l1_reverse") == ["lstm.weight_ih_l0–1_reverse"]
