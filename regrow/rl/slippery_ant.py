"""Slippery Ant: MuJoCo's Ant on ground whose friction changes.

Importing this registers `regrow/SlipperyAnt-v0`, and `regrow/Ant-v5`, which it is made of; Gymnasium imports it by
itself where the name says so: `gymnasium.make("regrow.rl.slippery_ant:regrow/SlipperyAnt-v0")`.
"""

import importlib.util
from typing import Any

import gymnasium as gym

from regrow.errors import ConfigError, DependencyError
from regrow.rl.changing import ChangingPhysics

ID = "regrow/SlipperyAnt-v0"
_QUICK = {"Ant-v5": "regrow/Ant-v5"}
"""Faster environments with the same numbers, by the names of Gymnasium's."""
_LONGEST = 1000  # steps of an episode


def slippery_ant(
    period: int = 2_000_000, low: float = 0.02, high: float = 2.0, seed: int = 0, **settings: Any
) -> ChangingPhysics:
    """Make Ant-v5 with a friction that changes (Dohare et al., Nature 632, 2024, Fig. 3).

    At the first episode that begins `period` steps after the last change, the friction of all geoms is drawn anew,
    log-uniformly. `info["friction"]` has it.

    Args:
        period: steps between two changes at least.
        low: least friction.
        high: greatest friction.
        seed: of all frictions, the first included.
        settings: those of Ant-v5.

    Raises:
        ConfigError: a period shorter than an episode; see also `ChangingPhysics`.
        DependencyError: MuJoCo is not installed.
    """
    if period < _LONGEST:
        raise ConfigError(
            f"{ID} cannot change every {period} steps, since an episode may last {_LONGEST}: give a longer period."
        )
    return ChangingPhysics(make("Ant-v5", **settings).unwrapped, "friction", low, high, period, seed)


def make(name: str, **settings: Any) -> gym.Env[Any, Any]:
    """Make an environment of Gymnasium; of Ant-v5 the faster equal, see `regrow.rl.ant`.

    Raises:
        DependencyError: it needs MuJoCo, which is not installed.
        ConfigError: Gymnasium does not have it.
    """
    try:
        return gym.make(_QUICK.get(name, name), **settings)
    except (gym.error.Error, ModuleNotFoundError) as error:
        if importlib.util.find_spec("mujoco") is None:
            raise DependencyError(
                f"{name} needs MuJoCo, which is not installed ({error}): pip install 'regrow[rl]'."
            ) from error
        raise ConfigError(f"Gymnasium cannot make {name}: {error}") from error


gym.register(ID, entry_point="regrow.rl.slippery_ant:slippery_ant", max_episode_steps=_LONGEST)
gym.register("regrow/Ant-v5", entry_point="regrow.rl.ant:AntEnv", max_episode_steps=_LONGEST, reward_threshold=6000.0)
