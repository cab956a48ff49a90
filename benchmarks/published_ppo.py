"""The published code's PPO, out of a clone of it, for `benchmarks.ppo`; it is no part of this project.

As its `run_ppo.py` goes about it with its settings for Ant: it keeps the features of each step, since those settings
have it log them, but what is computed from them every 1,000 steps, checkpoints and files are left out.
"""

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch

from regrow.rl.ppo import PPOSettings

_WIDTHS = [256, 256]
_REMEMBERED = 1000  # steps whose features it keeps


def published_ppo(clone: Path, environment: gym.Env[Any, Any]) -> Callable[[], None]:
    """Make a case: the next buffer and its updates.

    Args:
        clone: of github.com/shibhansh/loss-of-plasticity: the folder with `lop` in it.
        environment: where it acts.

    Raises:
        FileNotFoundError: there is no such code in that folder.
    """
    if not (clone / "lop/algos/rl/ppo.py").is_file():
        raise FileNotFoundError(
            f"{clone} has no lop/algos/rl/ppo.py: clone https://github.com/shibhansh/loss-of-plasticity there."
        )
    sys.path.insert(0, str(clone))
    (agents, buffers, learners, policies, values) = (
        importlib.import_module(f"lop.{name}")
        for name in ("algos.rl.agent", "algos.rl.buffer", "algos.rl.ppo", "nets.policies", "nets.valuefs")
    )
    first, _ = environment.reset(seed=0)
    settings = PPOSettings()
    actions = environment.action_space.sample().size
    policy = policies.MLPPolicy(len(first), actions, act_type="ReLU", h_dim=_WIDTHS, init="lecun")
    value = values.MLPVF(len(first), act_type="ReLU", h_dim=_WIDTHS, init="lecun")
    learner = learners.PPO(
        policy,
        buffers.Buffer(len(first), actions, settings.buffer),
        lr=1e-4,
        g=settings.discount,
        vf=value,
        lm=settings.trace,
        Opt=torch.optim.Adam,
        n_itrs=settings.epochs,
        n_slices=settings.minibatches,
        clip_eps=settings.clip,
    )
    agent = agents.Agent(policy, learner, to_log_features=True)
    features = torch.zeros(_REMEMBERED, len(_WIDTHS), _WIDTHS[0])
    now = [np.asarray(first)]

    def advance() -> None:
        for step in range(settings.buffer):
            action, log_probability, distribution, outputs = agent.get_action(now[0])
            following, reward, terminated, truncated, _ = environment.step(action)
            ended = terminated or truncated
            agent.log_update(now[0], action, reward, following, log_probability, distribution, ended)
            with torch.no_grad():
                for layer, output in enumerate(outputs):
                    features[step % _REMEMBERED, layer] = output
            now[0] = environment.reset()[0] if ended else following

    return advance
