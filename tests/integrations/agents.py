"""Small agents, and the second half of a training run that was saved, for a process of its own.

python -m tests.integrations.agents FOLDER
"""

import random
import sys
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3 import A2C, DDPG, DQN, PPO, SAC, TD3

import regrow
from regrow.integrations.stable_baselines3 import RegrowCallback

BRISK = regrow.ContinualBackprop(0.02, 4)
HALF = 128


class Cycle(gymnasium.Env[Any, Any]):
    """Draws nothing, and begins anew every 16 steps: there is nothing to save of it at a multiple of these."""

    def __init__(self, actions: spaces.Space[Any], observations: spaces.Space[Any] | None = None) -> None:
        self.action_space = actions
        self.observation_space = observations or spaces.Box(-1, 1, (3,), np.float32)
        self._steps, self._place = 0, 0.0

    def _seen(self) -> Any:
        if isinstance(self.observation_space, spaces.Box) and self.observation_space.shape == (3,):
            angle = self._steps / 16 * 2 * np.pi
            return np.array([np.sin(angle), np.cos(angle), np.tanh(self._place)], np.float32)
        return self.observation_space.sample()

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        self._steps, self._place = 0, 0.0
        return self._seen(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self._steps += 1
        self._place += float(np.sum(action)) - 0.3
        return self._seen(), -abs(self._place), self._steps % 16 == 0, False, {}


_ON_POLICY: dict[str, Any] = {"n_steps": 32}
_OFF_POLICY: dict[str, Any] = {"learning_starts": 16, "batch_size": 16, "buffer_size": 200}
SETTINGS: dict[str, tuple[Any, dict[str, Any]]] = {
    "PPO": (PPO, _ON_POLICY | {"batch_size": 16, "n_epochs": 2}),
    "A2C": (A2C, {}),
    "SAC": (SAC, _OFF_POLICY),
    "TD3": (TD3, _OFF_POLICY),
    "DDPG": (DDPG, _OFF_POLICY),
    # An exploration that does not depend on how long learn() is to last
    "DQN": (DQN, _OFF_POLICY | {"exploration_initial_eps": 0.3, "exploration_final_eps": 0.3, "train_freq": 2}),
}


def environment(kind: str) -> Cycle:
    discrete = kind in ("PPO", "A2C", "DQN")
    return Cycle(spaces.Discrete(2) if discrete else spaces.Box(-1, 1, (1,), np.float32))


def agent(kind: str, policy: str = "MlpPolicy", env: Any = None, **settings: Any) -> Any:
    algorithm, own = SETTINGS[kind]
    network = {"net_arch": [12, 10]} | settings.pop("policy_kwargs", {})
    settings = {"seed": 3, "device": "cpu", "policy_kwargs": network} | own | settings
    return algorithm(policy, env or environment(kind), **settings)


def everything(model: Any) -> dict[str, Any]:
    """All that training changes in an agent, flat."""
    found: dict[str, Any] = {}

    def take(name: str, value: Any) -> None:
        if isinstance(value, dict):
            for key, item in value.items():
                take(f"{name}.{key}", item)
        elif isinstance(value, torch.Tensor):
            found[name] = value.detach().clone()

    for name, state in model.get_parameters().items():
        take(name, state)
    if getattr(model, "log_ent_coef", None) is not None:
        found["log_ent_coef"] = model.log_ent_coef.detach().clone()
    return found


def save(model: Any, folder: Path, kind: str) -> None:
    """With what Stable-Baselines3 does not save."""
    model.save(folder / f"{kind}.zip")
    if hasattr(model, "replay_buffer"):
        model.save_replay_buffer(folder / f"{kind}.buffer")
    generators = {
        "torch": torch.get_rng_state(),
        "numpy": np.random.get_state(),
        "python": random.getstate(),
        "actions": model.action_space.np_random.bit_generator.state,
    }
    torch.save(generators, folder / f"{kind}.generators")


def load(folder: Path, kind: str) -> Any:
    model = SETTINGS[kind][0].load(folder / f"{kind}.zip", env=environment(kind), device="cpu")
    if hasattr(model, "replay_buffer"):
        model.load_replay_buffer(folder / f"{kind}.buffer")
    generators = torch.load(folder / f"{kind}.generators", weights_only=False)
    torch.set_rng_state(generators["torch"])
    np.random.set_state(generators["numpy"])
    random.setstate(generators["python"])
    model.action_space.np_random.bit_generator.state = generators["actions"]
    return model


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    for file in sorted(folder.glob("*.zip")):
        model = load(folder, file.stem)
        model.learn(HALF, callback=RegrowCallback(BRISK), reset_num_timesteps=False)
        torch.save(everything(model), folder / f"{file.stem}.end")


if __name__ == "__main__":
    main(Path(sys.argv[1]))


def learned(kind: str, callback: Any, steps: int = HALF, **settings: Any) -> Any:
    """An agent after some steps."""
    return agent(kind, **settings).learn(steps, callback=callback)


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether two agents are the same, bit for bit."""
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
