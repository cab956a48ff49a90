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


def course(method, seed=0):
    study = study_named("changing-control")
    (spec,) = study.specs("smoke+tasks=4", [seed], [method])
    return study.course(spec)


def test_an_agent_is_drawn_anew_when_its_environment_has_changed():
    learner = course("full-reset")
    [wrapper] = learner._environments
    weights = [learner._agent.policy[0].weight.detach().clone()]
    while learner.progress < 1:
        before, changed = wrapper.get_wrapper_attr("index"), learner._changes
        learner.advance()
        weights.append(learner._agent.policy[0].weight.detach().clone())
        if learner._changes > changed:
            assert wrapper.get_wrapper_attr("index") > before
            bound = (3 / weights[-1].shape[1]) ** 0.5  # of the law that the agent begins with
            assert (weights[-1] - weights[-2]).abs().mean() > bound / 3
            assert not learner._optimizer.state[learner._agent.policy[0].weight]["step"].item()
        else:
            assert (weights[-1] - weights[-2]).abs().mean() < 0.02
    assert learner._changes > 3


def test_a_course_that_goes_on_knows_what_it_was_told():
    whole, first = course("full-reset"), course("full-reset")
    for _ in range(20):
        whole.advance()
        first.advance()
    second = course("full-reset")
    second.load_state_dict(first.state_dict())
    assert second._changes == whole._changes > 0
    while whole.progress < 1:
        whole.advance()
        second.advance()
    for one, other in zip(whole._agent.parameters(), second._agent.parameters(), strict=True):
        assert one.equal(other)


def test_it_runs(tmp_path, process_settings):
    (spec,) = study_named("changing-control").specs("smoke", range(1), ["cbp"])
    folder = RunFolder.create(tmp_path, spec)
    assert run(folder)
    assert folder.spec().tasks == 2
