"""PPO as one writes it by hand in plain PyTorch: what `regrow.rl.ppo` is compared with.

It acts by torch, state by state, with the value of each state on the way, as the published code and most teaching code
do; it learns as the article does, with Adam as it comes. The same work: as many steps, epochs and minibatches.
"""

from typing import Any

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor, nn
from torch.distributions import Normal

from regrow.rl.ppo import Agent, PPOSettings


class PlainPPO:
    """One environment, article's settings.

    Args:
        environment: where it acts.
        agent: policy and values.
        learning_rate: Adam's.
        settings: see `PPOSettings`; time limits are ends, actions raw.
    """

    def __init__(
        self,
        environment: gym.Env[Any, Any],
        agent: Agent,
        learning_rate: float = 1e-4,
        settings: PPOSettings | None = None,
    ) -> None:
        self.settings = settings or PPOSettings()
        self.environment, self.agent = environment, agent
        self.optimizer = torch.optim.Adam(agent.parameters(), lr=learning_rate)
        self.observation, _ = environment.reset(seed=0)

    def distribution(self, observations: Tensor) -> Normal:
        """Of the actions."""
        return Normal(self.agent.policy(observations), self.agent.log_std.exp())

    def advance(self) -> None:
        """Fill a buffer and learn from it."""
        rows: list[list[Tensor]] = [[] for _ in range(6)]
        for _ in range(self.settings.buffer):
            observation = torch.from_numpy(self.observation).float()
            with torch.no_grad():
                distribution = self.distribution(observation)
                action = distribution.sample()
                logp = distribution.log_prob(action).sum()
                value = self.agent.value(observation)[0]
            self.observation, reward, terminated, truncated, _ = self.environment.step(action.numpy())
            ended = terminated or truncated
            if ended:
                self.observation, _ = self.environment.reset()
            row = (observation, action, logp, value, torch.tensor(float(reward)), torch.tensor(float(not ended)))
            for column, item in zip(rows, row, strict=True):
                column.append(item)
        self.learn(*map(torch.stack, rows))

    def learn(
        self, observations: Tensor, actions: Tensor, old: Tensor, values: Tensor, rewards: Tensor, going_on: Tensor
    ) -> None:
        """Ten epochs of sixteen minibatches."""
        settings = self.settings
        with torch.no_grad():
            last = self.agent.value(torch.from_numpy(self.observation).float())
        following = torch.cat([values[1:], last])
        errors = rewards + settings.discount * going_on * following - values
        advantages = torch.zeros_like(errors)
        running = torch.tensor(0.0)
        for step in reversed(range(len(errors))):
            running = errors[step] + settings.discount * settings.trace * going_on[step] * running
            advantages[step] = running
        targets = advantages + values
        normed = (advantages - advantages.mean()) / (advantages.std() + 1e-8)
        size = settings.buffer // settings.minibatches
        for _ in range(settings.epochs):
            for some in torch.from_numpy(np.random.default_rng(0).permutation(settings.buffer)).split(size):
                ratio = (self.distribution(observations[some]).log_prob(actions[some]).sum(dim=1) - old[some]).exp()
                clipped = ratio.clamp(1 - settings.clip, 1 + settings.clip)
                surrogate = torch.min(ratio * normed[some], clipped * normed[some]).mean()
                error = nn.functional.mse_loss(self.agent.value(observations[some]).squeeze(1), targets[some])
                self.optimizer.zero_grad()
                torch.autograd.backward(error - surrogate)
                self.optimizer.step()
