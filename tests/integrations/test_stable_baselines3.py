"""RegrowCallback on every algorithm of Stable-Baselines3."""

import copy
import importlib
import sys
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3 import DQN, PPO, SAC, TD3
from stable_baselines3.common.callbacks import BaseCallback, CheckpointCallback, EvalCallback
from stable_baselines3.common.logger import configure
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.sb2_compat.rmsprop_tf_like import RMSpropTFLike
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import nn

import regrow
from regrow.errors import ConfigError, DependencyError, ModelError
from regrow.integrations.stable_baselines3 import RegrowCallback
from regrow.methods import L2ER, FullReset, L2Init
from tests.integrations.agents import BRISK, HALF, Cycle, agent, environment, everything, learned, same

ROOT = Path(__file__).parents[2]
KINDS = ["PPO", "A2C", "SAC", "TD3", "DDPG", "DQN"]
TWIN = {f"qf{number}.{layer}" for number in (0, 1) for layer in (0, 2)}
SERVED = {
    "PPO": {"policy": {f"mlp_extractor.{net}_net.{layer}" for net in ("policy", "value") for layer in (0, 2)}},
    "SAC": {"actor": {"latent_pi.0", "latent_pi.2"}, "critic": TWIN},
    "TD3": {"actor": {"mu.0", "mu.2"}, "critic": TWIN},
    "DDPG": {"actor": {"mu.0", "mu.2"}, "critic": {"qf0.0", "qf0.2"}},
    "DQN": {"policy": {"q_net.0", "q_net.2"}},
}
SERVED["A2C"] = SERVED["PPO"]


def served(callback: RegrowCallback) -> dict[str, set[str]]:
    return {name: {group.name for group in plastic.groups} for name, plastic in callback.attachments.items()}


def replaced(callback: RegrowCallback) -> dict[str, set[str]]:
    return {name: {event.group for event in plastic.events} for name, plastic in callback.attachments.items()}


# What is served


@pytest.mark.parametrize("kind", KINDS)
def test_units_of_every_hidden_layer_are_replaced(kind: str) -> None:
    callback = RegrowCallback(BRISK)
    model = learned(kind, callback, 200)
    assert served(callback) == replaced(callback) == SERVED[kind]
    steps = {name: int(plastic.metrics()["steps"]) for name, plastic in callback.attachments.items()}
    updates = {"PPO": 200 // 32 * 4 + 4, "A2C": 40, "DQN": model._n_updates}.get(kind)
    if updates:
        assert steps == {"policy": updates}
    else:
        assert steps == {"actor": model._n_updates // (2 if kind == "TD3" else 1), "critic": model._n_updates}


class Features(BaseFeaturesExtractor):
    def __init__(self, space: spaces.Space[Any]) -> None:
        super().__init__(space, 6)
        self.layers = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 6), nn.Tanh())

    def forward(self, observations: torch.Tensor) -> torch.Tensor:
        return self.layers(observations)


@pytest.mark.parametrize("activation", [nn.ReLU, nn.Tanh])
@pytest.mark.parametrize("shared", [True, False])
def test_ppo_with_features_that_both_networks_read_or_of_their_own(activation: type[nn.Module], shared: bool) -> None:
    callback = RegrowCallback(BRISK)
    network = {"features_extractor_class": Features, "share_features_extractor": shared, "activation_fn": activation}
    network |= {"net_arch": {"pi": [9], "vf": [7, 5]}}
    learned("PPO", callback, policy_kwargs=network)
    extractors = ["features_extractor"] if shared else ["features_extractor", "vf_features_extractor"]
    expected = {f"{name}.layers.{layer}" for name in extractors for layer in (0, 2)}
    nets = ("policy_net.0", "value_net.0", "value_net.2")
    assert served(callback) == replaced(callback) == {"policy": expected | {f"mlp_extractor.{net}" for net in nets}}


@pytest.mark.parametrize("kind", ["SAC", "TD3"])
def test_what_the_critic_reads_is_not_replaced_by_the_actor(kind: str) -> None:
    network = {"features_extractor_class": Features, "share_features_extractor": True}
    callback = RegrowCallback(BRISK)
    learned(kind, callback, policy_kwargs=network)
    inner = {"actor.features_extractor.layers.0"}
    own = {part: {f"{part}.{name}" for name in names} for part, names in SERVED[kind].items()}
    assert served(callback) == replaced(callback) == {"actor": own["actor"] | inner, "critic": own["critic"]}
    reason = callback.attachments["actor"].unserved["actor.features_extractor.layers.2"]
    assert "the optimizer does not hold critic.qf0.0.weight" in reason

    callback = RegrowCallback(BRISK)
    learned(kind, callback, policy_kwargs=network | {"share_features_extractor": False})
    layers = {f"features_extractor.layers.{layer}" for layer in (0, 2)}
    assert served(callback) == {part: names | layers for part, names in SERVED[kind].items()}


@pytest.mark.parametrize("kind", ["PPO", "DQN"])
@pytest.mark.parametrize(
    ("policy", "space"),
    [
        ("MlpPolicy", spaces.Discrete(5)),
        ("MlpPolicy", spaces.MultiDiscrete([3, 2])),
        ("MlpPolicy", spaces.Box(-np.inf, np.inf, (2, 2), np.float64)),
        ("MlpPolicy", spaces.Box(np.finfo(np.float32).min, np.finfo(np.float32).max, (4,), np.float32)),
        ("MultiInputPolicy", spaces.Dict(one=spaces.Box(-1, 1, (3,)), other=spaces.Discrete(4))),
        ("CnnPolicy", spaces.Box(0, 255, (36, 36, 1), np.uint8)),
    ],
    ids=["discrete", "multi-discrete", "unbounded", "finite bounds", "dict", "image"],
)
def test_any_observation(kind: str, policy: str, space: spaces.Space[Any]) -> None:
    model = agent(kind, policy, Cycle(spaces.Discrete(2), space))
    model.observation_space.seed(0)
    first = copy.deepcopy(model.observation_space).sample()
    callback = RegrowCallback(BRISK)
    callback.init_callback(model)
    np.testing.assert_equal(model.observation_space.sample(), first)  # nothing is drawn from the space itself
    assert set(callback.attachments["policy"].unserved.values()) == {"the network returns it"}
    model.learn(20 if kind == "DQN" else 32, callback=callback)


@pytest.mark.parametrize(
    "space",
    [spaces.Box(-2, 2, (2,), np.float32), spaces.MultiDiscrete([2, 3]), spaces.MultiBinary(3)],
    ids=["box", "multi-discrete", "multi-binary"],
)
def test_any_action(space: spaces.Space[Any]) -> None:
    callback = RegrowCallback(BRISK)
    learned("PPO", callback, env=Cycle(space))
    assert served(callback) == replaced(callback) == SERVED["PPO"]


def test_state_dependent_exploration() -> None:
    """The noise reads the actor's last hidden layer, without a weight of the policy."""
    for kind, part, last in (("PPO", "policy", "mlp_extractor.policy_net.2"), ("SAC", "actor", "latent_pi.2")):
        callback = RegrowCallback(BRISK)
        learned(kind, callback, env=environment("SAC"), use_sde=True)
        expected = SERVED[kind] | {part: SERVED[kind][part] - {last}}
        assert served(callback) == replaced(callback) == expected
        assert "mm of the model sums over units, with no parameter" in callback.attachments[part].unserved[last]


def test_rmsprop_of_tensorflow_begins_anew_where_it_began() -> None:
    """Its running means of squares are 1 at first: from 0, the first steps of new units would be ten times as long."""
    callback = RegrowCallback(regrow.ContinualBackprop(0.1, 4))
    network = {"optimizer_class": RMSpropTFLike, "optimizer_kwargs": {"alpha": 0.9}}
    model = learned("A2C", callback, 125, policy_kwargs=network, use_rms_prop=False)
    plastic, layer = callback.attachments["policy"], model.policy.mlp_extractor.value_net[0]
    state = model.policy.optimizer.state[layer.weight]["square_avg"]
    last = [event for event in plastic.events if event.step == plastic.metrics()["steps"]]
    new = {event.unit for event in last if event.group.endswith("value_net.0")}
    assert new
    assert [bool((row == 1).all()) for row in state] == [unit in new for unit in range(12)]


# What it must leave alone


@pytest.mark.parametrize("kind", ["PPO", "SAC", "DQN"])
def test_at_rate_0_training_is_as_without_it(kind: str) -> None:
    def weights(callback: Any) -> dict[str, Any]:
        found = everything(learned(kind, callback))
        return {name: value for name, value in found.items() if ".regrow." not in name}

    without = weights(None)
    assert same(without, weights(RegrowCallback(regrow.ContinualBackprop(0.0))))
    assert not same(without, weights(RegrowCallback(BRISK)))


@pytest.mark.parametrize("kind", ["SAC", "TD3", "DQN"])
def test_targets_are_averages_of_what_is_trained(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """And nothing else writes into them."""
    module = importlib.import_module(f"stable_baselines3.{kind.lower()}.{kind.lower()}")
    update, kept, events = module.polyak_update, {}, []
    callback = RegrowCallback(BRISK)

    def checked(parameters: Any, targets: Any, tau: float) -> None:
        parameters, targets = list(parameters), list(targets)
        key = tuple(map(id, targets))
        before = [target.clone() for target in targets]
        if key in kept:
            assert all(map(torch.equal, before, kept[key])), "a target has changed between two updates"
        update(parameters, targets, tau)
        for parameter, target, old in zip(parameters, targets, before, strict=True):
            assert torch.equal(target, torch.add(old * (1 - tau), parameter, alpha=tau))
        kept[key] = [target.clone() for target in targets]
        events.append(sum(len(plastic.events) for plastic in callback.attachments.values()))

    monkeypatch.setattr(module, "polyak_update", checked)
    settings = {"target_update_interval": 8, "tau": 0.5} if kind == "DQN" else {}
    model = learned(kind, callback, **settings)
    assert len(set(events)) > 5  # units were replaced between updates
    targets = [part for name, part in model.policy.named_children() if name.endswith("_target")]
    assert len(targets) == (2 if kind == "TD3" else 1)
    for part in (module for target in targets for module in target.modules()):
        assert not part._forward_hooks and not part._forward_pre_hooks


@pytest.mark.parametrize("kind", ["PPO", "SAC", "DQN"])
def test_acting_does_not_count(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    callback = RegrowCallback(BRISK)
    model = agent(kind)
    monkeypatch.setattr(type(model), "train", lambda self, *args, **kwargs: None)
    model.learn(64, callback=callback)
    sites = [site for plastic in callback.attachments.values() for work in plastic.unit_workers for site in work.sites]
    assert sites and not any(reader.seen or reader.called for site in sites for reader in site.readers)
    assert {plastic.metrics()["steps"] for plastic in callback.attachments.values()} == {0}


def test_other_callbacks_beside_it(tmp_path: Path) -> None:
    """Evaluation does not count, and what is saved in the middle goes on."""
    alone = RegrowCallback(BRISK)
    model = learned("TD3", alone)
    callback = RegrowCallback(BRISK)
    evaluation = EvalCallback(Monitor(environment("TD3")), eval_freq=20, verbose=0, log_path=str(tmp_path))
    others = [CheckpointCallback(40, str(tmp_path)), callback, evaluation]
    assert same(everything(model), everything(learned("TD3", others)))
    middle = TD3.load(tmp_path / "rl_model_80_steps.zip", env=environment("TD3"))
    middle.learn(10, callback=callback)  # of which it learns nothing yet
    assert 0 < callback.attachments["critic"].metrics()["replacements"]
    assert callback.attachments["critic"].model is middle.critic and callback.attachments["critic"].events == []


def test_taken_off_in_the_middle() -> None:
    class Off(BaseCallback):
        def _on_step(self) -> bool:
            if self.num_timesteps == 80:
                callback.detach()
            return True

    callback = RegrowCallback(BRISK)
    model = learned("DQN", [callback, Off()])
    assert not callback.attachments and "regrow" not in model.policy.optimizer.state_dict()


# What is said


@pytest.mark.parametrize("kind", ["PPO", "SAC", "DQN"])
def test_the_logger_gets_the_metrics(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, callback = agent(kind), RegrowCallback([BRISK, L2Init(1e-4)])
    model.set_logger(configure(str(tmp_path), ["csv", "log", "stdout"]))
    model.learn(HALF, callback=callback, log_interval=1)
    model.logger.close()
    table = np.genfromtxt(tmp_path / "progress.csv", delimiter=",", names=True, deletechars="", replace_space=" ")
    printed = capsys.readouterr().out
    for name, plastic in callback.attachments.items():
        prefix = f"regrow/{name}/" if kind == "SAC" else "regrow/"
        counts = table[f"{prefix}replacements"]
        assert 0 < counts[-1] <= plastic.metrics()["replacements"] and (np.diff(counts[~np.isnan(counts)]) >= 0).all()
        known = {key for key in plastic.metrics() if not key.endswith("/overlap")}  # which comes with the second pick
        assert {f"{prefix}{key}" for key in known} <= set(table.dtype.names)
    assert "actor/replacements" in printed if kind == "SAC" else " replacements" in printed
    assert "mean_age" not in printed + (tmp_path / "log.txt").read_text()


def test_it_shows_what_is_served(capsys: pytest.CaptureFixture[str]) -> None:
    callback = RegrowCallback("cbp", verbose=1)
    assert str(callback).startswith("regrow: ContinualBackprop(")
    learned("SAC", callback, 1)
    printed = capsys.readouterr().out
    assert "on Actor with Adam; 2 of 3 groups served, 22 units" in printed
    assert "on ContinuousCritic with Adam; 4 of 6 groups served, 44 units" in printed


# What it is given


def test_seeds() -> None:
    """Of the model, if none is given; and actor and critic draw apart."""

    def drawn(callback: RegrowCallback, **settings: Any) -> list[Any]:
        learned("TD3", callback, 1, **settings)
        return [plastic.unit_workers[0].generator.get_state() for plastic in callback.attachments.values()]

    of_model = drawn(RegrowCallback(BRISK))
    assert not torch.equal(*of_model)
    assert all(map(torch.equal, of_model, drawn(RegrowCallback(BRISK, seed=3), seed=None)))
    assert all(map(torch.equal, drawn(RegrowCallback(BRISK, seed=0)), drawn(RegrowCallback(BRISK), seed=None)))
    assert not torch.equal(of_model[0], drawn(RegrowCallback(BRISK, seed=4))[0])
    with pytest.raises(ConfigError, match="whole number of at least 0 as seed=, but got 'x'"):
        drawn(RegrowCallback(BRISK, seed="x"))  # type: ignore[arg-type]


def test_laws() -> None:
    callback = RegrowCallback(BRISK, init="kaiming_normal")
    learned("DQN", callback, 1)
    assert "kaiming_normal" in str(callback)


def test_task_changes() -> None:
    model, callback = agent("SAC"), RegrowCallback(FullReset())
    model.learn(20, callback=callback)
    before = [model.actor.mu.weight.clone(), model.critic.qf0[0].weight.clone()]
    callback.task_changed()
    assert not torch.equal(before[0], model.actor.mu.weight) and not torch.equal(before[1], model.critic.qf0[0].weight)


@pytest.mark.parametrize("kind", ["PPO", "SAC", "DQN"])
def test_a_policy_without_hidden_units(kind: str) -> None:
    linear = {"net_arch": []}
    with pytest.raises(ModelError, match=rf"finds no unit to replace in the \w+Policy of this {kind}:\n") as caught:
        learned(kind, RegrowCallback(["cbp", "l2"]), policy_kwargs=linear)
    assert "the network returns it\n" in str(caught.value)
    assert "such as policy_kwargs={'net_arch': [64, 64]}, or take a method that edits weights" in str(caught.value)
    learned(kind, RegrowCallback("l2"), policy_kwargs=linear)


def test_an_actor_without_hidden_units_is_no_obstacle_to_the_critic() -> None:
    network = {"net_arch": {"pi": [], "qf": [12, 10]}}
    callback = RegrowCallback(BRISK)
    learned("TD3", callback, policy_kwargs=network)
    assert served(callback) == replaced(callback) == {"critic": TWIN}
    callback = RegrowCallback([BRISK, "l2"])
    learned("TD3", callback, policy_kwargs=network)
    assert {name: len(plastic.methods) for name, plastic in callback.attachments.items()} == {"actor": 1, "critic": 2}


def test_methods_that_run_the_network_once_more() -> None:
    with pytest.raises(ConfigError, match="L2ER runs a network on past inputs once more, but PPO calls its policy in"):
        learned("PPO", RegrowCallback(L2ER()))
    learned("DQN", RegrowCallback(L2ER()), 40)


def test_methods_that_are_none() -> None:
    with pytest.raises(ConfigError, match="There is no method 'cpb'; did you mean 'cbp'?"):
        RegrowCallback("cpb")
    with pytest.raises(ConfigError, match="empty list of methods"):
        learned("PPO", RegrowCallback([]))
    with pytest.raises(ConfigError, match=r"did you mean ContinualBackprop\(\)\?"):
        learned("DQN", RegrowCallback(regrow.ContinualBackprop))  # type: ignore[arg-type]


def test_a_policy_that_it_does_not_know() -> None:
    class Own(BasePolicy):
        pass

    model = agent("DQN")
    model.policy.__class__ = Own
    with pytest.raises(ConfigError, match=r"knows how PPO, .* and DQN train, but not Own of DQN. Call regrow.attach"):
        RegrowCallback("cbp").init_callback(model)


def test_without_stable_baselines3(monkeypatch: pytest.MonkeyPatch) -> None:
    name = "regrow.integrations.stable_baselines3"
    monkeypatch.setitem(sys.modules, "stable_baselines3.common.base_class", None)
    monkeypatch.delitem(sys.modules, name)
    with pytest.raises(DependencyError, match=r"needs Stable-Baselines3, .* pip install 'regrow\[sb3\]'") as caught:
        importlib.import_module(name)
    assert isinstance(caught.value, ImportError)


@pytest.mark.parametrize(("algorithm", "name"), [(PPO, "CartPole-v1"), (DQN, "CartPole-v1"), (SAC, "Pendulum-v1")])
def test_environments_of_gymnasium(algorithm: Any, name: str) -> None:
    callback = RegrowCallback(BRISK)
    settings: dict[str, Any] = {"n_steps": 64} if algorithm is PPO else {"learning_starts": 32, "batch_size": 32}
    model = algorithm("MlpPolicy", gymnasium.make(name), device="cpu", **settings).learn(96, callback=callback)
    assert model.num_timesteps >= 96
    assert {len(groups) for groups in replaced(callback).values()} <= {2, 4} and all(replaced(callback).values())
