"""Save, load in a new process, go on: bit for bit what it would have been, for every method."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import regrow
from regrow.errors import StateError
from tests.conformance.cases import METHODS, OPTIMIZERS, PROBLEMS, Problem, Run, brisk, every_method, same, start

pytestmark = pytest.mark.xdist_group("conformance-resume")  # one process, so that the fixture below is made once

HALF, WHOLE = 13, 24  # steps; the task changes before steps 10 and 20, and some methods act at each fifth
LATE = "model, attach without example, optimizer"
ORDERS = ("model, attach, optimizer", "attach, model, optimizer", LATE)


class OwnParameters(nn.Module):
    """Parameters that no module's code draws, and a part that not every batch reaches: not that after half the steps.

    What they were before training can be told from their values only, and not any more when the run is restored.
    """

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Parameter(torch.randn(8, 16).mul_(0.7))
        self.scale = nn.Parameter(torch.full((16,), 0.8))
        self.gain = nn.Parameter(torch.ones(16))
        self.shift = nn.Parameter(torch.zeros(16))
        self.left, self.right = nn.Linear(16, 4), nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.relu((x @ self.first) * self.scale * self.gain + self.shift)
        return self.left(h) + self.right(1 * h) if x[0, 0] < 0 else self.left(h)


KINDS = {**PROBLEMS, "own-parameters": Problem(OwnParameters, PROBLEMS["mlp"].draw)}

Case = tuple[str, str, str, str]  # method, problem, optimizer, order of loading


def _cases() -> dict[str, Case]:
    """Every method on every network; optimizers and orders take turns."""
    found = {}
    for first, method in enumerate(METHODS):
        for second, problem in enumerate(KINDS):
            optimizer = [*OPTIMIZERS][(first + second) % len(OPTIMIZERS)]
            order = ORDERS[(first - second) % (2 if problem == "own-parameters" else 3)]
            found[f"{method}-{problem}-{optimizer}"] = (method, problem, optimizer, order)
    return found


CASES = _cases()


def saved(run: Run) -> dict[str, Any]:
    """What a user saves."""
    return {"model": run.model.state_dict(), "optimizer": run.optimizer.state_dict()}


def copied(tree: Any) -> Any:
    """The same as numbers in memory of its own."""
    if isinstance(tree, Tensor):
        return tree.clone()
    if isinstance(tree, dict):
        return {key: copied(value) for key, value in tree.items()}
    return [copied(value) for value in tree] if isinstance(tree, list | tuple) else tree


def begun(case: Case) -> Run:
    """A run at its beginning."""
    name, problem, optimizer, _ = case
    kind = KINDS[problem]
    model = kind.network()
    made = OPTIMIZERS[optimizer](model.parameters())
    return Run(kind, model, made, regrow.attach(model, made, brisk(name), example=kind.batch(0)[0], seed=5))


def restored(case: Case, state: dict[str, Any]) -> Run:
    """A run that goes on from it, in a process that knows nothing else."""
    name, problem, optimizer, order = case
    kind = KINDS[problem]
    model = kind.network(seed=9)
    made = OPTIMIZERS[optimizer](model.parameters())
    if order.startswith("model"):
        model.load_state_dict(state["model"])
    example = None if order == LATE else kind.batch(77)[0]
    plastic = regrow.attach(model, made, brisk(name), example=example, seed=123)
    if order.startswith("attach"):
        model.load_state_dict(state["model"])
    made.load_state_dict(state["optimizer"])
    return Run(kind, model, made, plastic, steps=HALF)


def go_on(folder: str) -> None:
    """The other process."""
    torch.set_num_threads(1)
    states = torch.load(f"{folder}/half.pt", weights_only=True)
    runs = {case: restored(CASES[case], state).train(WHOLE - HALF) for case, state in states.items()}
    torch.save({case: saved(run) for case, run in runs.items()}, f"{folder}/whole.pt")


def flat(tree: Any, path: str = "") -> dict[str, Tensor]:
    """Every tensor and number in a nested state, by its path."""
    if isinstance(tree, Tensor):
        return {path: tree}
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list | tuple) else None
    if items is None:
        return {path: torch.tensor(float("nan") if tree is None else tree).nan_to_num()}
    return {name: leaf for key, child in items for name, leaf in flat(child, f"{path}/{key}").items()}


@pytest.fixture(scope="module")
def through_and_resumed(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], dict[str, Any]]:
    """All cases, run through in this process, and gone on with from half-way in one other process."""
    folder = tmp_path_factory.mktemp("saved")
    half, whole = {}, {}
    for case, what in CASES.items():
        run = begun(what).train(HALF)
        half[case] = copied(saved(run))
        whole[case] = saved(run.train(WHOLE - HALF))
    torch.save(half, folder / "half.pt")
    call = f"import sys; from tests.conformance.test_resume import go_on; go_on({str(folder)!r})"
    subprocess.run([sys.executable, "-c", call], check=True, cwd=Path(__file__).parents[2])
    return whole, torch.load(folder / "whole.pt", weights_only=True)


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_resume_in_a_new_process_is_bit_identical(case: str, through_and_resumed: tuple[dict, dict]) -> None:
    through, resumed = (flat(states[case]) for states in through_and_resumed)
    assert through.keys() == resumed.keys()
    assert [name for name, value in through.items() if not value.equal(resumed[name])] == []
    assert any("/regrow/" in name for name in through)


@every_method()
def test_a_method_is_switched_on_for_a_run_that_had_none(method: str) -> None:
    first = start("mlp", "adam", None).train(10)
    run = start("mlp", "adam", brisk(method))
    run.model.load_state_dict(first.state)
    run.optimizer.load_state_dict(copied(first.optimizer.state_dict()))
    run.steps = 10
    run.train(15)
    assert run.plastic.metrics()["steps"] == 15
    assert same(run.state, first.train(15).state) == (method == "backprop")


@every_method()
def test_a_method_is_left_out_when_its_run_is_restored(method: str) -> None:
    run = start("mlp", "adam", brisk(method)).train(HALF)
    plain = start("mlp", "adam", None)
    plain.model.load_state_dict(run.state)
    plain.optimizer.load_state_dict(copied(run.optimizer.state_dict()))
    plain.steps = HALF
    run.plastic.detach()
    assert same(plain.train(10).state, run.train(10).state)
    assert "regrow" not in plain.optimizer.state_dict()


@every_method()
def test_twins_under_one_optimizer_are_told_apart_whatever_the_order_of_attachment(method: str) -> None:
    """As the two critics of an agent, which have the same groups and the same parameters' names."""
    kind = PROBLEMS["mlp"]

    def begin(order: tuple[int, int], seed: int) -> tuple[nn.ModuleList, torch.optim.Optimizer]:
        twins = nn.ModuleList(kind.network(seed + number) for number in range(2))
        optimizer = torch.optim.Adam(twins.parameters(), lr=0.01)
        for number in order:
            twins[number].plastic = regrow.attach(
                twins[number], optimizer, brisk(method), example=kind.batch(0)[0], seed=number
            )
        return twins, optimizer

    def train(twins: nn.ModuleList, optimizer: torch.optim.Optimizer, steps: range) -> None:
        for step in steps:
            inputs, targets = kind.batch(step)
            optimizer.zero_grad()
            for number, twin in enumerate(twins):
                kind.loss(twin((number + 1) * inputs), targets).backward()
            optimizer.step()

    twins, optimizer = begin((0, 1), seed=0)
    train(twins, optimizer, range(8))
    state = copied({"model": twins.state_dict(), "optimizer": optimizer.state_dict()})
    train(twins, optimizer, range(8, 16))
    others, made = begin((1, 0), seed=7)
    others.load_state_dict(state["model"])
    made.load_state_dict(state["optimizer"])
    train(others, made, range(8, 16))
    assert same(flat(others.state_dict()), flat(twins.state_dict()))
    assert same(flat(made.state_dict()), flat(optimizer.state_dict()))


def test_a_second_method_may_be_attached_before_the_one_that_was_saved() -> None:
    run = start("mlp", "adam", brisk("cbp")).train(8)
    later = start("mlp", "adam", brisk("l2"))
    plastic = regrow.attach(later.model, later.optimizer, brisk("cbp"), example=run.problem.batch(0)[0])
    later.optimizer.load_state_dict(run.optimizer.state_dict())
    assert (later.plastic.metrics()["steps"], plastic.metrics()["steps"]) == (0, 8)


@pytest.mark.parametrize("others", [["redo"], ["cbp", "l2"]])
def test_another_method_in_the_place_of_the_one_that_was_saved_is_refused(others: list[str]) -> None:
    run = start("mlp", "adam", brisk("cbp")).train(8)
    later = start("mlp", "adam", [brisk(name) for name in others])
    with pytest.raises(StateError, match="(?s)saved with other methods.*delete the key 'regrow'"):
        later.optimizer.load_state_dict(run.optimizer.state_dict())
