"""RegrowCallback when learning goes on: in further calls, from a file, in a copy."""

import copy
import os
import subprocess
import sys
from pathlib import Path

import cloudpickle
import numpy as np
import pytest
import torch
from stable_baselines3 import TD3

import regrow
from regrow.errors import StateError
from regrow.integrations.stable_baselines3 import RegrowCallback
from tests.integrations.agents import BRISK, HALF, agent, environment, everything, learned, same, save

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("kind", ["PPO", "TD3", "DQN"])
def test_learning_goes_on_with_the_attachments_that_are_there(kind: str) -> None:
    once = RegrowCallback(BRISK)
    whole = learned(kind, once, 2 * HALF)
    model, first = agent(kind), RegrowCallback(BRISK)
    model.learn(HALF, callback=first)
    hooks = [len(plastic.optimizer._optimizer_step_post_hooks) for plastic in first.attachments.values()]
    again = RegrowCallback(BRISK if kind == "PPO" else [BRISK])
    model.learn(HALF, callback=again, reset_num_timesteps=False)
    assert again.attachments == first.attachments
    assert hooks == [len(plastic.optimizer._optimizer_step_post_hooks) for plastic in first.attachments.values()]
    assert same(everything(whole), everything(model))
    for name, plastic in again.attachments.items():
        assert plastic.events == once.attachments[name].events


def test_between_calls_methods_are_at_rest() -> None:
    model, callback = agent("PPO"), RegrowCallback(BRISK)
    steps = []
    for given in (callback, None, callback):
        model.learn(32, callback=given)
        steps.append(callback.attachments["policy"].metrics()["steps"])
    assert steps == [4, 4, 8]


def test_units_age_with_a_learning_rate_that_falls() -> None:
    """By a schedule of Stable-Baselines3 itself, from 1 to 0 over the whole run."""
    model = agent("PPO", learning_rate=lambda left: 1e-3 * left)
    callback = RegrowCallback(regrow.ContinualBackprop(0.0), time="step_sizes")
    model.learn(128, callback=callback)
    plastic = callback.attachments["policy"]
    ages = {int(plastic.state_of(group)["age"].max()) for group in plastic.groups}
    assert len(ages) == 1 and 0.4 < ages.pop() / plastic.metrics()["steps"] < 0.7


def test_other_methods_beside_those_that_are_there() -> None:
    model, callback = agent("TD3"), RegrowCallback("cbp", seed=5)
    model.learn(20, callback=callback)
    with pytest.raises(StateError, match=r"Other methods are at work on this TD3 already.\n  at work: Continual"):
        model.learn(20, callback=RegrowCallback("redo", seed=5))
    said = "init=None, seed=5, time='steps'\n.*init=None, seed=3, time='steps'\n.*call detach"
    with pytest.raises(StateError, match=said):
        model.learn(20, callback=RegrowCallback("cbp"))
    again = RegrowCallback("cbp", seed=5)
    model.learn(20, callback=again)
    callback.detach()
    again.detach()
    assert not callback.attachments and "regrow" not in model.actor.optimizer.state_dict()
    model.learn(20, callback=(callback := RegrowCallback("redo")))
    callback.attachments["actor"].detach()
    model.learn(20, callback=(again := RegrowCallback("cbp")))
    assert all(plastic.attached for plastic in again.attachments.values())
    assert not any(plastic.attached for plastic in callback.attachments.values())


@pytest.fixture(scope="module")
def halfway(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Agents saved in the middle, and what a new process made of them."""
    folder = tmp_path_factory.mktemp("agents")
    for kind in ("PPO", "SAC", "TD3", "DQN"):
        save(learned(kind, RegrowCallback(BRISK)), folder, kind)
    command = [sys.executable, "-P", "-m", "tests.integrations.agents", str(folder)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    result = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return folder


@pytest.mark.parametrize("kind", ["PPO", "SAC", "TD3", "DQN"])
def test_resumed_in_a_new_process_it_is_as_if_never_stopped(kind: str, halfway: Path) -> None:
    callback = RegrowCallback(BRISK)
    model = agent(kind).learn(2 * HALF, callback=callback)
    end = torch.load(halfway / f"{kind}.end", weights_only=True)
    assert same(everything(model), end)
    for plastic in callback.attachments.values():
        halves = [event.step * 2 > plastic.metrics()["steps"] for event in plastic.events]
        assert 5 < sum(halves) < len(halves) - 5
    assert any(".regrow." in name and name.endswith(".born") for name in end)


def test_without_what_was_remembered_it_is_not(halfway: Path) -> None:
    from tests.integrations.agents import load, same

    model = load(halfway, "PPO")
    del model.regrow_state
    model.learn(HALF, callback=RegrowCallback(BRISK), reset_num_timesteps=False)
    assert not same(everything(model), torch.load(halfway / "PPO.end", weights_only=True))


def test_what_is_saved_is_read_without_regrow_and_kept_until_it_is_asked_for(halfway: Path, tmp_path: Path) -> None:
    model = learned("TD3", RegrowCallback(BRISK))
    assert b"regrow." not in cloudpickle.dumps(vars(model)["regrow_state"])
    TD3.load(halfway / "TD3.zip").save(tmp_path / "again.zip")
    again = TD3.load(tmp_path / "again.zip")
    assert type(again.regrow_state) is dict and same(
        again.regrow_state["actor"], model.regrow_state.__reduce__()[1][0]["actor"]
    )


def test_a_copy_goes_on_by_itself() -> None:
    model = learned("DQN", RegrowCallback(BRISK))
    other = copy.deepcopy(model)
    ends = []
    for one in (model, other):
        torch.manual_seed(0)
        np.random.seed(0)
        callback = RegrowCallback(BRISK)
        ends.append(everything(one.learn(HALF, callback=callback, reset_num_timesteps=False)))
        assert callback.attachments["policy"].model is one.q_net
    assert same(*ends)


def test_saved_with_other_methods(halfway: Path) -> None:
    model = TD3.load(halfway / "TD3.zip", env=environment("TD3"))
    with pytest.raises(StateError, match=r"(?s)saved with other methods.*afresh on this TD3: del model.regrow_state"):
        model.learn(1, callback=RegrowCallback("redo"))
    assert "regrow" not in model.critic.optimizer.state_dict()
    model.regrow_state.pop("actor")
    with pytest.raises(StateError, match="saved with methods at work on critic, but the present ones act on actor and"):
        model.learn(1, callback=RegrowCallback(BRISK))
    del model.regrow_state
    model.learn(1, callback=RegrowCallback("redo"))
