"""Environments that each part of an agent must solve, one at a time."""

import gymnasium as gym
import numpy as np


class Tiny(gym.Env):
    """Numbers in, numbers out. Its state is the number of the step, the sign that is shown, and a generator."""

    length = 1

    def __init__(self):
        self.observation_space = gym.spaces.Box(-1, 1, (2,), np.float32)
        self.action_space = gym.spaces.Box(-1, 1, (1,), np.float32)
        self.step_number, self.sign = 0, 1.0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.step_number = 0
        self._draw()
        return self._observation(), {}

    def step(self, action):
        reward = self._reward(float(action[0]))
        self.step_number += 1
        ended = self.step_number == self.length
        self._draw()
        return self._observation(), reward, ended, False, {}

    def _draw(self):
        self.sign = float(self.np_random.choice([-1.0, 1.0]))

    def _observation(self):
        return np.array([self.sign, self.step_number / self.length], np.float32)

    def state_dict(self):
        return {"step_number": self.step_number, "sign": self.sign}

    def load_state_dict(self, state):
        self.step_number, self.sign = state["step_number"], state["sign"]


class ConstantReward(Tiny):
    """One step with a reward of 1, whatever is done: the value is 1."""

    def _reward(self, action):
        return 1.0


class SignOfObservation(Tiny):
    """One step: the reward is the action times the sign that was shown, as far as ±1."""

    def _reward(self, action):
        return self.sign * float(np.clip(action, -1, 1))


class DelayedReward(Tiny):
    """Three steps; what the first action was is rewarded at the end: positive is good."""

    length = 3

    def _reward(self, action):
        if self.step_number == 0:
            self.first = float(np.clip(action, -1, 1))
        return self.first if self.step_number == self.length - 1 else 0.0

    def state_dict(self):
        return super().state_dict() | {"first": getattr(self, "first", 0.0)}

    def load_state_dict(self, state):
        super().load_state_dict(state)
        self.first = state["first"]


class OneForEver(Tiny):
    """A reward of 1 at each step, and no end: with a discount of .5 it is worth 2, unless a time limit is an end."""

    length = 0

    def _reward(self, action):
        return 1.0

    def _observation(self):
        return np.ones(2, np.float32)
