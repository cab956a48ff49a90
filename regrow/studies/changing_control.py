"""PPO in a small environment that changes: in minutes something of what Slippery Ant shows in days."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from regrow.errors import ConfigError
from regrow.experiments.arm import Arm
from regrow.experiments.reinforcement import PPOStudy
from regrow.experiments.scale import Scale
from regrow.methods import ContinualBackprop, FullReset
from regrow.studies.ant import AGENT, STANDARD_BETAS

if TYPE_CHECKING:
    import gymnasium as gym

_HOPPER = AGENT | {
    "environment": "Hopper-v5",
    "change": "signs",
    "values": [0.02, 2.0],  # of a quantity, if that is what changes
    "period": 50_000,
    "tasks": 12,
    "bin": 50_000,
    "widths": [64, 64],
    "std": 0.5,
    "learning_rate": 2e-3,
    "truncation": "bootstrapped",
}
_SMOKE = _HOPPER | {
    "environment": "InvertedPendulum-v5",
    "period": 1000,
    "tasks": 2,
    "bin": 2048,
    "widths": [16, 16],
    "buffer": 256,
    "epochs": 2,
    "minibatches": 4,
}


class ChangingControl(PPOStudy, name="changing-control"):
    """PPO in an environment that changes every so many steps: a small companion of Slippery Ant.

    Hopper, whose observations are permuted and turned in sign every 50,000 steps, and its actions turned. All changes
    are equally hard, for a network that is drawn anew cannot tell them apart; what such a network reaches in each is
    the arm full-reset.

    Of a problem, beside what `PPOStudy` reads: "environment", by its name in Gymnasium; "change", what changes: signs,
    as above, or friction, gravity, mass or actuator_gain of a MuJoCo environment, drawn log-uniformly between the two
    "values"; and "period", steps between two changes at least.
    """

    summary = "PPO on Hopper, whose observations and actions are permuted and turned"
    caption = "PPO on Hopper-v5, with networks of 64–64; a change every 50,000 steps, which is a task."
    scales = {
        "smoke": Scale("seconds: two tasks of 2,048 steps, 2 seeds, to see that it works", range(2), _SMOKE),
        "laptop": Scale("an hour of two cores: 12 tasks of 50,000 steps, 10 seeds", range(10), _HOPPER),
        # A seed that no figure uses, so that nothing is chosen on what it is judged by.
        "search": Scale("minutes a run: settings to choose from, 1 seed", range(1000, 1001), _HOPPER),
    }
    missing_scales = {"paper": "it is no problem of the article."}

    def arms(self, scale: str) -> dict[str, Arm]:
        """Return standard and tuned Adam, L2, continual backpropagation, and an agent drawn anew at each change; or
        settings to choose from.
        """
        if scale == "search":
            found = {
                f"l2 strength={decay:g}": Arm(changes={"weight_decay": decay}) for decay in (1e-2, 1e-3, 1e-4, 1e-5)
            }
            return found | {f"cbp rate={rate:g}": _cbp(rate, 1000) for rate in (1e-2, 1e-3, 1e-4)}
        return {
            "standard": Arm(changes={"betas": STANDARD_BETAS}),
            "tuned": Arm(),
            "l2": Arm(changes={"weight_decay": 1e-3}),
            "cbp": _cbp(1e-2, 4) if scale == "smoke" else _cbp(1e-3, 1000),
            "full-reset": Arm((FullReset(),)),
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


def _cbp(rate: float, maturity: int) -> Arm:
    """Continual backpropagation with some weight decay, as the article has it in reinforcement learning, but that Adam
    forgets what it remembers of a new unit.
    """
    method = ContinualBackprop(rate, maturity, budget="bernoulli", weight_sums="each_step")
    return Arm((method,), {"weight_decay": 1e-4})
