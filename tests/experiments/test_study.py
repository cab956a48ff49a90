import pytest

from regrow.errors import ConfigError
from regrow.experiments.arm import Arm
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
    adaptable = ContinualBackprop(utility_rule="adaptable_contribution")
    monkeypatch.setattr(PermutedDigits, "arms", lambda self, scale: {"adaptable": Arm((adaptable,))})
    study = study_named("permuted-digits")
    (spec,) = study.specs("smoke", seeds=[0])
    assert spec.engine == "plain"
    assert "adaptable_contribution" in (why_plain(spec) or "")
    with pytest.raises(
        ConfigError, match=r"^The fused engine cannot run adaptable, because .*\. Choose the engine auto or"
    ):
        study.specs("smoke", engine="fused")


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
