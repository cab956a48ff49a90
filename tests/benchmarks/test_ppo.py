"""The loop by hand does the work of ours."""

import copy

import gymnasium as gym
import polars as pl
import pytest
import torch

from benchmarks import learning
from benchmarks.plain_ppo import PlainPPO
from benchmarks.ppo import ours
from benchmarks.published_ppo import published_ppo
from regrow.rl.ppo import PPO, Agent, PPOSettings


def test_the_loop_by_hand_learns_what_ours_does_from_the_same_steps():
    settings = PPOSettings(buffer=64, epochs=1, minibatches=1)
    torch.manual_seed(0)
    agent = Agent(11, 3, (16, 16))
    theirs = PlainPPO(gym.make("Hopper-v5"), copy.deepcopy(agent), 1e-2, settings)
    ppo = PPO([gym.make("Hopper-v5")], agent, torch.optim.Adam(agent.parameters(), lr=1e-2, fused=True), settings)
    buffer, _ = ppo._act()
    columns = [torch.from_numpy(column[:, 0]) for column in (buffer.observations, buffer.actions)]
    old, rewards = (torch.from_numpy(column[:, 0]) for column in (buffer.log_probabilities, buffer.rewards))
    values = theirs.agent.value(columns[0]).detach().squeeze(1)
    theirs.observation = ppo._observations[0]
    before = copy.deepcopy(agent)
    ppo._learn(buffer)
    theirs.learn(*columns, old, values, rewards, (~torch.from_numpy(buffer.ended[:, 0])).float())
    for (name, mine), other in zip(agent.named_parameters(), theirs.agent.parameters(), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-5, msg=name)
        assert not torch.equal(mine, before.get_parameter(name))


@pytest.mark.slow
def test_ours_can_be_timed():
    ours(16)()


def test_a_folder_without_the_published_code_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="has no lop/algos/rl/ppo.py: clone .*/loss-of-plasticity there"):
        published_ppo(tmp_path, gym.make("Hopper-v5"))


@pytest.mark.slow
def test_both_learners_leave_episodes_that_a_figure_can_be_made_of(tmp_path, monkeypatch):
    monkeypatch.setattr(learning, "BIN", 1024)
    tables = []
    for who in learning.LEARNERS:
        run = (who, "Hopper-v5", 0, 4096, tmp_path)
        tables.append(learning.kept(run))
        monkeypatch.setitem(learning.LEARNERS, who, None)  # from now on the file must do
        assert learning.kept(run).equals(tables[-1])
    table = learning.curves(pl.concat(tables), 4096)
    assert set(table["who"]) == {"regrow", "Stable-Baselines3"} and set(table["bin"]) == {0, 1, 2, 3}
    assert table["return"].is_between(0, 300).all()
    learning.draw(table, tmp_path / "figure.png")
    assert (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG")
