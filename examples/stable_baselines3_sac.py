"""SAC of Stable-Baselines3 swings up a pendulum, with continual backpropagation; it is saved halfway and goes on.

python examples/stable_baselines3_sac.py [STEPS]
"""

import sys
import tempfile
from pathlib import Path

import gymnasium
from stable_baselines3 import SAC
from stable_baselines3.common.evaluation import evaluate_policy

import regrow
from regrow.integrations.stable_baselines3 import RegrowCallback


def main(steps: int = 5_000) -> None:
    method = regrow.ContinualBackprop(replacement_rate=1e-4, maturity_threshold=200)
    model = SAC(
        "MlpPolicy", "Pendulum-v1", learning_rate=1e-3, policy_kwargs={"net_arch": [64, 64]}, seed=0, device="cpu"
    )
    model.learn(steps // 2, callback=RegrowCallback(method))

    with tempfile.TemporaryDirectory() as folder:
        model.save(Path(folder) / "agent")
        model.save_replay_buffer(Path(folder) / "buffer")
        model = SAC.load(Path(folder) / "agent", env=gymnasium.make("Pendulum-v1"), device="cpu")
        model.load_replay_buffer(Path(folder) / "buffer")

    callback = RegrowCallback(method)
    model.learn(steps - steps // 2, callback=callback, reset_num_timesteps=False)
    for name, plastic in callback.attachments.items():
        print(
            f"{name}: {plastic.metrics()['replacements']:.0f} units replaced, the last {len(plastic.events)} since load"
        )

    mean, deviation = evaluate_policy(model, model.get_env(), n_eval_episodes=10)
    print(f"return after {steps} steps: {mean:.0f} ± {deviation:.0f}")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
