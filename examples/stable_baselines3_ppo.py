"""PPO of Stable-Baselines3 balances a pole, with continual backpropagation.

python examples/stable_baselines3_ppo.py [STEPS]
"""

import sys

from stable_baselines3 import PPO
from stable_baselines3.common.evaluation import evaluate_policy

import regrow
from regrow.integrations.stable_baselines3 import RegrowCallback


def main(steps: int = 20_000) -> None:
    model = PPO("MlpPolicy", "CartPole-v1", n_steps=256, seed=0, device="cpu")
    callback = RegrowCallback(regrow.ContinualBackprop(replacement_rate=1e-3, maturity_threshold=100))
    model.learn(steps, callback=callback)
    print(callback)
    print(f"{callback.attachments['policy'].metrics()['replacements']:.0f} units replaced")

    mean, deviation = evaluate_policy(model, model.get_env(), n_eval_episodes=10)
    print(f"return after {steps} steps: {mean:.0f} ± {deviation:.0f}")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
