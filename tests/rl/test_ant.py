"""The quick Ant is Gymnasium's, number for number."""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.envs.mujoco import ant_v5

from regrow.experiments.checkpoint import decode, encode
from regrow.rl.ant import AntEnv
from regrow.rl.slippery_ant import make
from regrow.rl.snapshot import restore, save

SETTINGS = {
    "as it is": {},
    "with its position": {"exclude_current_positions_from_observation": False},
    "without forces": {"include_cfrc_ext_in_observation": False},
    "without either": {
        "include_cfrc_ext_in_observation": False,
        "exclude_current_positions_from_observation": False,
    },
    "other weights": {
        "forward_reward_weight": 3.7,
        "ctrl_cost_weight": 0.3,
        "contact_cost_weight": 0.01,
        "healthy_reward": 2.5,
        "contact_force_range": (-0.2, 30.0),
    },
    "another body and health": {"main_body": "front_left_leg", "healthy_z_range": (0.3, 0.7), "frame_skip": 3},
    "never ends": {"terminate_when_unhealthy": False, "reset_noise_scale": 0.3},
}


def pair(**settings):
    """The quick one and Gymnasium's."""
    made = make("Ant-v5", **settings), gym.make("Ant-v5", **settings)
    assert [type(env.unwrapped) for env in made] == [AntEnv, ant_v5.AntEnv]
    return made


def same(one, other):
    """Hold two answers of `step` to the same bits, in the same kinds of numbers; whether an episode ended."""
    (observation, reward, *ends, info), (of_other, other_reward, *other_ends, other_info) = one, other
    assert observation.tobytes() == of_other.tobytes()
    assert observation.dtype == of_other.dtype and observation.shape == of_other.shape
    assert [type(end) for end in ends] == [type(end) for end in other_ends] and ends == other_ends
    assert list(info) == list(other_info)
    for here, there in zip((reward, *info.values()), (other_reward, *other_info.values()), strict=True):
        assert type(here) is type(there) and here.tobytes() == there.tobytes()
    return any(ends)


@pytest.mark.parametrize("kind", [np.float32, np.float64])
@pytest.mark.parametrize("name", SETTINGS)
def test_each_step_gives_the_same_numbers(name, kind):
    quick, plain = pair(**SETTINGS[name])
    random, ended = np.random.default_rng(0), 0
    assert quick.reset(seed=7)[0].tobytes() == plain.reset(seed=7)[0].tobytes()
    for _ in range(1200):
        action = random.standard_normal(8).astype(kind)
        if same(quick.step(action), plain.step(action)):
            assert quick.reset()[0].tobytes() == plain.reset()[0].tobytes()
            ended += 1
    assert ended
    assert quick.observation_space == plain.observation_space and quick.action_space == plain.action_space
    assert (quick.spec.max_episode_steps, quick.spec.reward_threshold) == (1000, 6000.0)


@pytest.mark.parametrize("field", ["qpos", "qvel"])
@pytest.mark.parametrize("place", [0, 2, -1])
@pytest.mark.parametrize("value", [np.nan, np.inf, 1e300])
def test_a_state_that_is_not_finite_ends_the_episode_alike(field, place, value, monkeypatch):
    """It is put there after the physics, which would not let it stand."""
    envs = [AntEnv(), ant_v5.AntEnv()]
    for env in envs:
        env.reset(seed=0)

        def disturb(action, frames, env=env):
            getattr(env.data, field)[place] = value

        monkeypatch.setattr(env, "do_simulation", disturb)
    with np.errstate(over="ignore", invalid="ignore"):
        answers = [env.step(np.zeros(8)) for env in envs]
    same(*answers)
    is_healthy = value == 1e300 and not (field == "qpos" and place == 2)
    assert answers[0][2] is not is_healthy


@pytest.mark.parametrize("kind", [list, lambda action: np.ma.masked_greater(action, 0.5), np.ndarray.tolist])
def test_actions_of_other_kinds_are_taken_alike(kind):
    quick, plain = (env.unwrapped for env in pair())
    random = np.random.default_rng(0)
    quick.reset(seed=1), plain.reset(seed=1)
    for _ in range(20):
        action = kind(random.standard_normal(8))
        same(quick.step(action), plain.step(action))


def test_what_is_wrong_is_told_alike():
    for env in pair():
        env.reset(seed=0)
        with pytest.raises(ValueError, match=r"Action dimension mismatch\. Expected \(8,\), found \(7,\)"):
            env.unwrapped.step(np.zeros(7))
        env.unwrapped._contact_force_range = (-1.0,)
        with pytest.raises(ValueError, match=r"not enough values to unpack \(expected 2, got 1\)"):
            env.unwrapped.step(np.zeros(8))


def test_what_is_returned_is_not_touched_by_the_next_step():
    env = AntEnv(include_cfrc_ext_in_observation=False)
    env.reset(seed=0)
    observation, _, _, _, info = env.step(np.ones(8))
    assert observation.flags.owndata
    before = observation.copy(), info["x_position"]
    env.step(np.ones(8))
    assert (observation == before[0]).all() and info["x_position"] == before[1]


def test_it_shows_itself_at_each_step_where_it_is_watched(monkeypatch):
    env, shown = AntEnv(), []
    env.reset(seed=0)
    monkeypatch.setattr(env, "render", lambda: shown.append(env.data.time))
    env.step(np.zeros(8))
    assert shown == []
    env.render_mode = "human"
    env.step(np.zeros(8))
    assert shown == [env.data.time]


@pytest.mark.parametrize("saved", [0, 1])
def test_a_checkpoint_of_the_one_is_taken_up_by_the_other(saved, tmp_path):
    envs = pair()
    random = np.random.default_rng(0)
    envs[saved].reset(seed=3)
    for _ in range(40):
        if envs[saved].step(random.uniform(-1, 1, 8))[2]:
            envs[saved].reset()
    (tmp_path / "state").write_bytes(encode(save(envs[saved])))
    restore(envs[1 - saved], decode(tmp_path / "state"))
    for _ in range(200):
        action = random.uniform(-1, 1, 8)
        if same(*(env.step(action) for env in envs)):
            first, second = (env.reset()[0] for env in envs)
            assert first.tobytes() == second.tobytes()
