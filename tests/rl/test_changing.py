"""What changes, when, and by how much; and that nothing else does."""

import importlib.util
import math
import subprocess
import sys
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest

from regrow.errors import ConfigError, DependencyError
from regrow.rl.changing import ChangingPhysics, ChangingSigns
from regrow.rl.slippery_ant import ID, make

ROOT = Path(__file__).parents[2]
FIELDS = ("geom_friction", "body_mass", "body_inertia", "actuator_gainprm")


def values(env, steps):
    """What `info` says at each step, and at which steps an episode began."""
    found, begins = [], []
    name = env.get_wrapper_attr("quantity")
    for step in range(steps):
        _, _, terminated, truncated, info = env.step(env.action_space.sample())
        found.append(info[name])
        if terminated or truncated:
            env.reset()
            begins.append(step + 1)
    return found, begins


def test_slippery_ant_changes_at_the_first_episode_that_begins_a_period_later():
    env = gym.make(ID, period=1000, seed=3)
    _, info = env.reset(seed=0)
    found, begins = values(env, 6000)
    changes = [step for step in range(1, 6000) if found[step] != found[step - 1]]
    last, expected = 0, []
    for begin in begins:
        if begin - last >= 1000:
            expected.append(begin)
            last = begin
    assert changes == [step for step in expected if step < 6000] and len(changes) >= 3
    assert found[0] == info["friction"]
    # A table: value number k is that of the seed and k.
    table = [
        math.exp(np.random.default_rng([3, k]).uniform(math.log(0.02), math.log(2))) for k in range(len(changes) + 1)
    ]
    assert list(dict.fromkeys(found)) == table
    model = env.unwrapped.model
    assert (model.geom_friction[:, 0] == found[-1]).all() and (model.geom_friction[:, 1:] == 0.5).all()


def test_gymnasium_finds_it_by_its_name_alone():
    make_it = f"import gymnasium; print(gymnasium.make('regrow.rl.slippery_ant:{ID}', low=0.5, high=0.5).reset()[1])"
    done = subprocess.run([sys.executable, "-c", make_it], cwd=ROOT, capture_output=True, text=True)
    assert "'friction': 0.5" in done.stdout, done.stderr


def test_slippery_ant_is_ant_with_another_friction():
    """The same physics: with a friction of 1, which Ant has, the very same numbers."""
    one, other = gym.make(ID, low=1.0, high=1.0), gym.make("Ant-v5")
    seen = [env.reset(seed=5)[0] for env in (one, other)]
    assert (seen[0] == seen[1]).all()
    random = np.random.default_rng(0)
    for _ in range(100):
        action = random.uniform(-1, 1, 8)
        first, second = one.step(action), other.step(action)
        assert (first[0] == second[0]).all() and first[1:4] == second[1:4]
    assert one.spec.max_episode_steps == other.spec.max_episode_steps == 1000


def test_frictions_are_spread_evenly_over_their_logarithm():
    env = ChangingPhysics(gym.make("Hopper-v5"), period=1000)
    drawn = []
    for number in range(300):
        env._change(np.random.default_rng([0, number]))
        drawn.append(math.log10(env.value))
    assert min(drawn) > math.log10(0.02) and max(drawn) < math.log10(2)
    assert np.histogram(drawn, 4)[0].min() > 50


@pytest.mark.parametrize(
    ("quantity", "fields"),
    [
        ("friction", {"geom_friction"}),
        ("gravity", {"gravity"}),
        ("mass", {"body_mass", "body_inertia"}),
        ("actuator_gain", {"actuator_gainprm"}),
    ],
)
def test_each_quantity_changes_what_belongs_to_it_and_how_the_body_moves(quantity, fields):
    env, plain = (gym.make("Hopper-v5") for _ in range(2))
    before = {name: getattr(env.unwrapped.model, name).copy() for name in FIELDS}
    before["gravity"] = env.unwrapped.model.opt.gravity.copy()
    env = ChangingPhysics(env, quantity, 3.0, 3.0, period=1000)
    _, info = env.reset(seed=0)
    plain.reset(seed=0)
    assert info[quantity] == pytest.approx(3.0)
    model = env.unwrapped.model
    now = {name: getattr(model, name) for name in FIELDS} | {"gravity": model.opt.gravity}
    assert {name for name in now if (now[name] != before[name]).any()} == fields
    for name in fields - {"geom_friction", "actuator_gainprm"}:
        assert now[name] == pytest.approx(3.0 * before[name])
    assert (env.unwrapped.init_qpos == plain.unwrapped.init_qpos).all()
    seen = []
    for each in (env, plain):
        each.action_space.seed(0)
        seen.append(np.concatenate([each.step(each.action_space.sample())[0] for _ in range(30)]))
    assert abs(seen[0] - seen[1]).max() > 1e-3


def test_what_the_model_keeps_of_masses_beside_them_is_worked_out_anew():
    env = ChangingPhysics(gym.make("Hopper-v5"), "mass", 2.0, 2.0, period=1000)
    before = env.unwrapped.model.dof_invweight0.copy()
    env.reset(seed=0)
    # Where the whole body slides; its joints have an inertia of their own beside that of masses.
    assert env.unwrapped.model.dof_invweight0[:2] == pytest.approx(before[:2] / 2, rel=0.05)


def test_signs_turn_observations_and_actions_and_nothing_is_lost():
    env, plain = ChangingSigns(gym.make("InvertedPendulum-v5"), 1000, seed=4), gym.make("InvertedPendulum-v5")
    first, info = env.reset(seed=0)
    seen, _ = plain.reset(seed=0)
    assert info["change"] == 0
    assert sorted(abs(first)) == pytest.approx(sorted(abs(seen)))
    sign = env.done(np.ones(1))
    assert abs(sign) == 1
    there, expected = env.step(np.array([0.5]))[0], plain.step(0.5 * sign)[0]
    assert sorted(abs(there)) == pytest.approx(sorted(abs(expected)))
    laws = set()
    for number in range(50):
        env._change(np.random.default_rng([4, number]))
        laws.add((*env._order, *env._signs, *env._action_signs))
    assert len(laws) > 40


def test_friction_matters_where_it_can_be_changed_and_only_there():
    """The same actions under little friction and much: what can be changed moves otherwise, what cannot moves alike."""
    moved = {}
    for name in ("Hopper-v5", "Ant-v5", "Swimmer-v5", "Reacher-v5", "InvertedPendulum-v5", "Pusher-v5"):
        seen = []
        for friction in (0.02, 2.0):
            env = gym.make(name).unwrapped
            env.model.geom_friction[:, 0] = friction
            env.reset(seed=0)
            env.action_space.seed(0)
            seen.append(np.concatenate([env.step(env.action_space.sample())[0] for _ in range(100)]))
        moved[name] = bool((seen[0] != seen[1]).any())
    for name, matters in moved.items():
        if matters:
            ChangingPhysics(gym.make(name), period=1000)
        else:
            with pytest.raises(ConfigError, match="depends on friction"):
                ChangingPhysics(gym.make(name), period=1000)
    assert [name for name, matters in moved.items() if matters] == ["Hopper-v5", "Ant-v5"]


@pytest.mark.parametrize("name", ["Pendulum-v1", "MountainCarContinuous-v0", "Hopper-v5"])
def test_what_is_shown_with_other_signs_lies_in_the_space_that_is_named(name):
    env = ChangingSigns(gym.make(name), 1000, seed=1)
    observation, _ = env.reset(seed=0)
    for _ in range(20):
        assert env.observation_space.contains(observation)
        observation = env.step(env.action_space.sample())[0]


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: gym.make(ID, period=999), "cannot change every 999 steps, since an episode may last 1000"),
        (
            lambda: ChangingPhysics(gym.make("Ant-v5"), period=10),
            "A change every 10 steps comes more often than episodes",
        ),
        (
            lambda: ChangingPhysics(gym.make("CartPole-v1"), period=1000),
            "CartPole-v1 has no friction that could change, for it is no MuJoCo environment of Gymnasium",
        ),
        (
            lambda: ChangingPhysics(gym.make("InvertedPendulum-v5"), period=1000),
            r"Nothing in <InvertedPendulumEnv<InvertedPendulum-v5>> depends on friction: change another quantity",
        ),
        (lambda: ChangingPhysics(gym.make("Pusher-v5"), period=1000), "Nothing in .*Pusher.* depends on friction"),
        (lambda: ChangingPhysics(gym.make("Pusher-v5"), "gravity", period=1000), "Nothing in .* depends on gravity"),
        (
            lambda: ChangingSigns(gym.wrappers.TimeLimit(gym.make("Hopper-v5").unwrapped, 500), 400),
            "A change every 400 steps comes more often than episodes end, which last up to 500 steps",
        ),
        (
            lambda: ChangingSigns(gym.make("Hopper-v5").unwrapped, 0),
            "A change every 0 steps cannot be: give a period of 1 or more",
        ),
        (
            lambda: ChangingSigns(gym.wrappers.RescaleAction(gym.make("Hopper-v5"), -1, 2), 1000),
            r"The actions of .*Hopper.* are Box\(-1.0, 2.0, \(3,\), float32\), and with other signs would not be",
        ),
        (lambda: make("nothere-v3"), "Gymnasium cannot make nothere-v3: Environment `nothere` doesn't exist"),
        (lambda: ChangingPhysics(gym.make("Ant-v5"), "colour"), "There is no quantity 'colour' to change"),
        (lambda: ChangingPhysics(gym.make("Ant-v5"), low=0.0), "friction between 0.0 and 2.0 cannot be: give 0 < low"),
        (lambda: ChangingPhysics(gym.make("Ant-v5"), low=3.0), "friction between 3.0 and 2.0 cannot be: give 0 < low"),
        (lambda: ChangingSigns(gym.make("CartPole-v1"), 1000), r"The actions of .* are Discrete\(2\), and must be"),
    ],
)
def test_what_cannot_change_is_told(build, message):
    with pytest.raises(ConfigError, match=message):
        build()


def test_without_gymnasium_the_extra_is_named(monkeypatch):
    import regrow.rl

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        DependencyError, match=r"regrow.rl needs Gymnasium, which is not installed: pip install 'regrow\[rl\]'"
    ):
        importlib.reload(regrow.rl)


def test_without_mujoco_the_extra_is_named(monkeypatch):
    def missing(name, **settings):
        raise gym.error.DependencyNotInstalled("MuJoCo is not installed")

    monkeypatch.setattr(gym, "make", missing)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        DependencyError, match=r"Ant-v5 needs MuJoCo, which is not installed .*pip install 'regrow\[rl\]'"
    ):
        make("Ant-v5")
