"""Every method does today what it did when its run was recorded."""

import re
from typing import Any

import pytest

from tests.conformance.cases import METHODS
from tests.golden.trace import path_of, recorded, trace_of


@pytest.mark.parametrize("name", METHODS)
def test_a_method_does_what_is_on_record(name: str) -> None:
    before, now = recorded(name), trace_of(name)
    assert now["settings"] == before["settings"], "other `brisk` settings: record the run anew"
    assert now["tolerance"] == before["tolerance"], "another precision: record the run anew if that is wanted"
    assert [event[:3] for event in now["events"]] == [event[:3] for event in before["events"]]
    tolerance = before["tolerance"]
    shares = [event[3] for event in before["events"]]
    assert [event[3] for event in now["events"]] == pytest.approx(shares, rel=tolerance)
    for part in ("parameters", "state"):
        for key, value in before[part].items():  # what is remembered beside that is no change
            found = now[part].get(key)
            assert _agrees(found, value, tolerance), (
                f"{key} of {name} was {value} and is {found}. A refactor changes no numbers; for a change that is "
                f"wanted, run `python -m tests.golden.record {name}` and name it in CHANGELOG.md."
            )


@pytest.mark.parametrize("name", [name for name in METHODS if name != "backprop"])
def test_a_record_is_not_that_of_plain_training(name: str) -> None:
    found, plain = recorded(name), recorded("backprop")["parameters"]
    assert any(not _agrees(value, plain[key], 10 * found["tolerance"]) for key, value in found["parameters"].items())


def test_every_record_is_of_a_method() -> None:
    assert {path.stem for path in path_of("any").parent.iterdir()} == set(METHODS)


def test_a_method_without_a_record_says_how_to_make_one() -> None:
    with pytest.raises(FileNotFoundError, match=re.escape("python -m tests.golden.record new-method")):
        recorded("new-method")


def test_a_small_difference_is_seen() -> None:
    before = {"sum": 1.0, "weighted": 0.5, "magnitude": 3.0}
    assert _agrees(before | {"sum": 1.0 + 1e-11}, before, 1e-10)
    for key in before:
        assert not _agrees(before | {key: before[key] + 1e-9}, before, 1e-10)
    assert not _agrees([1, 2], [1, 3], 1e-5)


def _agrees(now: Any, before: Any, tolerance: float) -> bool:
    if isinstance(before, dict):  # of real numbers: sums of terms that may cancel
        return bool(now == pytest.approx(before, rel=0, abs=tolerance * before["magnitude"]))
    return bool(now == before)
