"""An environment that is taken up again does what it would have done, to the bit."""

import gymnasium as gym
import numpy as np
import pytest

from regrow.errors import ConfigError, StateError
from regrow.experiments.checkpoint import decode, encode
from regrow.rl.changing import ChangingPhysics, ChangingSigns
from regrow.rl.slippery_ant import ID
from regrow.rl.snapshot import check, restore, save
from tests.rl.tiny import DelayedReward

ENVIRONMENTS = {
    "slippery ant": lambda: gym.make(ID, period=1000, seed=3),
    "gravity": lambda: ChangingPhysics(gym.make("Hopper-v5"), "gravity", 0.5, 2.0, 1000, 3),
    "mass": lambda: ChangingPhysics(gym.make("Walker2d-v5"), "mass", 0.5, 2.0, 1000, 3),
    "actuators": lambda: ChangingPhysics(gym.make("HalfCheetah-v5"), "actuator_gain", 0.5, 2.0, 1000, 3),
    "signs": lambda: ChangingSigns(gym.make("InvertedPendulum-v5"), 1000, 3),
    "pendulum": lambda: gym.make("Pendulum-v1"),
    "mountain car": lambda: gym.make("MountainCarContinuous-v0"),
    "clipped": lambda: gym.wrappers.ClipAction(gym.make("Hopper-v5")),
    "of one's own": lambda: gym.wrappers.TimeLimit(DelayedReward(), 2),
}


def go(env, random, steps):
    seen = []
    for _ in range(steps):
        observation, reward, terminated, truncated, info = env.step(random.uniform(-1, 1, env.action_space.shape))
        seen.append((observation.tobytes(), float(reward), terminated, truncated, info.get("friction")))
        if terminated or truncated:
            seen.append(env.reset()[0].tobytes())
    return seen


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_it_goes_on_as_it_would(name, tmp_path):
    env, random = ENVIRONMENTS[name](), np.random.default_rng(0)
    check(env)
    env.reset(seed=5)
    before = go(env, random, 1204)  # into an episode, and past a change where there is one
    (tmp_path / "state").write_bytes(encode(save(env)))
    there = random.bit_generator.state
    expected = go(env, random, 1300)
    again = ENVIRONMENTS[name]()
    restore(again, decode(tmp_path / "state"))
    assert encode(save(again)) == (tmp_path / "state").read_bytes()
    random.bit_generator.state = there
    assert go(again, random, 1300) == expected
    assert before[:50] != expected[:50]


@pytest.mark.parametrize("name", ["Ant-v5", "Humanoid-v5", "Hopper-v5"])
def test_nothing_is_saved_that_is_there_in_some_steps_only(name):
    """Of islands of contacts MuJoCo shows memory that nobody has written to where a step had none."""
    env = gym.make(name)
    env.reset(seed=0)
    names = set(save(env)["3"]["own"]["derived"])
    go(env, np.random.default_rng(0), 100)  # and falls
    assert set(save(env)["3"]["own"]["derived"]) == names
    assert {"qpos", "xpos", "cfrc_ext", "qacc_warmstart", "actuator_force"} <= names
    arena = ("island", "map_", "efc", "ifrc", "iacc", "iM", "iLD")
    assert [each for each in names if each.startswith(arena) or "island" in each] == []


class Delayed(gym.Wrapper):
    """Keeps something."""


def test_what_a_checkpoint_does_not_know_is_told():
    with pytest.raises(
        ConfigError, match="Delayed around .*Hopper.* may keep something that a checkpoint does not know"
    ):
        check(Delayed(gym.make("Hopper-v5")))
    with pytest.raises(ConfigError, match="cannot be saved in a checkpoint: give the environments that it is made of"):
        check(gym.make_vec("Pendulum-v1", 2))
    with pytest.raises(ConfigError, match="cannot be saved in a checkpoint: give it state_dict and load_state_dict"):
        check(gym.make("Blackjack-v1"))
    with pytest.raises(ConfigError, match="Lagging around .*Hopper.* may keep something"):
        check(Lagging(gym.make("Hopper-v5")))


class Lagging(gym.wrappers.ClipAction):
    """One of those that keep nothing, but for what this adds."""


def test_only_what_was_made_alike_goes_on():
    saved = save(ENVIRONMENTS["clipped"]())
    with pytest.raises(
        StateError,
        match="The environment is TimeLimit of OrderEnforcing of PassiveEnvChecker of HopperEnv, and what was saved "
        "ClipAction of TimeLimit of .*: make it alike",
    ):
        restore(gym.make("Hopper-v5"), saved)
    with pytest.raises(StateError, match="RescaleAction of .*, and what was saved ClipAction of"):
        restore(gym.wrappers.RescaleAction(gym.make("Hopper-v5"), -1, 1), saved)
    saved = save(ENVIRONMENTS["slippery ant"]())
    for changed, message in (
        ({"seed": 4}, "was saved with seed 3 and has been made with 4: make it alike"),
        ({"period": 2000}, "was saved with period 1000 and has been made with 2000"),
        ({"low": 0.1}, "was saved with low 0.02 and has been made with 0.1"),
    ):
        with pytest.raises(StateError, match=message):
            restore(gym.make(ID, **({"period": 1000, "seed": 3} | changed)), saved)


def test_a_state_of_its_own_may_have_any_names():
    class Own(DelayedReward):
        random = 5

        def state_dict(self):
            return super().state_dict() | {"random": self.random, "kind": "own"}

        def load_state_dict(self, state):
            super().load_state_dict(state)
            self.random = state["random"]
            assert state["kind"] == "own"

    env, again = Own(), Own()
    env.reset(seed=0)
    env.random = 7
    restore(again, save(env))
    assert again.random == 7 and again.np_random.random() == env.np_random.random()
