"""Proximal policy optimization, as the article has it. What keeps plasticity is attached from outside."""

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import gymnasium as gym
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from regrow.errors import ConfigError, DataError, StateError
from regrow.networks.mlp import MLP
from regrow.rl import snapshot

Floats = npt.NDArray[np.float32]
_LOG_ROOT_2_PI = 0.5 * math.log(2 * math.pi)


class Agent(nn.Module):
    """Policy and value function: two networks that share nothing (Dohare et al., Nature 632, 2024, Methods, PPO).

    The policy is normal, with a mean from the network and a standard deviation that is the same in all states, and
    learned from 1 on. All weights are uniform within ±√(3/fan_in), biases 0.

    Args:
        observations: numbers in an observation.
        actions: numbers in an action.
        widths: hidden units of each layer, of both networks.
        activation: see `MLP`.
        std: a standard deviation that is not learned. One that is falls while a policy gets good, and does not rise
            when its environment changes: it then fails for want of exploration, whatever its networks could learn.

    Raises:
        ConfigError: a standard deviation that is not above 0.
    """

    def __init__(
        self,
        observations: int,
        actions: int,
        widths: Sequence[int] = (256, 256),
        activation: str = "relu",
        std: float | None = None,
    ) -> None:
        if std is not None and not 0 < std < math.inf:
            raise ConfigError(f"The standard deviation of a policy must be above 0, but is {std}.")
        super().__init__()
        self.policy = MLP(observations, widths, actions, activation)
        self.value = MLP(observations, widths, 1, activation)
        self.log_std: Tensor
        if std is None:
            self.log_std = nn.Parameter(torch.zeros(actions))
        else:
            self.register_buffer("log_std", torch.full((actions,), math.log(std)))
        for layer in self.modules():
            if isinstance(layer, nn.Linear):
                bound = math.sqrt(3 / layer.in_features)
                nn.init.uniform_(layer.weight, -bound, bound)

    def forward(self, observations: Tensor) -> tuple[Tensor, Tensor]:
        """Means of the actions [n, actions] and values [n] in states [n, observations]."""
        return self.policy(observations), self.value(observations).squeeze(-1)


@dataclass(frozen=True)
class PPOSettings:
    """The article's settings (Dohare et al., Nature 632, 2024, Methods).

    Attributes:
        buffer: environment steps between two updates.
        epochs: passes over the buffer in an update.
        minibatches: in each pass; they divide the buffer.
        discount: γ.
        trace: λ of generalised advantages.
        clip: of the ratio of probabilities.
        value_weight: of the squared error of the values in the loss.
        truncation: "terminal": an episode that the time limit ends is taken to have ended, as in the article;
            "bootstrapped": the value of its last state stands for what would have followed.
        actions: "raw": the environment gets what the policy drew, as in the article, so that the cost of large actions
            has no bound; "clipped": within its bounds.

    Raises:
        ConfigError: a setting out of its range.
    """

    buffer: int = 2048
    epochs: int = 10
    minibatches: int = 16
    discount: float = 0.99
    trace: float = 0.95
    clip: float = 0.2
    value_weight: float = 1.0
    truncation: Literal["terminal", "bootstrapped"] = "terminal"
    actions: Literal["raw", "clipped"] = "raw"

    def __post_init__(self) -> None:
        """Check the settings once, at the boundary."""
        for name in ("buffer", "epochs", "minibatches"):
            if getattr(self, name) < 1:
                raise ConfigError(f"PPOSettings.{name} must be at least 1, but is {getattr(self, name)}.")
        if self.buffer % self.minibatches:
            raise ConfigError(
                f"A buffer of {self.buffer} steps cannot be cut into {self.minibatches} minibatches of equal size: "
                "give a number that divides it."
            )
        if not self.clip > 0:
            raise ConfigError(f"PPOSettings.clip must be above 0, but is {self.clip}.")
        for name in ("discount", "trace"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"PPOSettings.{name} must lie in [0, 1], but is {getattr(self, name)}.")
        for name, choices in (("truncation", ("terminal", "bootstrapped")), ("actions", ("raw", "clipped"))):
            if getattr(self, name) not in choices:
                raise ConfigError(f"PPOSettings.{name} must be {' or '.join(choices)}, but is {getattr(self, name)!r}.")


class Episode(NamedTuple):
    """An episode that ended: at which step of all, with what sum of rewards, and how long it was."""

    end: int
    reward: float
    length: int


class Cycle(NamedTuple):
    """What one buffer and the updates after it gave.

    Attributes:
        episodes: that ended in it.
        hidden: outputs of the policy's hidden layers while it acted, [steps, units] each, in order.
        change: Σ|after − before| over the weight matrices of the policy.
    """

    episodes: list[Episode]
    hidden: list[Floats]
    change: float


class _Outcome(NamedTuple):
    """What an environment answered to an action."""

    observation: Floats
    reward: float
    terminated: bool
    truncated: bool


class _Buffer:
    """What happened in some steps of some environments, [steps, environments, …] each."""

    def __init__(self, steps: int, environments: int, observations: int, actions: int) -> None:
        shape = (steps, environments)
        self.observations = np.zeros((*shape, observations), np.float32)
        self.actions = np.zeros((*shape, actions), np.float32)
        self.log_probabilities = np.zeros(shape, np.float32)
        self.rewards = np.zeros(shape, np.float32)
        self.ended = np.zeros(shape, np.bool_)
        """After this step another episode begins."""
        self.last_values = np.zeros(shape, np.float32)
        """Value of the state that an episode was cut off in, where it counts."""
        self.hidden: list[list[Floats]] = []


class PPO:
    """Acts until the buffer is full, learns from it for some epochs, and so on.

    It acts by NumPy, on the memory of the policy's parameters, which for a single state is several times as fast as
    torch. All draws come from one generator. Methods are attached to the agent and the optimizer as in any other loop;
    they see the states that are learned from, and not those that are acted in.

    Args:
        environments: one or several, alike; each adds as many steps to the buffer. Actions and observations are
            vectors.
        agent: policy and values.
        optimizer: of the agent's parameters.
        settings: see there.
        seed: of actions, minibatches and the first episodes.
        threads: the environments are shared out among so many. What MuJoCo computes then runs side by side; what is
            written in Python does not. The numbers are the same.

    Raises:
        ConfigError: spaces of another kind, an environment that cannot be saved, a number of environments that does
            not divide the buffer, or more threads than environments.
    """

    def __init__(
        self,
        environments: Sequence[gym.Env[Any, Any]],
        agent: Agent,
        optimizer: Optimizer,
        settings: PPOSettings | None = None,
        seed: int = 0,
        threads: int = 1,
    ) -> None:
        self.settings = settings or PPOSettings()
        self.steps = 0
        """Of all environments so far."""
        if isinstance(environments, gym.vector.VectorEnv):
            snapshot.check(environments)  # says what to give instead
        self._environments = list(environments)
        if len({id(environment) for environment in self._environments}) < len(self._environments):
            raise ConfigError("An environment is in the list more than once: make one for each place.")
        if not self._environments or self.settings.buffer % len(self._environments):
            raise ConfigError(
                f"A buffer of {self.settings.buffer} steps cannot be filled by {len(self._environments)} environments "
                "alike: give a number that divides it."
            )
        if not 1 <= threads <= len(self._environments):
            raise ConfigError(
                f"{threads} threads cannot share {len(self._environments)} environments: give from 1 to as many as "
                "there are environments."
            )
        self._pool = ThreadPoolExecutor(threads) if threads > 1 else None
        self._shares = np.array_split(np.arange(len(self._environments)), threads)
        for environment in self._environments:
            snapshot.check(environment)
            check_spaces(environment)
        self._agent, self._optimizer = agent, optimizer
        self._layers = [
            (layer.weight.detach().numpy().T, layer.bias.detach().numpy())
            for layer in agent.policy
            if isinstance(layer, nn.Linear)
        ]
        self._bend = _bend_of(agent.policy)
        self._log_std = agent.log_std.detach().numpy()
        self._random = np.random.default_rng(seed)
        first = [
            environment.reset(seed=_seed_of(seed, place))[0] for place, environment in enumerate(self._environments)
        ]
        self._observations: Floats = np.stack(first).astype(np.float32)
        self._rewards = np.zeros(len(self._environments))
        self._lengths = np.zeros(len(self._environments), np.int64)

    def advance(self) -> Cycle:
        """Fill the buffer and learn from it.

        Raises:
            DataError: the policy or the environment gave a number that is not finite.
        """
        buffer, episodes = self._act()
        before = [weight.copy() for weight, _ in self._layers]
        self._learn(buffer)
        change = sum(float(np.abs(new - old).sum()) for (new, _), old in zip(self._layers, before, strict=True))
        return Cycle(episodes, [np.vstack(layer) for layer in zip(*buffer.hidden, strict=True)], change)

    def _act(self) -> tuple[_Buffer, list[Episode]]:
        count = len(self._environments)
        buffer = _Buffer(self.settings.buffer // count, count, self._observations.shape[1], len(self._log_std))
        noise = self._random.standard_normal(buffer.actions.shape, np.float32)
        offset = self._log_std.sum() + len(self._log_std) * _LOG_ROOT_2_PI
        buffer.log_probabilities[:] = -0.5 * np.square(noise).sum(axis=2) - offset
        deviations = np.exp(self._log_std) * noise
        episodes: list[Episode] = []
        for step, deviation in enumerate(deviations):
            means, hidden = self._means(self._observations)
            actions = means + deviation
            buffer.observations[step] = self._observations
            buffer.actions[step] = actions
            buffer.hidden.append(hidden)
            for place, outcome in enumerate(self._outcomes(actions)):
                self._record(place, outcome, buffer, step, episodes)
        if not (np.isfinite(buffer.actions).all() and np.isfinite(buffer.rewards).all()):
            raise DataError(
                f"An action or a reward before step {self.steps} is not finite: the policy has diverged. Take a "
                "smaller step size, or decay weights."
            )
        return buffer, episodes

    def _outcomes(self, actions: Floats) -> list[_Outcome]:
        """A step in each environment."""
        if self.settings.actions == "clipped":
            space: Any = self._environments[0].action_space  # a Box: see `check_spaces`
            actions = np.clip(actions, space.low, space.high)
        if self._pool is None:
            return [self._outcome(place, action) for place, action in enumerate(actions)]
        shares = self._pool.map(lambda places: [self._outcome(place, actions[place]) for place in places], self._shares)
        return [outcome for share in shares for outcome in share]

    def _outcome(self, place: int, action: Floats) -> _Outcome:
        observation, reward, terminated, truncated, _ = self._environments[place].step(action)
        return _Outcome(observation, float(reward), terminated, truncated)

    def _record(self, place: int, outcome: _Outcome, buffer: _Buffer, step: int, episodes: list[Episode]) -> None:
        observation, reward, terminated, truncated = outcome
        self.steps += 1
        buffer.rewards[step, place] = reward
        self._rewards[place] += reward
        self._lengths[place] += 1
        if terminated or truncated:
            buffer.ended[step, place] = True
            if not terminated and self.settings.truncation == "bootstrapped":
                buffer.last_values[step, place] = self._values(np.asarray(observation, np.float32)[None])[0]
            episodes.append(Episode(self.steps, float(self._rewards[place]), int(self._lengths[place])))
            self._rewards[place], self._lengths[place] = 0.0, 0
            observation, _ = self._environments[place].reset()
        self._observations[place] = observation

    def _means(self, observations: Floats) -> tuple[Floats, list[Floats]]:
        """Means of the actions, and the outputs of the hidden layers on the way; of one environment vectors, which
        NumPy multiplies sooner than a matrix of one row.
        """
        hidden: list[Floats] = []
        values = observations if len(observations) > 1 else observations[0]
        for weight, bias in self._layers[:-1]:
            values = np.dot(values, weight)
            values += bias
            self._bend(values)
            hidden.append(values)
        weight, bias = self._layers[-1]
        return np.dot(values, weight) + bias, hidden

    def _values(self, observations: Floats) -> Floats:
        with torch.no_grad():
            values: Floats = self._agent.value(torch.from_numpy(observations)).squeeze(-1).numpy()
        return values

    def _learn(self, buffer: _Buffer) -> None:
        settings = self.settings
        values = self._values(buffer.observations.reshape(settings.buffer, -1)).reshape(buffer.rewards.shape)
        advantages = self._advantages(buffer, values)
        targets = advantages + values
        normed = (advantages - advantages.mean()) / (advantages.std() + 1e-8)
        columns = [
            torch.from_numpy(np.ascontiguousarray(column.reshape(settings.buffer, *column.shape[2:])))
            for column in (buffer.observations, buffer.actions, buffer.log_probabilities, normed, targets)
        ]
        size = settings.buffer // settings.minibatches
        for _ in range(settings.epochs):
            order = torch.from_numpy(self._random.permutation(settings.buffer))
            shuffled = [column.index_select(0, order).split(size) for column in columns]
            for minibatch in zip(*shuffled, strict=True):
                self._clear_gradients()
                self._backward(*minibatch)
                self._optimizer.step()

    def _clear_gradients(self) -> None:
        """What the optimizer's `zero_grad` does, without its bookkeeping, which takes longer."""
        for group in self._optimizer.param_groups:
            for parameter in group["params"]:
                parameter.grad = None

    def _backward(
        self, observations: Tensor, actions: Tensor, log_probabilities: Tensor, advantages: Tensor, targets: Tensor
    ) -> None:
        r"""Compute the gradients of squared error of the values less clipped surrogate (Schulman et al. 2017, Eq. 9):
        with the ratio $r$ of the probabilities now and when acting, $\frac{1}{n}\sum w(V-\hat V)^2 -
        \min(rA, \mathrm{clip}(r)A)$.

        What lies above the networks is written out, since on so short vectors autograd takes several times as long.
        """
        means, values = self._agent(observations)
        log_std = self._agent.log_std
        with torch.no_grad():
            precision = torch.exp(-log_std)
            errors = actions - means
            deviations = errors * precision
            offset = log_std.sum() + len(log_std) * _LOG_ROOT_2_PI
            ratio = torch.exp(-0.5 * deviations.square().sum(dim=1) - offset - log_probabilities)
            gained = ratio * advantages
            is_free = gained <= ratio.clamp(1 - self.settings.clip, 1 + self.settings.clip) * advantages
            of_log_probabilities = gained * is_free / -len(gained)
            of_deviations = of_log_probabilities[:, None] * deviations
            of_values = (values - targets) * (2 * self.settings.value_weight / len(targets))
            of_log_std = (of_deviations * errors).sum(dim=0) * precision - of_log_probabilities.sum()
        gradients = ((means, of_deviations * precision), (values, of_values), (log_std, of_log_std))
        learned = [(root, gradient) for root, gradient in gradients if root.requires_grad]
        torch.autograd.backward([root for root, _ in learned], [gradient for _, gradient in learned])

    def _advantages(self, buffer: _Buffer, values: Floats) -> Floats:
        """Generalised advantages (Schulman et al. 2016, Eq. 16), [steps, environments]."""
        discount, trace = self.settings.discount, self.settings.trace
        going_on = ~buffer.ended
        following = np.concatenate([values[1:], self._values(self._observations)[None]])
        errors = buffer.rewards + discount * np.where(going_on, following, buffer.last_values) - values
        kept = discount * trace * going_on
        advantages: Floats = np.zeros_like(errors, np.float32)
        running = np.zeros(errors.shape[1], np.float32)
        for step in range(len(errors) - 1, -1, -1):
            running = errors[step] + kept[step] * running
            advantages[step] = running
        return advantages

    def state_dict(self) -> dict[str, Any]:
        """Everything beside agent, optimizer and attachment that `load_state_dict` needs for going on with the same
        bits: nested dicts of tensors, numbers, strings and None.
        """
        return {
            "steps": self.steps,
            "random": self._random.bit_generator.state,
            "observations": torch.from_numpy(self._observations.copy()),
            "rewards": torch.from_numpy(self._rewards.copy()),
            "lengths": torch.from_numpy(self._lengths.copy()),
            "environments": [snapshot.save(environment) for environment in self._environments],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` returned for environments that were made alike.

        Raises:
            StateError: they are more or fewer, of another kind, have other wrappers or change otherwise.
        """
        if len(state["environments"]) != len(self._environments):
            raise StateError(
                f"{len(state['environments'])} environments were saved, and there are {len(self._environments)}: make "
                "as many."
            )
        self.steps = state["steps"]
        self._random.bit_generator.state = state["random"]
        self._observations = state["observations"].numpy().copy()
        self._rewards, self._lengths = state["rewards"].numpy().copy(), state["lengths"].numpy().copy()
        for environment, saved in zip(self._environments, state["environments"], strict=True):
            snapshot.restore(environment, saved)


def _relu(values: Floats) -> None:
    np.maximum(values, 0, out=values)


def _tanh(values: Floats) -> None:
    np.tanh(values, out=values)


def _bend_of(network: MLP) -> Callable[[Floats], None]:
    """The activation of a network, in place, by NumPy."""
    kinds = {type(layer) for layer in network if not isinstance(layer, nn.Linear)}
    if kinds <= {nn.ReLU}:
        return _relu
    if kinds == {nn.Tanh}:
        return _tanh
    raise ConfigError(f"PPO acts by ReLU or tanh alone, and the policy is {network}: choose one of them.")


def _seed_of(seed: int, place: int) -> int:
    """Of what an environment draws by itself: of each another, and of none that of a run with the next seed."""
    return int(np.random.SeedSequence([seed, place]).generate_state(1)[0]) if place else seed


def check_spaces(environment: gym.Env[Any, Any]) -> None:
    """Make sure that observations and actions are vectors.

    Raises:
        ConfigError: they are not.
    """
    for name, space in (("observations", environment.observation_space), ("actions", environment.action_space)):
        if not isinstance(space, gym.spaces.Box) or len(space.shape) != 1:
            raise ConfigError(f"The {name} of {environment} are {space}, and must be vectors of real numbers.")
