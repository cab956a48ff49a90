"""The benchmark of methods on tiny networks: what it times and the form of what it finds, no times."""

import json
from pathlib import Path

import pytest
import torch

from benchmarks import overhead
from benchmarks.overhead import NEVER, SEVERAL, Cost, cases, costs, main, table
from benchmarks.workloads import GPT, WORKLOADS, Workload
from regrow.methods import Method
from regrow.networks.mlp import MLP
from regrow.networks.resnet import ResNet

TINY = {
    "mlp": Workload("a", lambda: MLP(4, [5, 6], 3), lambda: torch.rand(8, 4), 3, steps=2, rounds=2),
    "resnet": Workload("b", lambda: ResNet(3, (4, 4), (1, 1)), lambda: torch.rand(2, 3, 8, 8), 3, steps=1, rounds=2),
    "gpt": Workload("c", lambda: GPT(7, 8, 1, 4, 2), lambda: torch.randint(7, (2, 8)), 7, steps=1, rounds=2),
}


def test_every_method_has_a_line() -> None:
    known = cases()
    assert known.keys() > Method.registry.keys()
    periods = {name: case.period for name, case in known.items() if case.acting is not None}
    assert periods["redo"] == 1000
    assert periods["shrink-and-perturb, period=16"] == 16
    assert not {"cbp", "l2", "nap", "hard-reset"} & periods.keys()
    changes = {name for name, case in known.items() if case.at_task_change}
    assert changes == {"dash", "fire", "full-reset", "hard-reset", "shrink-and-perturb-at-task-change"}


def test_every_method_is_timed() -> None:
    found = {cost.method: cost for cost in costs("mlp", TINY["mlp"], cases(), rounds=2)}
    assert found.keys() == {"bare (again)", *cases()}
    for name, cost in found.items():
        acts = name in cases() and cases()[name].acting is not None
        assert (cost.act_ms is not None) == (cost.amortized_percent is not None) == acts
        assert (cost.inside_ms > 0) == (name in cases())
        assert cost.low <= cost.percent <= cost.high
        assert cost.step_ms == pytest.approx(cost.bare_ms * cost.percent / 100)


@pytest.mark.parametrize("name", ["resnet", "gpt"])
def test_several_at_once_on_deep_networks(name: str) -> None:
    wanted = {method: cases()[method] for method in ("cbp", SEVERAL)}
    assert [cost.method for cost in costs(name, TINY[name], wanted, rounds=2)] == ["cbp", SEVERAL, "bare (again)"]


def test_steps_that_are_timed_are_those_that_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    redo, cbp = cases()["redo"], cases()["cbp"]
    assert redo.acting is not None
    quiet, acting, young = (
        overhead.training(TINY["mlp"], put)[1][0].methods[0].settings() for put in (redo.quiet, redo.acting, cbp.quiet)
    )
    assert (quiet["period"], acting["period"], young["maturity_threshold"]) == (NEVER, 1, 0)


def test_table() -> None:
    quiet = Cost(
        "mlp", "redo", 50.0, 0.5, 1.0, 0.5, 1.5, inside_ms=0.4, act_ms=20.0, period=1000, amortized_percent=1.04
    )
    change = Cost("mlp", "fire", 50.0, 0.0, 0.0, -0.1, 0.1, task_change_ms=4321.0)
    assert table([quiet, change]).splitlines()[2:] == [
        "| redo | 0.50 | 1.0 | 0.5 to 1.5 | 0.8 | 20 every 1000 | 1.0 |  |",
        "| fire | 0.00 | 0.0 | -0.1 to 0.1 | 0.0 |  |  | 4321 |",
    ]


def test_command_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(overhead, "WORKLOADS", TINY)
    path = tmp_path / "costs.json"
    monkeypatch.setattr(
        "sys.argv", ["overhead", "--networks", "mlp", "--methods", "l2", "fire", "--rounds", "2", "--json", str(path)]
    )
    main()
    content = json.loads(path.read_text())
    assert [cost["method"] for cost in content["costs"]] == ["l2", "fire", "bare (again)"]
    assert {"cpu", "versions", "threads"} == content["environment"].keys()
    assert "2 rounds of 2 steps" in capsys.readouterr().out


def test_networks_are_those_of_the_table() -> None:
    sizes = {name: sum(parameter.numel() for parameter in w.model().parameters()) for name, w in WORKLOADS.items()}
    assert sizes == {"mlp": 9_594_010, "resnet": 11_178_762, "gpt": 10_942_464}
