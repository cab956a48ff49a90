"""The small companion of Slippery Ant."""

import pytest

import regrow.studies  # noqa: F401  registers them
from regrow.errors import ConfigError
from regrow.experiments.run import run
from regrow.experiments.store import RunFolder
from regrow.experiments.study import study_named


def environment(changes):
    study = study_named("changing-control")
    return study.environment(study.scale(f"search+{changes}").problem, seed=0)


@pytest.mark.parametrize("change", ["friction", "gravity", "mass", "actuator_gain"])
def test_what_changes_is_what_is_asked_for(change):
    made = environment(f"change={change}+values=[0.5,0.5]")
    assert made.reset(seed=0)[1][change] == pytest.approx(0.5)


def test_signs_change_too_and_nothing_else_is_known():
    assert environment("environment=Pendulum-v1+change=signs").reset(seed=0)[1]["change"] == 0
    with pytest.raises(
        ConfigError, match="There is no change 'colour': choose signs, friction, gravity, mass, actuator"
    ):
        environment("change=colour")
    with pytest.raises(ConfigError, match="has no scale 'paper': it is no problem of the article"):
        study_named("changing-control").scale("paper")


def test_it_runs(tmp_path, process_settings):
    (spec,) = study_named("changing-control").specs("smoke", range(1), ["cbp"])
    folder = RunFolder.create(tmp_path, spec)
    assert run(folder)
    assert folder.spec().tasks == 2
