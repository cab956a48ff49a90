"""The loop by hand does the work of ours."""

import copy

import gymnasium as gym
import pytest
import torch

from benchmarks.plain_ppo import PlainPPO
from benchmarks.ppo import ours
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
