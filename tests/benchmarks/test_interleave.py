"""The harness: order of calls, pairing of rounds, table and file."""

import json
from pathlib import Path

import pytest

from benchmarks import interleave
from benchmarks.interleave import compare, parse, report


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """A CPU clock that only moves when a case says so."""
    state = {"now": 0.0}
    monkeypatch.setattr(interleave.time, "process_time", lambda: state["now"])
    monkeypatch.setattr(interleave.torch, "set_num_threads", lambda count: None)
    monkeypatch.setattr(interleave.torch, "set_flush_denormal", lambda on: None)
    return state


def test_ratios_are_taken_within_a_round(clock: dict[str, float]) -> None:
    calls: list[str] = []

    def case(name: str, seconds: float) -> None:
        # The machine gets ten times slower as time goes on: ratios within a round must not see it.
        slowness = 1 + 9 * ((len(calls) - 2) // 3) / 4
        calls.append(name)
        clock["now"] += seconds * slowness

    rows = compare({"fast": lambda: case("fast", 0.001), "slow": lambda: case("slow", 0.004)}, "slow", rounds=4)
    assert calls == ["fast", "slow"] + ["fast", "slow", "slow", "slow", "slow", "fast"] * 2
    assert [row.case for row in rows] == ["slow", "slow (again)", "fast"]
    assert [round(row.ratio, 9) for row in rows] == [1, 1, 0.25]
    assert [(round(row.low, 9), round(row.high, 9)) for row in rows] == [(1, 1), (1, 1), (0.25, 0.25)]
    assert rows[2].milliseconds == pytest.approx((3.25 + 5.5) / 2)


def test_report_prints_and_writes_the_same(
    clock: dict[str, float], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def work() -> None:
        clock["now"] += 0.5

    def more() -> None:
        clock["now"] += 0.75

    path = tmp_path / "rows.json"
    report(compare({"bare": work, "attached": more}, "bare", rounds=2), "Cost", path, ["note"])
    printed = capsys.readouterr().out
    assert "attached         750.000             1.5000" in printed
    assert "note" in printed
    content = json.loads(path.read_text())
    assert [row["ratio"] for row in content["rows"]] == [1, 1, 1.5]
    assert {"cpu", "versions", "threads"} == content["environment"].keys()


def test_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["engines", "--quick", "--json", "out.json"])
    assert (parse("what").quick, parse("what").json) == (True, Path("out.json"))
