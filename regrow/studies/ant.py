"""PPO on MuJoCo's Ant, on ground that turns slippery and rough, and on ground that stays; and on Hopper and Walker."""

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from regrow.errors import ConfigError
from regrow.experiments.arm import Arm
from regrow.experiments.counterpart import ArticlePanel, Counterpart
from regrow.experiments.reinforcement import PPOStudy
from regrow.experiments.scale import Scale
from regrow.methods import ContinualBackprop, ReDo, ShrinkAndPerturb

if TYPE_CHECKING:
    import gymnasium as gym

AGENT: dict[str, Any] = {
    "environments": 1,
    "widths": [256, 256],
    "activation": "relu",
    "std": 0.0,  # learned
    "learning_rate": 1e-4,
    "betas": [0.99, 0.99],
    "weight_decay": 0.0,
    "init": "lecun_uniform",
    "buffer": 2048,
    "epochs": 10,
    "minibatches": 16,
    "discount": 0.99,
    "trace": 0.95,
    "clip": 0.2,
    "value_weight": 1.0,
    "truncation": "terminal",
    "actions": "raw",
}
"""The article's agent, with its own numbers."""
_PAPER = AGENT | {"environment": "Ant-v5", "tasks": 200, "bin": 250_000}
_SLIPPERY = _PAPER | {
    "environment": "regrow/SlipperyAnt-v0",
    "bin": 100_000,
    "period": 2_000_000,
    "friction": [0.02, 2.0],
}
_SMOKE = {
    "tasks": 2,
    "bin": 2048,
    "widths": [16, 16],
    "buffer": 256,
    "epochs": 2,
    "minibatches": 4,
}
STANDARD_BETAS = [0.9, 0.999]
"""Of Adam as most take it."""
# Of the article's axes, as far as they are known.
_RETURNS = {"slippery-ant": (0.0, 5500.0), "hopper": (0.0, 2500.0), "walker": (0.0, 3000.0)}
_CHANGES = (0.0, 120.0)


def _scales(environment: str, bin_: int) -> dict[str, Scale]:
    """Those of an environment that stays as it is; the article has 200 tasks of `bin_` steps."""
    paper = _PAPER | {"environment": environment, "bin": bin_}
    smoke = "seconds: two tasks of 2,048 steps, a small network, 2 seeds"
    caption = f"PPO on {environment}, 1M steps; a task is 20,000 steps."
    return {
        "smoke": Scale(smoke, range(2), paper | _SMOKE),
        "laptop": Scale("an hour or two: 1M steps, 3 seeds", range(3), paper | {"bin": 20_000, "tasks": 50}, caption),
        "paper": Scale(f"the article's: {bin_ // 5000}M steps, 30 seeds", range(30), paper),
    }


class ConstantStudy(PPOStudy):
    """PPO in an environment that stays as it is (Dohare et al., Nature 632, 2024, Fig. 4 and Extended Data Fig. 5).

    An agent that only ever sees one environment changes its data by itself: as the policy improves, so do the states
    that it meets.
    """

    def arms(self, scale: str) -> dict[str, Arm]:
        """Return standard PPO, tuned Adam, and the remedies on top of it."""
        rate, maturity = (1e-2, 4) if scale == "smoke" else (1e-4, 10_000)
        # The article says nothing of Adam's moments; those of the published code, and so of the figures, are kept.
        cbp = ContinualBackprop(rate, maturity, budget="bernoulli", weight_sums="each_step", moments="kept")
        return {
            "standard": Arm(changes={"betas": STANDARD_BETAS}),
            "tuned": Arm(),
            "l2": Arm(changes={"weight_decay": 1e-3}),
            "cbp": Arm((cbp,), {"weight_decay": 1e-4}),
            "cbp moments=cleared": Arm((replace(cbp, moments="cleared"),), {"weight_decay": 1e-4}),
            "redo": Arm((ReDo(period=100, threshold=0.1, moments="kept"),), {"weight_decay": 1e-4}),
            "shrink-and-perturb": Arm((ShrinkAndPerturb(0.0, 1e-5),), {"weight_decay": 1e-3}),
        }

    def environment(self, problem: Mapping[str, Any], seed: int) -> "gym.Env[Any, Any]":
        """Make the environment; nothing about it is drawn."""
        from regrow.rl.slippery_ant import make

        return make(problem["environment"])

    def counterparts(self, scale: str) -> tuple[Counterpart, ...]:
        """Return Fig. 4, and Extended Data Fig. 5."""
        if scale == "smoke":
            return ()
        arms = tuple(self.arms(scale))
        factor = self.scale(scale).problem["bin"] / 1e6
        whole = scale == "paper"
        published = whole and self.name == "ant"
        returns = _panel("Return", "return", arms, factor, 1.0, "Fig. 4, return" if published else None)
        changes = _panel("Σ|Δw|", "weight_change", ("standard", "tuned"), factor)
        if whole:
            returns, changes = replace(returns, limits=_RETURNS.get(self.name)), replace(changes, limits=_CHANGES)
        return (
            Counterpart(
                "Fig. 4" if self.name == "ant" else "ED 5a",
                "return, dormant units, rank and weights",
                (
                    returns,
                    _panel("Dormant units (%)", "dormant", arms, factor, 100, "Fig. 4, dormant" if published else None),
                    _panel(
                        "Rank of the last hidden layer (% of its units)",
                        "article_rank",
                        arms,
                        factor,
                        100 / _PAPER["widths"][-1],
                        "Fig. 4, rank" if published else None,
                    ),
                    _panel(
                        "Mean weight magnitude, second layer",
                        "weight_magnitude",
                        arms,
                        factor,
                        1.0,
                        "Fig. 4, weights" if published else None,
                    ),
                ),
                "bootstrap",
            ),
            Counterpart(
                "ED 5c",
                "largest change of the policy's weights in an update",
                (changes,),
                "bootstrap",
            ),
        )


def _panel(
    heading: str,
    measure: str,
    arms: tuple[str, ...],
    x_factor: float,
    factor: float = 1.0,
    published: str | None = None,
) -> ArticlePanel:
    return ArticlePanel(
        heading, measure, arms, x_label="Million steps", x_factor=x_factor, factor=factor, published=published
    )


class AntStudy(ConstantStudy, name="ant"):
    """PPO on Ant-v5, friction as it is."""

    summary = "PPO on MuJoCo's Ant"
    caption = "PPO on Ant-v5; a task is 250,000 steps."
    scales = _scales("Ant-v5", 250_000)


class HopperStudy(ConstantStudy, name="hopper"):
    """PPO on Hopper-v5."""

    summary = "PPO on MuJoCo's Hopper"
    caption = "PPO on Hopper-v5; a task is 500,000 steps."
    scales = _scales("Hopper-v5", 500_000)


class WalkerStudy(ConstantStudy, name="walker"):
    """PPO on Walker2d-v5."""

    summary = "PPO on MuJoCo's Walker"
    caption = "PPO on Walker2d-v5; a task is 250,000 steps."
    scales = _scales("Walker2d-v5", 250_000)


class SlipperyAntStudy(ConstantStudy, name="slippery-ant"):
    """PPO on Slippery Ant (Dohare et al., Nature 632, 2024, Fig. 3).

    The friction of ground and body is drawn anew, log-uniformly in [.02, 2], at the first episode that begins two
    million steps after the last change.
    """

    summary = "PPO on MuJoCo's Ant, whose ground changes its friction"
    caption = "PPO on Ant-v5, with a new friction every 2 million steps; a task is 100,000 steps."
    scales = {
        "smoke": Scale(
            "seconds: two tasks of 2,048 steps, a small network, 2 seeds",
            range(2),
            _SLIPPERY | _SMOKE | {"period": 1000},
        ),
        "laptop": Scale(
            "hours: 2M steps, a new friction every 200,000, 3 seeds",
            range(3),
            _SLIPPERY | {"bin": 20_000, "tasks": 100, "period": 200_000},
            "PPO on Ant-v5, with a new friction every 200,000 steps; a task is 20,000 steps.",
        ),
        "paper": Scale("the article's: 20M steps, ten frictions, 30 seeds", range(30), _SLIPPERY),
    }

    def environment(self, problem: Mapping[str, Any], seed: int) -> "gym.Env[Any, Any]":
        """Make the environment, with frictions drawn from the seed.

        Raises:
            ConfigError: another environment is asked for.
        """
        from regrow.rl.slippery_ant import ID, make

        if problem["environment"] != ID:
            raise ConfigError(
                f"slippery-ant learns in {ID} alone, and not in {problem['environment']}: for a friction that changes "
                f"elsewhere, regrow run changing-control --scale "
                f"laptop+environment={problem['environment']}+change=friction+values=[0.02,2.0]."
            )
        low, high = problem["friction"]
        period = problem["period"] // problem["environments"]  # of its own steps
        return make(problem["environment"], period=period, low=low, high=high, seed=seed)

    def counterparts(self, scale: str) -> tuple[Counterpart, ...]:
        """Return Fig. 3c, and the measures of Fig. 4 beside it."""
        of_constant = super().counterparts(scale)
        if not of_constant:
            return ()
        shown = of_constant[0].panels
        return (
            Counterpart("Fig. 3c", "return on ground that changes", shown[:1], "bootstrap"),
            Counterpart("Beside Fig. 3c", "dormant units, rank and weights", shown[1:], "bootstrap"),
            of_constant[1],
        )
