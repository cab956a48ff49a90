"""A run of a PPO agent."""

import time
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from torch import nn
from torch.optim import Adam

from regrow.attachment.attach import attach
from regrow.engines.training import RETURN
from regrow.errors import ConfigError
from regrow.experiments.course import Piece
from regrow.experiments.reinforcement import PPOStudy
from regrow.experiments.spec import RunSpec
from regrow.experiments.study import methods_of
from regrow.measures.dormancy import activity
from regrow.measures.rank import ranks
from regrow.rl.changing import changes_of
from regrow.rl.ppo import PPO, Agent, Episode, PPOSettings, check_spaces

_OBSERVED = 1000  # environment steps that dormancy and rank are measured over


class PPOCourse:
    """An agent on its way. Implements `Course`.

    Dormant units of the policy are those that fire in at most 1 % of the last 1,000 environment steps, mean over its
    layers; ranks are of its last hidden layer over the same steps, and its weight magnitude is that of its second
    layer, as in the article. All are means over the updates of a task.

    Methods are told of a task change after the update in whose buffer the environment, or the last of several, has
    changed.

    Args:
        study: the study.
        spec: the run.

    Raises:
        ConfigError: a task is shorter than an episode or an update.
    """

    def __init__(self, study: PPOStudy, spec: RunSpec) -> None:
        problem = spec.problem
        self._problem = problem
        if problem["environments"] < 1 or len(problem["widths"]) < 2:
            raise ConfigError(
                f"A run needs one environment or more, and networks of two hidden layers or more, and not environments="
                f"{problem['environments']}, widths={problem['widths']}."
            )
        self._environments = [study.environment(problem, spec.seed) for _ in range(problem["environments"])]
        environments = self._environments
        check_spaces(environments[0])
        _check_bin(problem["bin"], problem["buffer"], environments)
        spaces: tuple[Any, Any] = (environments[0].observation_space, environments[0].action_space)
        observations, actions = (space.shape[0] for space in spaces)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(spec.seed)
            self._agent = Agent(observations, actions, problem["widths"], problem["activation"], problem["std"] or None)
        self._optimizer = Adam(
            self._agent.parameters(),
            lr=problem["learning_rate"],
            betas=tuple(problem["betas"]),
            weight_decay=problem["weight_decay"],
            fused=True,
        )
        self._plastic = attach(
            self._agent,
            self._optimizer,
            methods_of(spec),
            example=torch.zeros(2, observations),
            init=problem["init"],
            seed=spec.seed,
        )
        settings = PPOSettings(**{item.name: problem[item.name] for item in fields(PPOSettings)})
        self._ppo = PPO(environments, self._agent, self._optimizer, settings, spec.seed)
        self._second = [layer.weight for layer in self._agent.policy if isinstance(layer, nn.Linear)][1]
        self._index = 0
        self._changes = 0
        self._episodes: list[Episode] = []
        self._symptoms: list[dict[str, float]] = []

    @property
    def progress(self) -> float:
        """See `Course`."""
        return float(self._ppo.steps / (self._problem["bin"] * self._problem["tasks"]))

    def advance(self) -> Piece:
        """See `Course`: one buffer of steps, and what is learned from it."""
        began = time.perf_counter()
        cycle = self._ppo.advance()
        seconds = time.perf_counter() - began
        self._episodes += cycle.episodes
        shown = [torch.from_numpy(layer[-_OBSERVED:]) for layer in cycle.hidden]
        dormant = [(activity(layer) <= 0.01).float().mean().item() for layer in shown]
        of_last = ranks(shown[-1])
        self._symptoms.append(
            {
                "dormant": float(np.mean(dormant)),
                "article_rank": of_last["article_rank"],
                "effective_rank": of_last["effective_rank"],
                "weight_magnitude": self._second.detach().abs().mean().item(),
                "weight_change": cycle.change,
            }
        )
        if (changes := self._changes_passed()) > self._changes:
            self._changes = changes
            self._plastic.task_changed()
        ended = self._ppo.steps >= (self._index + 1) * self._problem["bin"]
        return Piece(seconds, self._end() if ended else None)

    def _changes_passed(self) -> int:
        return min(map(changes_of, self._environments))

    def _end(self) -> dict[str, Any]:
        last = (self._index + 1) * self._problem["bin"]
        mine = [episode for episode in self._episodes if episode.end <= last]
        largest = max(each.pop("weight_change") for each in self._symptoms)
        row = {
            "task": self._index,
            # There is always one: in each environment a task is at least as long as two episodes.
            RETURN.measure: float(np.mean([episode.reward for episode in mine])),
            "episode_length": float(np.mean([episode.length for episode in mine])),
            **{name: float(np.mean([each[name] for each in self._symptoms])) for name in self._symptoms[0]},
            "weight_change": largest,
            "std": self._agent.log_std.detach().exp().mean().item(),
            "replacements": int(self._plastic.metrics().get("replacements", 0)),
        }
        self._index += 1
        self._episodes = [episode for episode in self._episodes if episode.end > last]
        self._symptoms = []
        return row

    def state_dict(self) -> dict[str, Any]:
        """See `Course`."""
        optimizer = self._optimizer.state_dict()
        return {
            "task": self._index,
            "episodes": [list(episode) for episode in self._episodes],
            "symptoms": self._symptoms,
            "agent": {name: value.clone() for name, value in self._agent.state_dict().items()},
            "optimizer": {name: optimizer[name] for name in ("state", "param_groups")},
            "attachment": self._plastic.state_dict(),
            "ppo": self._ppo.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """See `Course`."""
        self._index = state["task"]
        self._episodes = [Episode(*episode) for episode in state["episodes"]]
        self._symptoms = state["symptoms"]
        self._agent.load_state_dict(state["agent"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._plastic.load_state_dict(state["attachment"])
        self._ppo.load_state_dict(state["ppo"])
        self._changes = self._changes_passed()


def _check_bin(steps: int, buffer: int, environments: Sequence[gym.Env[Any, Any]]) -> None:
    spec, count = environments[0].spec, len(environments)
    longest = 0 if spec is None else spec.max_episode_steps or 0
    least = max(buffer, 2 * longest * count)
    if steps < least:
        each = f" in each of {count} environments" if count > 1 else ""
        raise ConfigError(
            f"A task of {steps} steps is too short for an update of {buffer} and episodes of up to {longest} steps"
            f"{each}: give bin={least} or more."
        )
