"""Ranks that train together stay alike, talk only when something is due, and do what one process would."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

import regrow
from regrow.methods import UnitMethod
from tests.conformance.cases import OPTIMIZERS, PROBLEMS, Run, brisk, every_method, replaces, same, start
from tests.conformance.two_ranks import HALVES, STEPS, has_memory_of_its_own, optimizer_for, outcome
from tests.golden.trace import PROBLEM as IN_DOUBLE

# Two processes make all runs, so all tests that look at them belong to one worker of pytest.
pytestmark = [pytest.mark.xdist_group("data-parallel"), pytest.mark.slow]


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[Any, Any]]:
    """What came of all runs, on each of two ranks."""
    folder = tmp_path_factory.mktemp("ranks")
    command = [sys.executable, "-m", "tests.conformance.two_ranks"]
    root = Path(__file__).parents[2]
    running = [
        subprocess.Popen([*command, str(rank), folder], cwd=root, stderr=subprocess.PIPE, text=True) for rank in (0, 1)
    ]
    said = [process.communicate()[1] for process in running]
    assert [process.returncode for process in running] == [0, 0], "\n".join(said)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in (0, 1)]


def _alike(first: dict[str, Any], second: dict[str, Any]) -> None:
    assert first["events"] == second["events"]
    for part in ("parameters", "state"):
        assert first[part].keys() == second[part].keys()
        assert not [name for name, value in first[part].items() if not torch.equal(value, second[part][name])]


@every_method()
def test_ranks_are_the_same_bits_after_many_steps_of_accumulation(method: str, ranks: list[dict[Any, Any]]) -> None:
    first, second = (found["long", method] for found in ranks)
    _alike(first, second)
    assert bool(first["events"]) == replaces(brisk(method))


@pytest.mark.parametrize("problem", [problem for problem in PROBLEMS if problem != "mlp"])
@every_method()
def test_so_are_other_networks_wrapped_after_attach(method: str, problem: str, ranks: list[dict[Any, Any]]) -> None:
    _alike(*(found[problem, method] for found in ranks))


@every_method(has_memory_of_its_own)
def test_so_are_ranks_that_go_on_from_what_one_of_them_saved(method: str, ranks: list[dict[Any, Any]]) -> None:
    _alike(*(found["resumed", method] for found in ranks))


@pytest.mark.parametrize("how", ["by hand", "early"])
def test_so_are_ranks_that_average_by_hand_or_meet_after_attach(how: str, ranks: list[dict[Any, Any]]) -> None:
    _alike(*(found[how] for found in ranks))
    assert ranks[0][how]["events"]


@pytest.mark.parametrize("method", ["cbp", "full-reset"])
def test_what_an_optimizer_has_in_shards_is_cleared_too(method: str, ranks: list[dict[Any, Any]]) -> None:
    for found in ranks:
        whole, shards = (found["sharded", method][how] for how in ("whole", "shards"))
        assert same(whole, shards)


@every_method()
def test_ranks_talk_only_when_something_is_due(method: str, ranks: list[dict[Any, Any]]) -> None:
    talked = ranks[0]["long", method]["talked"]
    assert talked == ranks[1]["long", method]["talked"]
    # Once at the beginning, to see that they are alike.
    assert set(talked) == {1} | _due(method)
    assert max(talked.values()) <= 2


def _due(name: str) -> set[int]:
    """The steps at which a method needs what other ranks have seen."""
    method, steps = brisk(name), range(1, STEPS + 1)
    if not has_memory_of_its_own(method):
        return set()
    if isinstance(method, UnitMethod):
        schedules, draws = [method.schedule(size) for size in (16, 12)], torch.Generator()
        return {step for schedule in schedules for step in steps if schedule.advance(draws)}
    return {step for step in steps if step % method.period == 0}


@every_method(replaces)
def test_two_halves_of_a_batch_are_as_good_as_the_whole(method: str, ranks: list[dict[Any, Any]]) -> None:
    model = IN_DOUBLE.network()
    optimizer = OPTIMIZERS["sgd"](model.parameters())
    plastic = regrow.attach(model, optimizer, brisk(method), example=IN_DOUBLE.batch(0)[0])
    Run(IN_DOUBLE, model, optimizer, plastic, task=0).train(HALVES, size=8)
    whole, half = outcome(model, optimizer, plastic), ranks[0]["half", method]
    assert [event[:3] for event in half["events"]] == [event[:3] for event in whole["events"]]
    assert half["events"]
    for name, value in whole["parameters"].items():
        torch.testing.assert_close(half["parameters"][name], value, rtol=1e-5, atol=1e-6)


@pytest.fixture
def alone() -> Iterator[None]:
    """A process group of one."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@every_method()
def test_a_world_of_one_is_as_none(method: str, alone: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dist, "all_reduce", None)
    plain = start("mlp", optimizer_for(method), brisk(method)).train(25)
    problem = PROBLEMS["mlp"]
    model = problem.network()
    wrapper = DistributedDataParallel(model)
    optimizer = OPTIMIZERS[optimizer_for(method)](wrapper.parameters())
    plastic = regrow.attach(wrapper, optimizer, brisk(method), example=problem.batch(0)[0])
    Run(problem, wrapper, optimizer, plastic).train(25)
    _alike(outcome(plain.model, plain.optimizer, plain.plastic), outcome(model, optimizer, plastic))


def test_ranks_that_are_not_alike_are_told(ranks: list[dict[Any, Any]]) -> None:
    for found in ranks:
        assert found["complaints"].keys() == {"seeds", "methods", "checkpoints"}
        for text in found["complaints"].values():
            assert re.match("The 2 ranks of this data-parallel run are not alike: .* Give attach\\(\\) the same", text)
