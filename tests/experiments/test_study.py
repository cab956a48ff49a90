import pytest

from regrow.errors import ConfigError
from regrow.experiments.arm import Arm
from regrow.experiments.spec import RunSpec
from regrow.experiments.study import Study, methods_of, study_named, why_plain
from regrow.methods import L2, ContinualBackprop
from regrow.studies.permuted_digits import PermutedDigits


def test_specs_pair_all_methods_by_seed():
    specs = study_named("permuted-digits").specs("laptop", seeds=[0, 7], methods=["l2", "cbp"], engine="plain")
    assert [(spec.seed, spec.method) for spec in specs] == [(0, "cbp"), (0, "l2"), (7, "cbp"), (7, "l2")]
    assert len({spec.key for spec in specs}) == 4
    assert {spec.engine for spec in specs} == {"plain"}


def test_methods_come_back_from_their_spec():
    study = study_named("permuted-digits")
    for spec in study.specs("smoke", seeds=[0]):
        assert tuple(methods_of(spec)) == study.arms("smoke")[spec.method].methods


def test_every_setting_of_a_method_is_in_its_key(monkeypatch):
    study = study_named("permuted-digits")
    keys = set()
    for strength in (1e-3, 1e-4):
        monkeypatch.setattr(PermutedDigits, "arms", lambda self, scale, strength=strength: {"l2": Arm((L2(strength),))})
        keys.add(study.specs("smoke", seeds=[0])[0].key)
    assert len(keys) == 2


def test_where_the_fused_engine_cannot_serve_auto_takes_the_plain_one(monkeypatch):
    first_order = ContinualBackprop(utility_rule="first_order")
    monkeypatch.setattr(PermutedDigits, "arms", lambda self, scale: {"first order": Arm((first_order,))})
    study = study_named("permuted-digits")
    (spec,) = study.specs("smoke", seeds=[0])
    assert spec.engine == "plain"
    assert "first_order" in (why_plain(spec) or "")
    with pytest.raises(
        ConfigError,
        match=r"^The fused engine cannot run first order, because .*\. Choose the engine auto or plain, or o",
    ):
        study.specs("smoke", engine="fused")


def test_the_batched_engine_makes_one_run_of_all_seeds():
    study = study_named("permuted-digits")
    specs = study.specs("smoke", seeds=range(3, 6), methods=["l2", "cbp"], engine="batched")
    assert [(spec.method, spec.seeds, spec.title) for spec in specs] == [
        ("cbp", (3, 4, 5), "cbp, 3 seeds from 3"),
        ("l2", (3, 4, 5), "l2, 3 seeds from 3"),
    ]
    again = RunSpec.from_json(specs[0].to_json(), "here")
    assert (again.key, again.seeds) == (specs[0].key, (3, 4, 5))
    assert specs[0].problem["device"] in ("cpu", "cuda")
    with pytest.raises(
        ConfigError, match="^The batched engine cannot run backprop step=0.05, because it learns online"
    ):
        study_named("continual-imagenet").specs("smoke", engine="batched")


def test_a_name_cannot_be_taken_twice():
    with pytest.raises(ConfigError, match="^Two studies are called 'permuted-digits': PermutedDigits and Other"):

        class Other(PermutedDigits, name="permuted-digits"):
            pass

    assert type(Study.registry["permuted-digits"]) is PermutedDigits


def test_other_images_make_other_runs():
    study = study_named("permuted-digits")
    (first,) = study.specs("smoke", seeds=[0], methods=["l2"])
    (other,) = study.specs("smoke", seeds=[0], methods=["l2"], data="some/folder")
    assert other.problem == {**first.problem, "data": "some/folder"}
    assert first.key != other.key
    with pytest.raises(ConfigError, match="^The study bit-flipping reads no data, so it cannot use 'mnist': leave"):
        study_named("bit-flipping").specs("smoke", data="mnist")


def test_figures_say_which_settings_were_changed():
    study = study_named("permuted-digits")
    usual = study.caption_of("laptop")
    assert usual.endswith(".") and study.caption_of("laptop+tasks=3+passes=2") == f"{usual} But tasks=3, passes=2."
    assert study.caption_of("smoke") == study.caption_of("smoke+tasks=3") == ""


def test_settings_of_a_scale_can_be_changed():
    study = study_named("bit-flipping")
    (spec,) = study.specs("laptop+tasks=7+flip=all+learning_rate=1", seeds=[0], methods=["cbp"])
    assert spec.scale == "laptop+tasks=7+flip=all+learning_rate=1"
    plain = study.scale("laptop").problem
    changed = {key: value for key, value in spec.problem.items() if plain[key] != value}
    assert changed == {"tasks": 7, "flip": "all", "learning_rate": 1.0}
    assert type(spec.problem["learning_rate"]) is float
    (kept,) = study.specs("laptop+learning_rate=1", seeds=[0], methods=["relu step=0.003"])
    assert kept.problem["learning_rate"] == 0.003  # this arm is about its step


@pytest.mark.parametrize(
    ("scale", "message"),
    [
        ("laptop+flipp=all", "^The scale laptop has no setting 'flipp'; did you mean 'flip'"),
        ("laptop+tasks=many", r"^laptop\+tasks=many gives a str, but the setting is a int such as 100"),
        ("laptop+tasks", r"^laptop\+tasks gives a str, but"),
    ],
)
def test_settings_that_a_scale_does_not_have(scale, message):
    with pytest.raises(ConfigError, match=message):
        study_named("bit-flipping").specs(scale)
