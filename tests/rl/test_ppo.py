"""PPO: each part by a task that it alone must solve, by arithmetic done by hand, and through a kill."""

import math
import threading
from dataclasses import replace

import gymnasium as gym
import numpy as np
import pytest
import torch
from torch import nn

import regrow
from regrow.errors import ConfigError, DataError, StateError
from regrow.experiments.checkpoint import decode, encode
from regrow.rl.ppo import PPO, Agent, Episode, PPOSettings
from tests.rl.tiny import ConstantReward, DelayedReward, OneForEver, SignOfObservation, Tiny

SMALL = PPOSettings(buffer=128, epochs=4, minibatches=4)


def make(
    *environments, settings=SMALL, learning_rate=3e-3, seed=0, activation="relu", method=None, threads=1, std=None
):
    torch.manual_seed(seed)
    first = environments[0]
    agent = Agent(first.observation_space.shape[0], first.action_space.shape[0], (16, 16), activation, std)
    optimizer = torch.optim.Adam(agent.parameters(), lr=learning_rate, fused=True)
    if method is not None:
        regrow.attach(agent, optimizer, method, example=torch.zeros(2, first.observation_space.shape[0]))
    return PPO(environments, agent, optimizer, settings, seed, threads), agent, optimizer


def shown(*numbers):
    return torch.tensor([numbers], dtype=torch.float32)


def test_a_constant_reward_is_what_a_state_is_worth():
    ppo, agent, _ = make(ConstantReward())
    for _ in range(40):
        cycle = ppo.advance()
    assert agent.value(shown(1, 0)).item() == pytest.approx(1, abs=0.1)
    assert [episode.reward for episode in cycle.episodes] == [1.0] * 128


def test_what_is_shown_decides_what_is_done():
    ppo, agent, _ = make(SignOfObservation(), seed=1)
    for _ in range(60):
        cycle = ppo.advance()
    assert agent.policy(shown(1, 0)).item() > 0.7 and agent.policy(shown(-1, 0)).item() < -0.7
    assert np.mean([episode.reward for episode in cycle.episodes]) > 0.6


def test_a_reward_that_comes_late_reaches_the_action_that_earned_it():
    ppo, agent, _ = make(DelayedReward())
    for _ in range(60):
        ppo.advance()
    assert agent.policy(shown(1, 0)).item() > 0.7


@pytest.mark.parametrize(("truncation", "worth"), [("terminal", 4 / 3), ("bootstrapped", 2.0)])
def test_a_time_limit_is_an_end_or_is_not(truncation, worth):
    """Episodes of two steps whose states look alike: v = 1 + v/2; or v = ½·(1 + v/2) + ½·1, if they end there."""
    limited = gym.wrappers.TimeLimit(OneForEver(), 2)
    settings = replace(SMALL, discount=0.5, trace=0.0, truncation=truncation)
    ppo, agent, _ = make(limited, settings=settings)
    for _ in range(60):
        ppo.advance()
    assert agent.value(shown(1, 1)).item() == pytest.approx(worth, abs=0.1)


@pytest.mark.parametrize("truncation", ["terminal", "bootstrapped"])
def test_advantages_are_those_of_the_definition(truncation):
    """Sums of discounted errors, written out, over two environments with ends in them."""
    settings = replace(SMALL, buffer=24, minibatches=2, truncation=truncation)
    ppo, agent, _ = make(
        gym.wrappers.TimeLimit(OneForEver(), 5), gym.wrappers.TimeLimit(OneForEver(), 7), settings=settings
    )
    buffer, episodes = ppo._act()
    values = np.random.default_rng(0).standard_normal(buffer.rewards.shape).astype(np.float32)
    found = ppo._advantages(buffer, values)
    worth = agent.value(shown(1, 1)).item()
    for place, length in ((0, 5), (1, 7)):
        ends = {step for step in range(12) if (step + 1) % length == 0}
        assert set(np.flatnonzero(buffer.ended[:, place])) == ends
        for step in range(12):
            total, weight = 0.0, 1.0
            for at in range(step, 12):
                cut = worth if truncation == "bootstrapped" else 0.0
                after = cut if at in ends else values[at + 1, place] if at < 11 else worth
                total += weight * (1.0 + 0.99 * after - values[at, place])
                weight *= 0.99 * 0.95
                if at in ends:
                    break
            assert found[step, place] == pytest.approx(total, rel=1e-5)
    assert episodes == [Episode(9, 5.0, 5), Episode(14, 7.0, 7), Episode(19, 5.0, 5)]  # environments step in turn


@pytest.mark.parametrize("std", [None, 0.7], ids=["learned", "fixed"])
def test_the_gradients_are_those_of_the_loss_of_the_paper(std):
    settings = replace(SMALL, value_weight=0.5)
    ppo, agent, _ = make(SignOfObservation(), settings=settings, std=std)
    generator = torch.Generator().manual_seed(0)
    observations, actions = torch.randn(40, 2, generator=generator), torch.randn(40, 1, generator=generator)
    advantages, targets = (torch.randn(40, generator=generator) for _ in range(2))
    if std is None:
        nn.init.constant_(agent.log_std, 0.3)
    normal = torch.distributions.Normal(agent.policy(observations), agent.log_std.exp())
    now = normal.log_prob(actions).sum(dim=1)
    old = now.detach() + 0.3 * torch.randn(40, generator=generator)
    ratio = torch.exp(now - old)
    gains = torch.minimum(ratio * advantages, ratio.clamp(0.8, 1.2) * advantages)
    errors = agent.value(observations).squeeze(1) - targets
    (0.5 * errors.square().mean() - gains.mean()).backward()
    expected = {name: parameter.grad.clone() for name, parameter in agent.named_parameters()}

    agent.zero_grad()
    ppo._backward(observations, actions, old, advantages, targets)
    for name, parameter in agent.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[name], rtol=1e-5, atol=1e-7, msg=name)
    assert ("log_std" in expected) == (std is None)
    held = (ratio > 1.2) & (advantages > 0) | (ratio < 0.8) & (advantages < 0)
    assert 0 < held.sum() < len(held), "some are held back by the clip, and some are not"


def test_an_update_begins_without_the_gradients_of_the_last_one_whatever_else_the_optimizer_has():
    ppo, agent, optimizer = make(SignOfObservation())
    gain = nn.Parameter(torch.ones(()))
    agent.value[1].register_forward_hook(lambda module, shown, output: output * gain)
    optimizer.add_param_group({"params": [gain]})
    backward, updates = ppo._backward, []

    def watched(*minibatch):
        assert all(parameter.grad is None for parameter in (gain, *agent.parameters()))
        backward(*minibatch)
        updates.append(gain.grad.item())

    ppo._backward = watched
    ppo.advance()
    assert len(updates) == SMALL.epochs * SMALL.minibatches and all(updates)


@pytest.mark.parametrize("environments", [1, 4])
@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_it_acts_as_the_policy_says_and_tells_what_its_units_did(activation, environments):
    ppo, agent, _ = make(*(SignOfObservation() for _ in range(environments)), activation=activation)
    buffer, _ = ppo._act()
    observations, actions = (torch.from_numpy(each.reshape(128, -1)) for each in (buffer.observations, buffer.actions))
    with torch.no_grad():
        first = agent.policy[1](agent.policy[0](observations))
        second = agent.policy[3](agent.policy[2](first))
        means = agent.policy[4](second)
        logp = torch.distributions.Normal(means, 1.0).log_prob(actions).sum(dim=1)
    torch.testing.assert_close(torch.from_numpy(buffer.log_probabilities.reshape(128)), logp, rtol=1e-4, atol=1e-4)
    for expected, found in zip((first, second), zip(*buffer.hidden, strict=True), strict=True):
        torch.testing.assert_close(torch.from_numpy(np.vstack(found)), expected, rtol=1e-5, atol=1e-6)
    assert [layer.shape for layer in ppo.advance().hidden] == [(128, 16)] * 2
    noise = (actions - means).numpy()
    assert abs(noise.mean()) < 0.3 and 0.8 < noise.std() < 1.2


def test_the_change_is_that_of_the_weights_of_the_policy():
    ppo, agent, _ = make(SignOfObservation())
    before = [parameter.detach().clone() for parameter in agent.policy.parameters()]
    change = ppo.advance().change
    after = list(agent.policy.parameters())
    expected = sum((new - old).abs().sum().item() for new, old in zip(after, before, strict=True) if new.dim() == 2)
    assert change == pytest.approx(expected, rel=1e-5) and change > 0.1


def test_raw_and_clipped_actions():
    class Recorder(SignOfObservation):
        largest = 0.0

        def _reward(self, action):
            self.largest = max(self.largest, abs(action))
            return super()._reward(action)

    for actions, limit in (("raw", math.inf), ("clipped", 1.0)):
        environment = Recorder()
        ppo, _, _ = make(environment, settings=replace(SMALL, actions=actions))
        ppo.advance()
        assert (environment.largest > 1.5) == (limit == math.inf) and environment.largest <= limit


@pytest.mark.parametrize("actions", ["raw", "clipped"])
def test_threads_change_no_bit(actions):
    settings = replace(SMALL, buffer=640, actions=actions)
    found = []
    for threads in (1, 2, 5):
        environments = [gym.make("Hopper-v5") for _ in range(5)]
        ppo, agent, optimizer = make(*environments, settings=settings, threads=threads)
        cycles = [ppo.advance() for _ in range(2)]
        assert cycles[1].episodes
        state = encode({"agent": agent.state_dict(), "optimizer": optimizer.state_dict(), "ppo": ppo.state_dict()})
        found.append((state, [cycle.episodes for cycle in cycles], [cycle.change for cycle in cycles]))
    assert found[0] == found[1] == found[2]


def test_no_environment_draws_what_another_does():
    """Nor what one of a run with the next seed does."""
    first = [
        tuple(row)
        for seed in range(3)
        for row in make(*(gym.make("Hopper-v5") for _ in range(4)), seed=seed)[0]._observations
    ]
    assert len(set(first)) == 12


def test_threads_step_environments_at_once():
    both = threading.Barrier(2, timeout=30)

    class Waiting(SignOfObservation):
        def step(self, action):
            both.wait()
            return super().step(action)

    ppo, _, _ = make(Waiting(), Waiting(), threads=2)
    ppo.advance()
    assert ppo.steps == SMALL.buffer


@pytest.mark.parametrize("method", [None, "cbp"])
def test_a_run_that_is_taken_up_again_has_the_same_bits(method, tmp_path):
    method = regrow.ContinualBackprop(0.02, 5, budget="bernoulli") if method else None

    def state(agent, optimizer, ppo):
        return encode({"agent": agent.state_dict(), "optimizer": optimizer.state_dict(), "ppo": ppo.state_dict()})

    made = [make(DelayedReward(), SignOfObservation(), method=method) for _ in range(2)]
    (ppo, agent, optimizer), (other, its_agent, its_optimizer) = made
    for _ in range(3):
        ppo.advance()
    path = tmp_path / "state"
    path.write_bytes(state(agent, optimizer, ppo))
    saved = decode(path)
    its_agent.load_state_dict(saved["agent"])
    its_optimizer.load_state_dict(saved["optimizer"])
    other.load_state_dict(saved["ppo"])
    for _ in range(3):
        one, two = ppo.advance(), other.advance()
        assert one.episodes == two.episodes and one.change == two.change
    assert state(agent, optimizer, ppo) == state(its_agent, its_optimizer, other)


def test_a_standard_deviation_may_be_given_and_stays():
    agent = Agent(2, 3, (8,), std=0.25)
    assert [name for name, _ in agent.named_parameters() if "std" in name] == []
    assert "log_std" in agent.state_dict()
    environment = SignOfObservation()
    agent = Agent(environment.observation_space.shape[0], environment.action_space.shape[0], (8,), std=0.25)
    ppo = PPO([environment], agent, torch.optim.Adam(agent.parameters(), lr=0.01), PPOSettings(buffer=64), seed=0)
    before = [parameter.clone() for parameter in agent.parameters()]
    drawn = ppo._act()[0]
    means = agent.policy(torch.from_numpy(drawn.observations[:, 0])).detach().numpy()
    noise = np.random.default_rng(0).standard_normal(drawn.actions.shape, np.float32)
    np.testing.assert_allclose(drawn.actions[:, 0], means + 0.25 * noise[:, 0], rtol=1e-5, atol=1e-6)
    ppo.advance()
    assert agent.log_std.exp().tolist() == pytest.approx([0.25])
    assert not any(torch.equal(old, new) for old, new in zip(before, agent.parameters(), strict=True))
    with pytest.raises(ConfigError, match="The standard deviation of a policy must be above 0, but is -1"):
        Agent(2, 3, std=-1)


def test_other_settings_and_environments_are_refused():
    with pytest.raises(ConfigError, match="A buffer of 100 steps cannot be cut into 16 minibatches of equal size"):
        PPOSettings(buffer=100)
    with pytest.raises(ConfigError, match=r"PPOSettings.discount must lie in \[0, 1\], but is 1.5"):
        PPOSettings(discount=1.5)
    with pytest.raises(ConfigError, match="PPOSettings.truncation must be terminal or bootstrapped, but is 'end'"):
        PPOSettings(truncation="end")
    with pytest.raises(ConfigError, match="PPOSettings.epochs must be at least 1, but is 0"):
        PPOSettings(epochs=0)
    with pytest.raises(ConfigError, match="PPOSettings.clip must be above 0, but is -1"):
        PPOSettings(clip=-1)
    with pytest.raises(ConfigError, match="An environment is in the list more than once: make one for each place"):
        make(*[Tiny()] * 2)
    vector = gym.make_vec("Hopper-v5", 2)
    for environments in (vector, [vector]):
        with pytest.raises(ConfigError, match="cannot be saved in a checkpoint: give the environments that it is made"):
            agent = Agent(11, 3)
            PPO(environments, agent, torch.optim.Adam(agent.parameters()))
    one, two = make(Tiny())[0], make(Tiny(), Tiny())[0]
    with pytest.raises(StateError, match="2 environments were saved, and there are 1: make as many"):
        one.load_state_dict(two.state_dict())
    with pytest.raises(ConfigError, match="A buffer of 128 steps cannot be filled by 3 environments alike"):
        make(Tiny(), Tiny(), Tiny())
    for threads in (0, 3):
        with pytest.raises(ConfigError, match=f"{threads} threads cannot share 2 environments: give from 1 to as many"):
            make(Tiny(), Tiny(), threads=threads)
    with pytest.raises(
        ConfigError, match=r"The actions of .*CartPole.* are Discrete\(2\), and must be vectors of real"
    ):
        agent = Agent(4, 1)
        PPO([gym.make("CartPole-v1")], agent, torch.optim.Adam(agent.parameters()))
    with pytest.raises(ConfigError, match="PPO acts by ReLU or tanh alone, and the policy is MLP"):
        make(ConstantReward(), activation="elu")


def test_a_policy_that_diverges_is_told():
    ppo, agent, _ = make(ConstantReward())
    nn.init.constant_(agent.policy[0].weight, math.nan)
    with pytest.raises(DataError, match="An action or a reward before step 128 is not finite: the policy has diverged"):
        ppo.advance()
