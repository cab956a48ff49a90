"""The whole state of an environment, so that a run can go on from it bit by bit."""

from collections.abc import Iterator
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium import wrappers

from regrow.errors import ConfigError, StateError

# Wrappers that keep nothing between two steps, once the environment has been reset.
_STATELESS: tuple[type[gym.Wrapper[Any, Any, Any, Any]], ...] = (
    wrappers.OrderEnforcing,
    wrappers.PassiveEnvChecker,
    wrappers.ClipAction,
    wrappers.RescaleAction,
    wrappers.TransformObservation,
    wrappers.TransformReward,
    wrappers.TransformAction,
)


def save(env: gym.Env[Any, Any]) -> dict[str, Any]:
    """Everything that an environment will ever need for going on as it would.

    Known are the MuJoCo environments of Gymnasium, those of classic control, and whatever has `state_dict` and
    `load_state_dict`; around them the time limit and wrappers that keep nothing.

    Returns:
        nested dicts of tensors, numbers, strings and None.

    Raises:
        ConfigError: an environment or wrapper of another kind.
    """
    return {str(number): _state_of(layer) for number, layer in enumerate(_layers(env))}


def restore(env: gym.Env[Any, Any], state: dict[str, Any]) -> None:
    """Go on from what `save` returned for an environment that was made alike.

    Raises:
        ConfigError: an environment or wrapper of a kind that `save` does not know.
        StateError: it was saved of an environment of another kind or with other wrappers.
    """
    layers = list(_layers(env))
    made, saved = [type(layer).__name__ for layer in layers], [each["kind"] for each in state.values()]
    if made != saved:
        raise StateError(
            f"The environment is {' of '.join(made)}, and what was saved {' of '.join(saved)}: make it alike."
        )
    env.reset(seed=0)  # the order of calls that wrappers insist on
    for number, layer in enumerate(layers):
        _restore(layer, state[str(number)])


def check(env: gym.Env[Any, Any] | gym.vector.VectorEnv[Any, Any, Any]) -> None:
    """Make sure that an environment can be saved.

    Raises:
        ConfigError: it cannot.
    """
    if isinstance(env, gym.vector.VectorEnv):
        raise ConfigError(
            f"{env} cannot be saved in a checkpoint: give the environments that it is made of, in a list."
        )
    for layer in _layers(env):
        # By their very type: what is derived from one may keep something.
        if not (_is_stateful(layer) or type(layer) in (*_STATELESS, wrappers.TimeLimit) or layer is env.unwrapped):
            raise ConfigError(
                f"{type(layer).__name__} around {env.unwrapped} may keep something that a checkpoint does not know: "
                "give it state_dict and load_state_dict, or leave it out."
            )
    inner = env.unwrapped
    is_classic = type(inner).__module__.startswith("gymnasium.envs.classic_control.")
    if not (_is_stateful(inner) or _is_mujoco(inner) or is_classic):
        raise ConfigError(
            f"{inner} cannot be saved in a checkpoint: give it state_dict and load_state_dict, or use an environment "
            "of MuJoCo or classic control."
        )


def _layers(env: gym.Env[Any, Any]) -> Iterator[gym.Env[Any, Any]]:
    while isinstance(env, gym.Wrapper):
        yield env
        env = env.env
    yield env


def _is_stateful(layer: gym.Env[Any, Any]) -> bool:
    # Not by hasattr, which a wrapper passes on to what is within it.
    return hasattr(type(layer), "state_dict") and hasattr(type(layer), "load_state_dict")


def _is_mujoco(env: gym.Env[Any, Any]) -> bool:
    return hasattr(getattr(env, "data", None), "qpos")


def _state_of(layer: Any) -> dict[str, Any]:
    if _is_stateful(layer):
        own: dict[str, Any] = layer.state_dict()
    elif isinstance(layer, wrappers.TimeLimit):
        own = {"elapsed": layer._elapsed_steps}
    elif isinstance(layer, gym.Wrapper):
        own = {}
    elif _is_mujoco(layer):
        own = _physics(layer)
    else:
        state = layer.state
        own = {"state": None if state is None else torch.tensor(np.asarray(state))}
        own |= {"beyond": getattr(layer, "steps_beyond_terminated", None)}
    random = None if isinstance(layer, gym.Wrapper) else layer.np_random.bit_generator.state
    return {"kind": type(layer).__name__, "random": random, "own": own}


def _restore(layer: Any, saved: dict[str, Any]) -> None:
    state = saved["own"]
    if saved["random"] is not None:
        layer.np_random.bit_generator.state = saved["random"]
    if _is_stateful(layer):
        layer.load_state_dict(state)
    elif isinstance(layer, wrappers.TimeLimit):
        layer._elapsed_steps = state["elapsed"]
    elif isinstance(layer, gym.Wrapper):
        pass
    elif _is_mujoco(layer):
        _set_physics(layer, state)
    else:
        layer.state = None if state["state"] is None else state["state"].numpy().copy()
        if hasattr(layer, "steps_beyond_terminated"):
            layer.steps_beyond_terminated = state["beyond"]


def _physics(env: Any) -> dict[str, Any]:
    """What MuJoCo integrates, and what it has worked out at the last step: rewards look at positions of before."""
    import mujoco

    kind = mujoco.mjtState.mjSTATE_INTEGRATION
    integrated = np.zeros(mujoco.mj_stateSize(env.model, kind))
    mujoco.mj_getState(env.model, env.data, integrated, kind)
    derived = {name: torch.tensor(np.asarray(value)) for name, value in _derived(env)}
    return {"integrated": torch.from_numpy(integrated), "derived": derived}


def _set_physics(env: Any, state: dict[str, Any]) -> None:
    import mujoco

    mujoco.mj_setState(env.model, env.data, state["integrated"].numpy(), mujoco.mjtState.mjSTATE_INTEGRATION)
    for name, value in _derived(env):
        value[...] = state["derived"][name].numpy()


def _derived(env: Any) -> Iterator[tuple[str, Any]]:
    """The arrays in the buffer of MuJoCo's data. Those of contacts, constraints and islands lie outside of it, in an
    arena that each step fills anew; where a step had none, they are shown as whatever memory holds.
    """
    data = env.data
    first = data.qpos.ctypes.data  # the buffer begins with it
    for name in dir(data):
        value = None if name.startswith("_") else getattr(data, name)
        if isinstance(value, np.ndarray) and value.dtype.names is None and value.size:
            if first <= value.ctypes.data < first + data.nbuffer:
                yield name, value
