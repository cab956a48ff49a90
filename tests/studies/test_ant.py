"""PPO as a study: the article's numbers, what a row holds, and a kill at any moment."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

import regrow.experiments.run as run_module
import regrow.studies  # noqa: F401  registers them
from regrow.errors import ConfigError, DependencyError
from regrow.experiments.results import read_curves
from regrow.experiments.run import run
from regrow.experiments.store import RunFolder
from regrow.experiments.study import methods_of, study_named
from regrow.report.published import published_curves

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _settings(process_settings):
    """What a run sets in its process is put back."""


def one(tmp_path, method="cbp", study="slippery-ant", scale="smoke"):
    (spec,) = study_named(study).specs(scale, range(1), [method])
    return RunFolder.create(tmp_path, spec)


def test_the_article_is_set_up_to_the_letter():
    paper = {spec.method: spec for spec in study_named("slippery-ant").specs("paper", range(1))}
    problem = paper["standard"].problem
    expected = {
        "environment": "regrow/SlipperyAnt-v0",
        "period": 2_000_000,
        "friction": [0.02, 2.0],
        "widths": [256, 256],
        "activation": "relu",
        "init": "lecun_uniform",
        "buffer": 2048,
        "epochs": 10,
        "minibatches": 16,
        "discount": 0.99,
        "trace": 0.95,
        "clip": 0.2,
        "learning_rate": 1e-4,
        "truncation": "terminal",
        "actions": "raw",
    }
    assert {name: problem[name] for name in expected} == expected
    assert problem["bin"] * problem["tasks"] == 20_000_000
    assert study_named("slippery-ant").origin(problem).endswith("; 20,000,000 environment steps a run")
    betas = {name: spec.problem["betas"] for name, spec in paper.items()}
    assert betas.pop("standard") == [0.9, 0.999] and set(map(tuple, betas.values())) == {(0.99, 0.99)}
    decay = {name: spec.problem["weight_decay"] for name, spec in paper.items()}
    assert decay.pop("cbp moments=cleared") == decay["cbp"]
    assert decay == {"standard": 0, "tuned": 0, "l2": 1e-3, "cbp": 1e-4, "redo": 1e-4, "shrink-and-perturb": 1e-3}
    (cbp,) = methods_of(paper["cbp"])
    assert (cbp.replacement_rate, cbp.maturity_threshold, cbp.budget) == (1e-4, 10_000, "bernoulli")
    assert (cbp.decay_rate, cbp.utility_rule, cbp.moments) == (0.99, "contribution", "kept")
    (redo,) = methods_of(paper["redo"])
    assert (redo.threshold, redo.period) == (0.1, 100)
    lengths = {name: study_named(name).scale("paper").problem for name in ("ant", "walker", "hopper")}
    steps = {name: problem["bin"] * problem["tasks"] for name, problem in lengths.items()}
    assert steps == {"ant": 50_000_000, "walker": 50_000_000, "hopper": 100_000_000}


@pytest.mark.parametrize("study", ["ant", "hopper", "walker", "slippery-ant"])
def test_a_row_says_how_it_went(study, tmp_path):
    folder = one(tmp_path, "redo", study)
    assert run(folder)
    rows = read_curves([folder]).to_dicts()
    assert [row["task"] for row in rows] == [0, 1]
    for row in rows:
        assert row["episode_length"] > 5 and row["std"] == pytest.approx(1, abs=0.1)
        assert 0 <= row["dormant"] < 0.5 and 1 < row["article_rank"] <= 16
        assert row["weight_change"] > 0.1 and row["weight_magnitude"] == pytest.approx(0.2, abs=0.05)
    assert rows[0]["return"] != rows[1]["return"]


@pytest.mark.parametrize(
    ("method", "scale"), [("cbp", "smoke+tasks=5"), ("redo", "smoke"), ("shrink-and-perturb", "smoke")]
)
def test_a_run_that_is_killed_anywhere_ends_with_the_same_bytes(method, scale, tmp_path, monkeypatch):
    """The first goes through 10,000 steps and several frictions."""
    whole, cut = one(tmp_path / "whole", method, scale=scale), one(tmp_path / "cut", method, scale=scale)
    run(whole)
    monkeypatch.setattr(run_module, "_checkpoint_due", lambda *_: True)
    original, saves = RunFolder.save, []

    def save(self, done, state):
        original(self, done, state)
        saves.append(done)
        if len(saves) % 3 == 0:
            raise KeyboardInterrupt  # and taken up again, from that very checkpoint

    monkeypatch.setattr(RunFolder, "save", save)
    for _ in range(30):
        with contextlib.suppress(KeyboardInterrupt):
            if run(cut):
                break
    assert len(saves) > 10
    for name in ("curve.parquet", "checkpoint.safetensors"):
        assert (cut.path / name).read_bytes() == (whole.path / name).read_bytes()


_A_RUN = """
import sys
from pathlib import Path
import regrow.studies
from regrow.experiments import run
from regrow.experiments.store import RunFolder
run._checkpoint_due = lambda *_: True
run.run(RunFolder(Path(sys.argv[1])))
"""


def test_a_process_that_is_killed_and_another_that_goes_on_end_with_the_same_bytes(tmp_path):
    """Same seed, same bytes, for 10,000 steps and several frictions: here, and in a process that the system kills, with
    another that goes on."""
    here, killed = (one(tmp_path / name, "cbp", scale="smoke+tasks=5") for name in ("here", "killed"))
    assert run(here)

    def start():
        command = [sys.executable, "-P", "-c", _A_RUN, str(killed.path)]
        return subprocess.Popen(command, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)})

    process = start()
    while killed.length() < 2:
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    assert killed.path.joinpath("checkpoint.safetensors").exists() and not killed.is_done()
    assert start().wait() == 0
    for name in ("curve.parquet", "checkpoint.safetensors"):
        assert (here.path / name).read_bytes() == (killed.path / name).read_bytes()


def test_methods_differ_and_seeds_differ_and_the_first_actions_are_the_same(tmp_path):
    """Before the first update nothing tells methods apart."""
    curves = {}
    for method in ("standard", "tuned", "l2"):
        folder = one(tmp_path, method)
        run(folder)
        curves[method] = read_curves([folder])["return"].to_list()
    assert len({tuple(curve) for curve in curves.values()}) == 3
    state = torch.random.get_rng_state()
    one_course, other = (
        study_named("slippery-ant").course(spec)
        for spec in study_named("slippery-ant").specs("smoke", range(1), ["standard", "tuned"])
    )
    assert torch.equal(torch.random.get_rng_state(), state)  # nothing is drawn from torch's own generator
    first, second = one_course._ppo._act()[0], other._ppo._act()[0]
    assert (first.actions == second.actions).all() and (first.rewards == second.rewards).all()


def test_environments_side_by_side_have_the_same_frictions_at_the_same_time():
    (spec,) = study_named("slippery-ant").specs("smoke+environments=4+period=4000+bin=8000", range(1), ["cbp"])
    course = study_named("slippery-ant").course(spec)
    physics = [environment.get_wrapper_attr("value") for environment in course._ppo._environments]
    periods = [environment.get_wrapper_attr("period") for environment in course._ppo._environments]
    assert len(set(physics)) == 1 and periods == [1000] * 4
    seen = course._ppo._observations
    assert not (seen[0] == seen[1]).all()
    assert course.advance().row is None and course._ppo.steps == 256


def test_figures_name_arms_and_published_curves_that_are_there():
    for name in ("ant", "hopper", "walker", "slippery-ant"):
        study = study_named(name)
        for scale in study.scales:
            panels = [panel for figure in study.counterparts(scale) for panel in figure.panels]
            assert bool(panels) == (scale != "smoke")
            for panel in panels:
                assert set(panel.arms) <= study.arms(scale).keys()
                if panel.published is not None:
                    assert set(published_curves(panel.published)) == {"standard", "tuned", "l2", "cbp"}
    published = [panel.published for panel in study_named("ant").counterparts("paper")[0].panels]
    assert published == ["Fig. 4, return", "Fig. 4, dormant", "Fig. 4, rank", "Fig. 4, weights"]
    limits = {name: study_named(name).counterparts("paper")[0].panels[0].limits for name in ("slippery-ant", "hopper")}
    assert limits == {"slippery-ant": (0, 5500), "hopper": (0, 2500)}  # the article's axes
    last = published_curves("Fig. 4, return")["cbp"].row(-1, named=True)
    assert (last["x"], last["value"]) == (50, 4900)  # million steps


def test_what_cannot_be_run_is_told():
    for scale, message in (
        (
            "bin=1500",
            "A task of 1500 steps is too short for an update of 256 and episodes of up to 1000 steps: give bin=2000",
        ),
        ("environments=4+period=4000", "of up to 1000 steps in each of 4 environments: give bin=8000 or more"),
        (
            "environments=0",
            "A run needs one environment or more, and networks of two hidden layers or more, and not env",
        ),
        ("widths=[16]", r"two hidden layers or more, and not environments=1, widths=\[16\]"),
        ("environment=Hopper-v5", "slippery-ant learns in regrow/SlipperyAnt-v0 alone, and not in Hopper-v5: for a"),
    ):
        (spec,) = study_named("slippery-ant").specs(f"smoke+{scale}", range(1), ["cbp"])
        with pytest.raises(ConfigError, match=message):
            study_named("slippery-ant").course(spec)
    (spec,) = study_named("ant").specs("smoke+environment=CartPole-v1", range(1), ["cbp"])
    with pytest.raises(ConfigError, match=r"The actions of .*CartPole.* are Discrete\(2\), and must be vectors"):
        study_named("ant").course(spec)


def test_without_the_extra_it_is_named(monkeypatch):
    import importlib.util

    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "mujoco" else real(name))
    (spec,) = study_named("ant").specs("smoke", range(1), ["cbp"])
    for act in (lambda: study_named("ant").origin(spec.problem), lambda: study_named("ant").course(spec)):
        with pytest.raises(DependencyError, match=r"needs MuJoCo, which is not installed: pip install 'regrow\[rl\]'"):
            act()
