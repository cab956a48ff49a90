"""PPO in small environments that change: to look for what shows in minutes what Slippery Ant shows in days."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from regrow.errors import ConfigError
from regrow.experiments.arm import Arm
from regrow.experiments.reinforcement import PPOStudy
from regrow.experiments.scale import Scale
from regrow.methods import ContinualBackprop
from regrow.studies.ant import AGENT

if TYPE_CHECKING:
    import gymnasium as gym

_SEARCH = AGENT | {
    "environment": "Hopper-v5",
    "change": "friction",
    "values": [0.02, 2.0],
    "period": 50_000,
    "tasks": 20,
    "bin": 50_000,
    "widths": [64, 64],
    "learning_rate": 1e-3,
    "truncation": "bootstrapped",
    "actions": "clipped",
}
_SMOKE = _SEARCH | {
    "environment": "InvertedPendulum-v5",
    "change": "signs",
    "period": 1000,
    "tasks": 2,
    "bin": 2048,
    "widths": [16, 16],
    "buffer": 256,
    "epochs": 2,
    "minibatches": 4,
}


class ChangingControl(PPOStudy, name="changing-control"):
    """PPO in an environment that changes every so many steps: a search for a small companion of Slippery Ant.

    Of a problem, beside what `PPOStudy` reads: "environment", by its name in Gymnasium; "change", what changes:
    friction, gravity, mass or actuator_gain of a MuJoCo environment, drawn log-uniformly between the two "values", or
    signs, which permutes and turns observations and turns actions; and "period", steps between two changes at least.
    """

    summary = "PPO in any small environment that changes: a search, with settings to be changed"
    caption = "PPO with networks of 64–64; a task is 50,000 steps."
    scales = {
        "smoke": Scale("seconds: two tasks of 2,048 steps, 2 seeds, to see that it works", range(2), _SMOKE),
        # Seeds that no figure uses, so that nothing is chosen on what it is judged by.
        "search": Scale("minutes a run: 20 changes, 50,000 steps each, 1 seed", range(1000, 1001), _SEARCH),
    }
    missing_scales = {
        "laptop": "no environment was found yet in which the loss shows in minutes (docs/reinforcement-learning.md).",
        "paper": "it is no problem of the article.",
    }

    def arms(self, scale: str) -> dict[str, Arm]:
        """Return standard and tuned Adam, L2, and continual backpropagation."""
        rate, maturity = (1e-2, 4) if scale == "smoke" else (1e-3, 1000)
        cbp = ContinualBackprop(rate, maturity, budget="bernoulli", weight_sums="each_step")
        return {
            "standard": Arm(changes={"betas": [0.9, 0.999]}),
            "tuned": Arm(),
            "l2": Arm(changes={"weight_decay": 1e-3}),
            "cbp": Arm((cbp,), {"weight_decay": 1e-4}),
        }

    def environment(self, problem: Mapping[str, Any], seed: int) -> "gym.Env[Any, Any]":
        """Make the environment, with changes drawn from the seed.

        Raises:
            ConfigError: the environment has nothing of what is to change.
        """
        from regrow.rl.changing import QUANTITIES, ChangingPhysics, ChangingSigns
        from regrow.rl.slippery_ant import make

        made, period = make(problem["environment"]), problem["period"] // problem["environments"]
        if problem["change"] == "signs":
            return ChangingSigns(made, period, seed)
        if problem["change"] not in QUANTITIES:
            raise ConfigError(f"There is no change {problem['change']!r}: choose signs, {', '.join(QUANTITIES)}.")
        low, high = problem["values"]
        return ChangingPhysics(made, problem["change"], low, high, period, seed)
