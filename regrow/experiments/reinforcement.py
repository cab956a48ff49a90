"""Studies of agents that learn by PPO in an environment that goes on, and may change."""

import importlib.util
from abc import abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from regrow.errors import DependencyError
from regrow.experiments.course import Course
from regrow.experiments.spec import RunSpec
from regrow.experiments.study import Study

if TYPE_CHECKING:
    import gymnasium as gym


class PPOStudy(Study):
    """A study of PPO agents.

    A task is a stretch of "bin" environment steps, and its result the mean return of the episodes that ended in it.
    Of a problem, "widths", "activation" and "std" are those of `Agent`, where a std of 0 stands for a learned one;
    "learning_rate", "betas" and "weight_decay" those of Adam, which adds the decay to the gradient; "environments" how
    many are acted in at once; "init" is the law of new incoming weights; and those of `PPOSettings`.
    """

    @abstractmethod
    def environment(self, problem: Mapping[str, Any], seed: int) -> "gym.Env[Any, Any]":
        """Make an environment; its changes are drawn from the seed, alike in all that act side by side."""

    def course(self, spec: RunSpec) -> Course:
        """See `Study`."""
        check_installed()
        # Only now: Gymnasium is an extra.
        from regrow.experiments.ppo_course import PPOCourse

        return PPOCourse(self, spec)

    def origin(self, problem: Mapping[str, Any]) -> str:
        """Say which environment that is, and how long it is acted in."""
        check_installed()
        import gymnasium
        import mujoco

        return (
            f"{problem['environment']} of Gymnasium {gymnasium.__version__}, MuJoCo {mujoco.__version__}; "
            f"{problem['bin'] * problem['tasks']:,} environment steps a run"
        )


def check_installed() -> None:
    """Make sure that there are environments to learn in.

    Raises:
        DependencyError: Gymnasium or MuJoCo is not installed.
    """
    for module, name in (("gymnasium", "Gymnasium"), ("mujoco", "MuJoCo")):
        if importlib.util.find_spec(module) is None:
            raise DependencyError(f"This study needs {name}, which is not installed: pip install 'regrow[rl]'.")
