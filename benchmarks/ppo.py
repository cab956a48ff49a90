"""What PPO costs on MuJoCo's Ant: `python -m benchmarks.ppo`.

Each call is one cycle of the article's settings: 2,048 environment steps with two networks of 256–256, 160 updates.
Compared are PPO as one writes it by hand in PyTorch; Stable-Baselines3 with the same sizes; `regrow.rl.ppo`, alone,
with continual backpropagation, and with 16 environments; and the published code, if `--published` says where a clone of
it is. regrow's cases have its own Ant, as its studies do, the others Gymnasium's, which gives the same numbers; one
case is regrow with Gymnasium's, and two are each environment alone. CPU time of one thread; "ms" divided by 2.048 is µs
an environment step, and "time, x baseline" how many times as long as regrow a case takes. At the end come 16
environments again, timed by the clock on the wall, with one thread and with two.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from stable_baselines3 import PPO as SB3

import regrow
from benchmarks.interleave import argument_parser, compare, compare_times, report, time_in_turn
from benchmarks.plain_ppo import PlainPPO
from benchmarks.published_ppo import published_ppo
from regrow.methods import Method
from regrow.rl.ppo import PPO, Agent, PPOSettings
from regrow.rl.slippery_ant import make

ENVIRONMENT = "Ant-v5"
CBP = regrow.ContinualBackprop(1e-4, 10_000, budget="bernoulli", weight_sums="each_step")


def main() -> None:
    options = _options()
    rounds = 2 if options.quick else 7
    rows = compare(cases(options.published), "regrow", rounds)
    one = "16 environments, wall clock"
    shared = {one: ours(16), f"{one}, two threads": ours(16, threads=2)}
    rows += compare_times(time_in_turn(shared, rounds, time.perf_counter), one)
    steps = PPOSettings().buffer
    notes = [f"{row.case}: {row.milliseconds * 1000 / steps:.0f} µs an environment step" for row in rows]
    report(rows, f"PPO on {ENVIRONMENT}, {steps:,} steps and 160 updates", options.json, notes)


def _options() -> argparse.Namespace:
    parser = argument_parser(__doc__.splitlines()[0])
    parser.add_argument("--published", type=Path, metavar="FOLDER", help="a clone of shibhansh/loss-of-plasticity")
    return parser.parse_args()


def cases(published: Path | None = None) -> dict[str, Callable[[], None]]:
    """What is timed, by name."""
    theirs = {} if published is None else {"published code": published_ppo(published, gym.make(ENVIRONMENT))}
    return {
        "by hand, PyTorch": PlainPPO(gym.make(ENVIRONMENT), agent()).advance,
        **theirs,
        "Stable-Baselines3": stable_baselines3(),
        "regrow": ours(1),
        "regrow, cbp": ours(1, CBP),
        "regrow, 16 environments": ours(16),
        "regrow, Gymnasium's Ant": ours(1, made_by=gym.make),
        "Ant alone": alone(make),
        "Gymnasium's Ant alone": alone(gym.make),
    }


def agent() -> Agent:
    """Networks of the article for Ant."""
    torch.manual_seed(0)
    return Agent(105, 8)


def ours(
    environments: int,
    method: Method | None = None,
    threads: int = 1,
    made_by: Callable[[str], gym.Env[Any, Any]] = make,
) -> Callable[[], None]:
    """A case: the next buffer and its updates."""
    made = agent()
    optimizer = torch.optim.Adam(made.parameters(), lr=1e-4, fused=True)
    if method is not None:
        regrow.attach(made, optimizer, method, example=torch.zeros(2, 105), init="lecun_uniform")
    ppo = PPO([made_by(ENVIRONMENT) for _ in range(environments)], made, optimizer, threads=threads)

    def advance() -> None:
        ppo.advance()

    return advance


def stable_baselines3() -> Callable[[], None]:
    """A case: its PPO with the same networks, buffer, epochs and minibatches."""
    widths = {"pi": [256, 256], "vf": [256, 256]}
    settings = {"net_arch": widths, "activation_fn": torch.nn.ReLU}
    model = SB3(
        "MlpPolicy", ENVIRONMENT, 1e-4, 2048, 128, 10, vf_coef=1.0, policy_kwargs=settings, device="cpu", seed=0
    )
    return lambda: model.learn(2048, reset_num_timesteps=False) and None


def alone(made_by: Callable[[str], gym.Env[Any, Any]]) -> Callable[[], None]:
    """A case: as many steps of the environment with actions drawn beforehand."""
    environment = made_by(ENVIRONMENT)
    environment.reset(seed=0)
    actions = np.random.default_rng(0).standard_normal((PPOSettings().buffer, 8))

    def step() -> None:
        for action in actions:
            _, _, terminated, truncated, _ = environment.step(action)
            if terminated or truncated:
                environment.reset()

    return step


if __name__ == "__main__":
    main()
