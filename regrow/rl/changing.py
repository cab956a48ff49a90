"""Environments whose law changes now and then."""

import math
from abc import abstractmethod
from collections.abc import Callable
from typing import Any, Literal

import gymnasium as gym
import numpy as np
import numpy.typing as npt

from regrow.errors import ConfigError, StateError, nearest

Quantity = Literal["friction", "gravity", "mass", "actuator_gain"]
QUANTITIES = ("friction", "gravity", "mass", "actuator_gain")
Array = npt.NDArray[Any]


class Changing(gym.Wrapper[Any, Any, Any, Any]):
    """Changes something between two episodes, at the first episode that begins `period` steps after the last change.

    What change number k brings is a function of the seed and k alone; change 0 comes before the first step.

    Args:
        env: the environment.
        period: steps.
        seed: of all changes.

    Raises:
        ConfigError: a period below 1, or shorter than an episode may be.
    """

    def __init__(self, env: gym.Env[Any, Any], period: int, seed: int) -> None:
        super().__init__(env)
        longest = _longest_episode(env)
        if period < max(1, longest):
            raise ConfigError(
                f"A change every {period} steps comes more often than episodes end, which last up to {longest} steps: "
                "give a longer period."
                if longest
                else f"A change every {period} steps cannot be: give a period of 1 or more."
            )
        self.period = period
        self.index = 0
        """How many changes there were after that of the beginning."""
        self._seed = seed
        self._passed = 0
        self._is_applied = False

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin an episode, after a change if one is due."""
        if self._passed >= self.period:
            self.index, self._passed, self._is_applied = self.index + 1, 0, False
        if not self._is_applied:
            self._change(np.random.default_rng([self._seed, self.index]))
            self._is_applied = True
        observation, info = self.env.reset(seed=seed, options=options)
        return self.seen(observation), info | self.told()

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Go on by one step."""
        self._passed += 1
        observation, reward, terminated, truncated, info = self.env.step(self.done(action))
        info.update(self.told())
        return self.seen(observation), reward, terminated, truncated, info

    @abstractmethod
    def _change(self, random: np.random.Generator) -> None:
        """Bring a change about, by draws from a generator made for it."""

    def seen(self, observation: Any) -> Any:
        """What is shown of an observation."""
        return observation

    def done(self, action: Any) -> Any:
        """What is done of an action."""
        return action

    @abstractmethod
    def told(self) -> dict[str, Any]:
        """What goes into `info` at every step."""

    def schedule(self) -> dict[str, Any]:
        """What says when something changes, and into what."""
        return {"seed": self._seed, "period": self.period}

    def state_dict(self) -> dict[str, Any]:
        """The schedule, and where it stands."""
        return self.schedule() | {"index": self.index, "passed": self._passed}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` returned: the change that was in force is brought about again.

        Raises:
            StateError: it was saved of another schedule.
        """
        for name, made in self.schedule().items():
            if state.get(name) != made:
                raise StateError(
                    f"{self} was saved with {name} {state.get(name)!r} and has been made with {made!r}: make it alike."
                )
        self.index, self._passed = state["index"], state["passed"]
        self._change(np.random.default_rng([self._seed, self.index]))
        self._is_applied = True


def changes_of(env: gym.Env[Any, Any]) -> int:
    """How many changes there were after those of the beginning, in all wrappers of an environment that bring any."""
    found = 0
    while isinstance(env, gym.Wrapper):
        found += env.index if isinstance(env, Changing) else 0
        env = env.env
    return found


class ChangingPhysics(Changing):
    """Changes friction, gravity, masses or actuator gains of a MuJoCo environment.

    Values are log-uniform. "friction" is the sliding friction of all geoms, floor and body, since MuJoCo takes the
    larger one of the two that touch (Dohare et al., Nature 632, 2024, Slippery Ant); the others are factors on what the
    model has: of the force of gravity, of masses and inertias, and of what actuators do with their controls. `info` has
    the value under the quantity's name.

    Args:
        env: a MuJoCo environment of Gymnasium, wrapped or not.
        quantity: what changes.
        low: smallest value; above 0.
        high: largest value.
        period: steps between two changes at least; a change waits for the episode's end.
        seed: of all values.

    Raises:
        ConfigError: the environment has no such quantity; values that are no range above 0; see also `Changing`.
    """

    def __init__(
        self,
        env: gym.Env[Any, Any],
        quantity: Quantity = "friction",
        low: float = 0.02,
        high: float = 2.0,
        period: int = 2_000_000,
        seed: int = 0,
    ) -> None:
        if quantity not in QUANTITIES:
            raise ConfigError(f"There is no quantity {quantity!r} to change; {nearest(quantity, QUANTITIES)}")
        if not 0 < low <= high < math.inf:
            raise ConfigError(f"{quantity} between {low} and {high} cannot be: give 0 < low <= high.")
        super().__init__(env, period, seed)
        self.quantity = quantity
        self.value = math.nan
        """What it is now; NaN before the first reset."""
        self._model = _model_of(env, quantity)
        self._low, self._high = low, high
        self._initial = {name: getattr(self._place(name), name).copy() for name in _FIELDS[quantity]}

    def _place(self, name: str) -> Any:
        return self._model.opt if name == "gravity" else self._model

    def _change(self, random: np.random.Generator) -> None:
        self.value = float(math.exp(random.uniform(math.log(self._low), math.log(self._high))))
        for name, initial in self._initial.items():
            field = getattr(self._place(name), name)
            if name == "geom_friction":
                field[:, 0] = self.value
            elif name == "actuator_gainprm":
                field[:, 0] = initial[:, 0] * self.value
            else:
                field[:] = initial * self.value
        if self.quantity == "mass":
            import mujoco

            # What the model keeps of masses beside them. It is worked out at the pose of the model, on data of its own.
            mujoco.mj_setConst(self._model, mujoco.MjData(self._model))

    def schedule(self) -> dict[str, Any]:
        """See `Changing`; and what changes, from where to where."""
        return super().schedule() | {"quantity": self.quantity, "low": self._low, "high": self._high}

    def told(self) -> dict[str, Any]:
        """The value, by the name of the quantity."""
        return {self.quantity: self.value}


_FIELDS: dict[str, tuple[str, ...]] = {
    "friction": ("geom_friction",),
    "gravity": ("gravity",),
    "mass": ("body_mass", "body_inertia"),
    "actuator_gain": ("actuator_gainprm",),
}


def _model_of(env: gym.Env[Any, Any], quantity: str) -> Any:
    """The MuJoCo model of an environment."""
    model: Any = getattr(env.unwrapped, "model", None)
    if not hasattr(model, "geom_friction"):
        name = env.spec.id if env.spec is not None else type(env.unwrapped).__name__
        raise ConfigError(
            f"{name} has no {quantity} that could change, for it is no MuJoCo environment of Gymnasium: use one, such "
            "as Ant-v5, or a wrapper of your own."
        )
    if not _MATTERS[quantity](model):
        raise ConfigError(f"Nothing in {env.unwrapped} depends on {quantity}: change another quantity.")
    return model


def _has_friction(model: Any) -> bool:
    """Whether two bodies can touch that then rub: contacts of one dimension only push."""
    one, other = np.triu_indices(model.ngeom, 1)
    meet = (model.geom_contype[one] & model.geom_conaffinity[other]) != 0
    meet |= (model.geom_contype[other] & model.geom_conaffinity[one]) != 0
    body = model.body_weldid[model.geom_bodyid]
    rub = np.maximum(model.geom_condim[one], model.geom_condim[other]) > 1
    return bool((meet & rub & (body[one] != body[other])).any() or (model.pair_dim > 1).any())


_MATTERS: dict[str, Callable[[Any], bool]] = {
    "friction": _has_friction,
    "gravity": lambda model: bool(model.opt.gravity.any()),
    "mass": lambda model: bool(model.body_mass.any()),
    "actuator_gain": lambda model: bool(model.nu),
}


def _longest_episode(env: gym.Env[Any, Any]) -> int:
    """Steps; 0 where no limit is known."""
    limits = [0 if env.spec is None else env.spec.max_episode_steps or 0]
    while isinstance(env, gym.Wrapper):
        if isinstance(env, gym.wrappers.TimeLimit):
            limits.append(env._max_episode_steps)
        env = env.env
    return max(limits)


class ChangingSigns(Changing):
    """Permutes the numbers of an observation and turns the signs of some, and those of some of the action's.

    A change makes everything that was learned wrong, and is as hard as any other: it is a symmetry of a network that is
    drawn anew. `info` has "change", its number.

    Args:
        env: an environment whose observations and actions are vectors.
        period: steps between two changes at least; a change waits for the episode's end.
        seed: of all changes.

    Raises:
        ConfigError: observations or actions of another kind, or actions whose space is not the same with other signs;
            see also `Changing`.
    """

    def __init__(self, env: gym.Env[Any, Any], period: int, seed: int = 0) -> None:
        super().__init__(env, period, seed)
        for name, space in (("observations", env.observation_space), ("actions", env.action_space)):
            if not isinstance(space, gym.spaces.Box) or len(space.shape) != 1:
                raise ConfigError(f"The {name} of {env.unwrapped} are {space}, and must be vectors of real numbers.")
        shown: Any = env.observation_space
        done: Any = env.action_space
        if (done.low != -done.high).any():
            raise ConfigError(
                f"The actions of {env.unwrapped} are {done}, and with other signs would not be: rescale them first, so "
                "that the bounds of each lie evenly around 0, as by gymnasium.wrappers.RescaleAction."
            )
        bound = np.maximum(abs(shown.low), abs(shown.high)).max()
        self.observation_space = gym.spaces.Box(-bound, bound, shown.shape, shown.dtype.type)
        self._order: Array = np.arange(shown.shape[0])
        self._signs: Array = np.ones(shown.shape[0], shown.dtype)
        self._action_signs: Array = np.ones(done.shape[0], np.float32)

    def _change(self, random: np.random.Generator) -> None:
        self._order = random.permutation(len(self._order))
        self._signs = random.choice([-1.0, 1.0], len(self._order)).astype(self._signs.dtype)
        self._action_signs = random.choice(np.array([-1.0, 1.0], np.float32), len(self._action_signs))

    def seen(self, observation: Array) -> Array:
        """The observation in another order and with other signs."""
        turned: Array = observation[self._order] * self._signs
        return turned

    def done(self, action: Array) -> Array:
        """The action with other signs."""
        turned: Array = action * self._action_signs
        return turned

    def told(self) -> dict[str, Any]:
        """The number of the change."""
        return {"change": self.index}
