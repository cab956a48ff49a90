"""Whether PPO learns as it should: `python -m benchmarks.learning --out FOLDER`.

`regrow.rl.ppo` and Stable-Baselines3 learn the same environments with the same networks, laws of first weights, step
sizes, buffers, epochs and minibatches, time limits bootstrapped and actions clipped, as that library does. What stays
different: it normalises advantages over minibatches and not over the buffer. Each run's episodes are kept in a file,
and a run that has one is not repeated; in the end there is a table, and a figure of the mean returns with 95 %
bootstrap intervals.
"""

import argparse
import math
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import gymnasium as gym
import numpy as np
import polars as pl
import torch
from torch import nn

from regrow.rl.ppo import PPO, Agent, PPOSettings

BIN = 50_000  # steps of a point


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs, the table and the figure")
    parser.add_argument("--environments", default="Hopper-v5,Ant-v5")
    parser.add_argument("--steps", type=int, default=1_000_000)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    runs = [
        (who, environment, seed, options.steps, options.out)
        for seed in range(options.seeds)
        for environment in options.environments.split(",")
        for who in LEARNERS
    ]
    with ProcessPoolExecutor(options.workers, get_context("spawn")) as pool:
        episodes = pl.concat(pool.map(kept, runs))
    episodes.write_parquet(options.out / "episodes.parquet")
    table = curves(episodes, options.steps)
    draw(table, options.out / "learning.png")
    last = table.filter(pl.col("bin") >= options.steps // BIN - 4).group_by("environment", "who", maintain_order=True)
    print(last.agg(pl.col("return").mean().round(0), pl.col("seed").n_unique().alias("seeds")))
    print(f"Mean return of the last {4 * BIN:,} of {options.steps:,} steps. Figure: {options.out / 'learning.png'}")


def kept(run: tuple[str, str, int, int, Path]) -> pl.DataFrame:
    """The episodes of a run: end, return. Read if it has been done."""
    who, environment, seed, steps, out = run
    place = out / f"{who}-{environment}-{seed}-{steps}.parquet"
    if not place.exists():
        torch.set_num_threads(1)
        ends, returns = LEARNERS[who](environment, seed, steps)
        named = {"who": who, "environment": environment, "seed": seed}
        table = pl.DataFrame({"end": ends, "return": returns}).select(
            *(pl.lit(value).alias(name) for name, value in named.items()), "end", "return"
        )
        temporary = place.with_suffix(".tmp")
        table.write_parquet(temporary)
        temporary.rename(place)
    return pl.read_parquet(place)


def ours(environment: str, seed: int, steps: int) -> tuple[list[int], list[float]]:
    """Learn with `regrow.rl.ppo`, from first weights and with an Adam as Stable-Baselines3 has them."""
    made = gym.make(environment)
    torch.manual_seed(seed)
    agent = Agent(made.observation_space.shape[0], made.action_space.shape[0])
    for network, last in ((agent.policy, 0.01), (agent.value, 1.0)):
        layers = [layer for layer in network if isinstance(layer, nn.Linear)]
        for layer in layers:
            nn.init.orthogonal_(layer.weight, last if layer is layers[-1] else math.sqrt(2))
    optimizer = torch.optim.Adam(agent.parameters(), lr=1e-4, eps=1e-5, fused=True)
    ppo = PPO([made], agent, optimizer, PPOSettings(truncation="bootstrapped", actions="clipped"), seed)
    episodes = []
    while ppo.steps < steps:
        episodes += ppo.advance().episodes
    return [episode.end for episode in episodes], [episode.reward for episode in episodes]


def stable_baselines3(environment: str, seed: int, steps: int) -> tuple[list[int], list[float]]:
    """Learn with the PPO of Stable-Baselines3."""
    from stable_baselines3 import PPO as SB3
    from stable_baselines3.common.monitor import Monitor

    made = Monitor(gym.make(environment))
    numbers = {"learning_rate": 1e-4, "n_steps": 2048, "batch_size": 128, "n_epochs": 10, "vf_coef": 1.0}
    networks = {"net_arch": {"pi": [256, 256], "vf": [256, 256]}, "activation_fn": torch.nn.ReLU}
    model = SB3(
        "MlpPolicy", made, **numbers, max_grad_norm=float("inf"), policy_kwargs=networks, device="cpu", seed=seed
    )
    model.learn(steps)
    return np.cumsum(made.get_episode_lengths()).tolist(), made.get_episode_rewards()


LEARNERS: dict[str, Callable[[str, int, int], tuple[list[int], list[float]]]] = {
    "regrow": ours,
    "Stable-Baselines3": stable_baselines3,
}


def curves(episodes: pl.DataFrame, steps: int) -> pl.DataFrame:
    """Mean return of the episodes that ended in each stretch of steps, for each run."""
    table = episodes.filter(pl.col("end") <= steps).with_columns(((pl.col("end") - 1) // BIN).alias("bin"))
    keys = ("environment", "who", "seed", "bin")
    return table.group_by(*keys).agg(pl.col("return").mean()).sort("environment", "who", "seed", "bin")


def draw(table: pl.DataFrame, place: Path) -> None:
    """A panel for each environment, a line with its band for each learner."""
    import matplotlib as mpl
    from matplotlib import pyplot as plt

    from regrow.report.statistics import mean_interval
    from regrow.report.style import STYLE

    environments = table["environment"].unique(maintain_order=True).to_list()
    colours = {"regrow": "#0b7cc0", "Stable-Baselines3": "#d55e00"}
    with mpl.rc_context(STYLE):
        figure, panels = plt.subplots(1, len(environments), figsize=(5 * len(environments), 3.4), squeeze=False)
        for panel, environment in zip(panels[0], environments, strict=True):
            for who, colour in colours.items():
                mine = table.filter((pl.col("environment") == environment) & (pl.col("who") == who))
                if mine.is_empty():
                    continue
                values = mine.pivot("bin", index="seed", values="return").drop("seed").to_numpy()
                interval = mean_interval(values)
                x = (np.arange(values.shape[1]) + 0.5) * BIN / 1e6
                panel.fill_between(x, interval.low, interval.high, color=colour, alpha=0.18, lw=0)
                panel.plot(x, interval.mean, color=colour, label=f"{who}, {len(values)} seeds")
            panel.set_title(f"{environment}, return", loc="left", size=10.5)
            panel.set_xlabel("Million steps")
            panel.legend(frameon=False, fontsize=9)
        figure.tight_layout()
        figure.savefig(place, dpi=120)


if __name__ == "__main__":
    main()
