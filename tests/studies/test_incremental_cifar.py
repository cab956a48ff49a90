import copy
import dataclasses
import re

import numpy as np
import pytest
import torch

from regrow.errors import DataError
from regrow.experiments.run import run
from regrow.experiments.store import RunFolder
from regrow.methods import ContinualBackprop, FullReset, HardReset, ShrinkAndPerturb
from regrow.report.published import published_curves
from regrow.studies.incremental_cifar import IncrementalCIFAR

STUDY = IncrementalCIFAR()


def test_the_scale_of_the_article_is_the_article_s():
    problem = STUDY.scale("paper").problem
    assert (problem["increment"], problem["tasks"], problem["epochs"], problem["batch"]) == (5, 20, 200, 90)
    assert (problem["train_per_class"], problem["validation_per_class"], problem["size"]) == (450, 50, 32)
    steps = [problem["learning_rate"] * factor for factor in (1, *(factor for _, factor in problem["schedule"]))]
    np.testing.assert_allclose(steps, [0.1, 0.02, 0.004, 0.0008])
    assert [start for start, _ in problem["schedule"]] == [60, 120, 160]
    assert (problem["momentum"], problem["weight_decay"]) == (0.9, 5e-4)
    assert problem["selection"] == "best_validation" and problem["reported"] == "best"
    assert problem["augmentation"] == "train" and problem["measured_in"] == "eval" and problem["head"] == "grown"
    assert sum(parameter.numel() for parameter in STUDY.network(problem, 0).parameters()) == 11_224_932
    arms = STUDY.arms("paper")
    assert arms["cbp"].methods == (ContinualBackprop(1e-5, 1000, weight_sums="each_step"),)
    assert arms["shrink-and-perturb"].methods == (ShrinkAndPerturb(0.0, 1e-5),)
    assert arms["retrained"].methods == (FullReset(),) and arms["head-reset"].methods == (HardReset(),)
    assert [arms[f"cbp rate={rate}"].methods[0].replacement_rate for rate in ("0.0001", "1e-06")] == [1e-4, 1e-6]


def test_the_scale_of_the_code_differs_in_what_options_say():
    article, code = STUDY.scale("paper").problem, STUDY.scale("paper-code").problem
    assert {key: code[key] for key in article if article[key] != code[key]} == {
        "augmentation": "train_and_test",  # D1
        "measured_in": "train",  # D2
        "head": "kept",  # D5
    }
    arms = STUDY.arms("paper-code")
    assert arms["retrained"].methods == (FullReset(memory="kept"),)  # D15
    assert arms["head-reset"].methods == (HardReset(memory="kept"),)
    settings = {"replacement_rate": 1e-5, "maturity_threshold": 1000}
    assert arms["cbp as in the code"].changes == {"published_cbp": settings}  # D3, D4, D6
    assert not any(isinstance(method, ContinualBackprop) for arm in arms.values() for method in arm.methods)


def test_the_first_images_of_each_class_are_taken_and_reduced():
    problem = STUDY.scale("smoke").problem
    first, second = (STUDY.stream(problem, seed=3).task(index) for index in (0, 1))
    assert first.train.inputs.shape == (2 * 12, 3, 8, 8) and len(first.validation) == 2 * 4
    assert (first.classes, second.classes) == (2, 4) and len(second.train) == 4 * 12
    assert first.probe.shape == (2 * 12, 3, 8, 8)
    other = STUDY.stream(problem, seed=4).task(0)
    assert not torch.equal(first.train.inputs, other.train.inputs)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"tasks": 11}, "11 increments of 2 classes are 22 classes, and generated-images has 20: take fewer"),
        ({"train_per_class": 40}, "30 images, and 44 of each class are needed"),
        ({"size": 7}, "cannot be reduced to 7×7"),
    ],
)
def test_data_that_do_not_suffice_are_refused(change, text):
    with pytest.raises(DataError, match=re.escape(text)):
        STUDY.stream({**STUDY.scale("smoke").problem, **change}, 0)


def test_a_share_of_the_training_labels_is_wrong_where_that_is_asked_for():
    problem = STUDY.scale("smoke").problem
    right, wrong = (STUDY.stream({**problem, "label_noise": share}, seed=3).task(1) for share in (0.0, 0.25))
    assert torch.equal(right.train.inputs, wrong.train.inputs) and torch.equal(right.test.labels, wrong.test.labels)
    assert torch.equal(right.validation.labels, wrong.validation.labels)
    assert (right.train.labels != wrong.train.labels).sum() == 48 * 0.25 and wrong.train.labels.max() < 4


def test_no_image_set_at_hand_is_said(monkeypatch, tmp_path):
    monkeypatch.setenv("REGROW_DATA", str(tmp_path))
    with pytest.raises(DataError, match="None of these image sets is there: cifar-100, tiny-imagenet-100"):
        STUDY.specs("laptop", seeds=[0])


def test_network_is_decided_by_the_seed_and_the_global_generator_is_left_alone():
    before = torch.get_rng_state()
    first, same, other = (STUDY.network(STUDY.scale("smoke").problem, seed).stem.weight for seed in (1, 1, 2))
    assert torch.equal(first, same) and not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), before)


def rows_of(spec, tmp_path):
    rows = []
    run(RunFolder.create(tmp_path, spec), rows.append)
    return rows


def test_every_arm_runs_and_all_begin_alike(tmp_path, process_settings):
    found = {spec.method: rows_of(spec, tmp_path) for spec in STUDY.specs("smoke", seeds=[0])}
    assert list(found) == ["base", "retrained", "head-reset", "shrink-and-perturb", "cbp", "cbp as in the code"]
    for rows in found.values():
        assert [(row["task"], row["classes"]) for row in rows] == [(0, 2), (1, 4), (2, 6)]
        assert all(0 <= row["dormant"] <= 1 and 0 < row["last_rank"] <= 1 for row in rows)
        assert {name: rows[0][name] for name in ("dormant", "last_rank", "weight_magnitude")} == {
            name: found["base"][0][name] for name in ("dormant", "last_rank", "weight_magnitude")
        }
    replaced = {name: rows[-1]["replacements"] for name, rows in found.items()}
    assert replaced["cbp"] > 0 and replaced["cbp as in the code"] > 0
    assert not any(replaced[name] for name in ("base", "retrained", "head-reset", "shrink-and-perturb"))
    assert len({rows[2]["weight_magnitude"] for rows in found.values()}) == 6


def smoke(**changes):
    (spec,) = STUDY.specs("smoke", seeds=[0], methods=["base"])
    return dataclasses.replace(spec, problem={**spec.problem, **changes})


OPTIONS = {
    "augmentation": ("train_and_test", {"test_accuracy"}),  # D1
    "measured_in": ("train", {"dormant", "last_rank", "article_rank", "effective_rank", "stable_rank"}),  # D2
}


@pytest.mark.parametrize("name", OPTIONS)
def test_an_option_changes_what_it_says_and_nothing_else(name, tmp_path, process_settings):
    value, touched = OPTIONS[name]
    before, after = rows_of(smoke(), tmp_path), rows_of(smoke(**{name: value}), tmp_path)
    changed = {key for one, other in zip(before, after, strict=True) for key in one if one[key] != other[key]}
    assert changed and changed <= touched


def test_outputs_that_were_there_from_the_start_have_decayed(process_settings):
    """D5: by weight decay alone, before their classes came; grown ones begin with the law of the layer."""
    course = STUDY.course(smoke(head="kept", weight_decay=0.2))
    unused = slice(2, 6)
    first = course._head.weight[unused].norm().item()
    while course.advance().row is None:
        pass
    assert course._head.weight[unused].norm().item() < 0.8 * first


@pytest.mark.parametrize(("memory", "left"), [("kept", True), ("cleared", False)])
def test_momentum_after_early_stopping_is_that_of_the_last_epoch_or_none(memory, left, process_settings):
    """D15."""
    course = STUDY.course(smoke(memory=memory))
    while course.advance().row is None:
        pass
    assert bool(course._optimizer.state) == left


def test_grown_outputs_are_new_where_kept_ones_have_decayed(process_settings):
    """D5."""
    norms = {}
    for head in ("grown", "kept"):
        course = STUDY.course(smoke(head=head, weight_decay=0.6))
        first = course._head.weight[2:4].norm().item()
        while course.advance().row is None:
            pass
        course._begin(course._take_task())
        norms[head] = course._head.weight[2:4].norm().item() / first
    assert norms["kept"] < 0.6 * norms["grown"]


@pytest.mark.parametrize("arm", ["base", "cbp", "cbp as in the code"])
def test_a_run_goes_on_from_the_middle_of_a_task_with_the_same_bits(arm, process_settings):
    (spec,) = STUDY.specs("smoke", seeds=[0], methods=[arm])
    course, other = STUDY.course(spec), STUDY.course(spec)
    while course.advance().row is None:
        pass
    while course.state_dict()["epoch"] < 1:
        course.advance()
    saved = copy.deepcopy(course.state_dict())
    finished = list(rows_until_the_end(course, spec))
    other.load_state_dict(saved)
    assert list(rows_until_the_end(other, spec)) == finished
    assert (finished[-1]["replacements"] > 0) == (arm != "base")


def rows_until_the_end(course, spec):
    while True:
        row = course.advance().row
        if row is not None:
            yield row
            if row["task"] + 1 == spec.tasks:
                return


def test_figures_name_arms_and_published_curves_that_are_there():
    for scale, count in (("laptop", 2), ("paper", 3), ("smoke", 0), ("search", 0)):
        figures = STUDY.counterparts(scale)
        assert len(figures) == count
        for panel in (panel for figure in figures for panel in figure.panels):
            assert {*panel.arms, *filter(None, [panel.relative_to])} <= set(STUDY.arms(scale))
            assert panel.published is None or set(panel.arms) & set(published_curves(panel.published))
    assert [panel.published for figure in STUDY.counterparts("paper") for panel in figure.panels] == [
        "Fig. 2b", "Fig. 2c", "Fig. 2d", "ED 1a", None,
    ]  # fmt: skip
