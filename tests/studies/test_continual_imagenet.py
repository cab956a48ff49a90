from contextlib import suppress

import numpy as np
import pytest
import torch
from torch import nn

import regrow.experiments.run as run_module
from regrow.errors import DataError
from regrow.experiments.course import Pace
from regrow.experiments.results import read_rows
from regrow.experiments.run import run
from regrow.experiments.store import RunFolder
from regrow.streams import ImageSet, sources
from regrow.studies import ContinualImageNet


@pytest.fixture
def study():
    return ContinualImageNet()


def test_the_scale_of_the_article_is_the_article_s(study):
    scale, arms = study.scale("paper"), study.arms("paper")
    problem = scale.problem
    assert (len(scale.seeds), problem["tasks"], problem["epochs"], problem["batch"]) == (30, 5000, 250, 100)
    assert (problem["classes"], problem["train_per_class"], problem["test_per_class"]) == (1000, 600, 100)
    assert (problem["momentum"], problem["head"]) == (0.9, "zeroed")
    network = study.network(problem, seed=0)
    assert sum(parameter.numel() for parameter in network.parameters()) == 177_218
    bounds = [1 / (3 * 25) ** 0.5, 1 / (32 * 9) ** 0.5, 1 / (64 * 9) ** 0.5, 1 / 512**0.5, 1 / 128**0.5, 1 / 128**0.5]
    layers = [module for module in network.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    for layer, bound in zip(layers, bounds, strict=True):
        assert 0.9 * bound < layer.weight.abs().max() <= bound and layer.bias.abs().max() <= bound
    settings = {
        name: (arm.changes.get("learning_rate", 0.01), arm.changes.get("weight_decay", 0.0))
        for name, arm in arms.items()
    }
    assert settings["l2"] == (0.03, 3e-6) and settings["shrink-and-perturb"] == (0.01, 1e-5)
    assert {settings[f"backprop step={step}"] for step in (0.01, 0.001, 0.0001)} == {(0.01, 0), (0.001, 0), (0.0001, 0)}
    (noise,), (cbp,) = arms["shrink-and-perturb"].methods, arms["cbp"].methods
    assert (noise.weight_decay, noise.noise_std, noise.period) == (0.0, 1e-5, 1)
    assert (cbp.replacement_rate, cbp.maturity_threshold, cbp.decay_rate) == (3e-4, 100, 0.99)
    assert (cbp.utility_rule, cbp.budget, cbp.weight_sums) == ("contribution", "carried", "each_step")


def test_where_article_and_code_differ_there_is_an_arm_for_each(study):
    ((article,), (code,)) = (study.arms("paper-code")[name].methods for name in ("cbp", "cbp as in the code"))
    assert (code.utility_rule, code.budget) == ("adaptable_contribution", "carried_of_all")
    assert (article,) == study.arms("paper")["cbp"].methods
    (as_std,), (as_variance,) = (
        study.arms("paper")[name].methods for name in ("shrink-and-perturb", "shrink-and-perturb variance")
    )
    assert as_variance.noise_std**2 == pytest.approx(as_std.noise_std)


def test_the_linear_baseline_is_one_layer_that_begins_anew(study):
    arm = study.arms("paper")["linear"]
    network = study.network({**study.scale("paper").problem, **arm.changes}, seed=0)
    assert [tuple(parameter.shape) for parameter in network.parameters()] == [(2, 3072), (2,)]
    assert [method.name for method in arm.methods] == ["full-reset"]


def test_the_order_of_classes_is_that_of_the_seed(study):
    problem = study.scale("smoke").problem
    first, same, other = (study.stream(problem, seed) for seed in (1, 1, 2))
    assert [first.pair(task) for task in range(25)] == [same.pair(task) for task in range(25)]
    assert [first.pair(task) for task in range(25)] != [other.pair(task) for task in range(25)]
    assert sorted(sum((first.pair(task) for task in range(10)), ())) == list(range(20))
    task = first.task(0)
    assert (len(task.train), len(task.test), task.classes) == (40, 20, 2)


def test_pixels_are_normalised_over_all_images_unless_they_are_not_to_be(study):
    problem = study.scale("smoke").problem
    inputs = torch.cat([study.stream(problem, 0).task(index).train.inputs for index in range(10)])
    assert inputs.mean(dim=(0, 2, 3)).abs().max() < 0.02
    assert (inputs.std(dim=(0, 2, 3)) - 1).abs().max() < 0.02
    raw = study.stream({**problem, "normalised": False}, 0).task(0).train.inputs
    assert 0 <= raw.min() and 0.9 < raw.max() <= 1


def test_labels_may_be_wrong_and_tasks_may_be_mixed(study):
    problem = study.scale("smoke").problem
    plain, noisy, mixed = (
        study.stream({**problem, **changes}, 0) for changes in ({}, {"label_noise": 0.25}, {"mixed_tasks": 3})
    )
    assert (noisy.task(1).train.labels != plain.task(1).train.labels).sum() == 10
    assert torch.equal(noisy.task(1).test.labels, plain.task(1).test.labels)
    assert torch.equal(mixed.task(4).train.inputs, plain.task(1).train.inputs)
    between = mixed.task(1).train.inputs
    assert (between != plain.task(0).train.inputs).flatten(1).any(dim=1).sum() == 10


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"classes": 21},
            "21 classes are needed, but these are 600 images of 32×32 pixels in colour, 20 classes, from",
        ),
        ({"classes": 21}, "use other data, or fewer classes (--scale ...+classes=20)."),
        ({"train_per_class": 25}, "Class 0 has 30 images, and 35 of each class are needed"),
    ],
)
def test_too_few_classes_or_images_are_told(changes, message, study):
    with pytest.raises(DataError) as caught:
        study.stream({**study.scale("smoke").problem, **changes}, 0)
    assert message in str(caught.value)


def test_grey_images_are_refused(study, monkeypatch):
    grey = ImageSet(np.zeros((4, 32, 32), np.uint8), np.arange(4) % 2, "4 images of 32×32 pixels")
    monkeypatch.setattr(sources, "load", lambda *arguments, **keywords: grey)
    with pytest.raises(DataError) as caught:
        study.stream(study.scale("smoke").problem, 0)
    assert str(caught.value) == "4 images of 32×32 pixels are grey, and the network takes colours: use other data."


def test_fewer_classes_may_be_used(study):
    stream = study.stream({**study.scale("smoke").problem, "classes": 4}, 0)
    assert {name for task in range(4) for name in stream.pair(task)} == {0, 1, 2, 3}


def test_every_arm_runs(study, tmp_path, process_settings):
    specs = study.specs("smoke", seeds=[0])
    assert [*(spec.method for spec in specs), "cbp rate=0.0003"] == list(study.arms("laptop"))
    for spec in specs:
        rows = []
        run(RunFolder.create(tmp_path, spec), rows.append)
        assert [row["task"] for row in rows] == [0, 1, 2]
        assert (rows[-1]["replacements"] > 0) == (spec.method == "cbp")
        if spec.method in ("linear", "backprop step=0.05"):
            assert max(row["train_accuracy"] for row in rows) > 0.6


def test_killed_in_a_task_it_ends_with_the_same_bytes(study, tmp_path, process_settings, monkeypatch):
    (spec,) = study.specs("smoke", seeds=[0], methods=["cbp"])
    whole = RunFolder.create(tmp_path / "whole", spec)
    run(whole)
    monkeypatch.setattr(Pace, "passed", lambda self, amount, seconds: setattr(self, "amount", 20))
    monkeypatch.setattr(run_module, "_checkpoint_due", lambda done, passed, cost: True)
    folder, places = RunFolder.create(tmp_path / "pieces", spec), []
    original = RunFolder.save

    def save(self, done, state):
        original(self, done, state)
        places.append((done, state["epoch"], state["position"]))
        if len(places) % 13 == 0:
            raise KeyboardInterrupt  # and taken up again, from that very checkpoint

    monkeypatch.setattr(RunFolder, "save", save)
    for _ in range(20):
        with suppress(KeyboardInterrupt):
            run(folder)
            break
    assert {(0, 3, 20), (1, 0, 0), (2, 7, 20)} <= set(places)
    assert read_rows(folder).equals(read_rows(whole))
    for name in ("curve.parquet", "checkpoint.safetensors"):
        assert (folder.path / name).read_bytes() == (whole.path / name).read_bytes()


@pytest.mark.parametrize("scale", ["laptop", "paper"])
def test_figures_of_the_article_are_of_arms_that_there_are(study, scale):
    first, second = study.counterparts(scale)
    assert (first.figure, second.figure) == ("Fig. 1b", "Fig. 1c")
    for panel in (*first.panels, *second.panels):
        assert set(panel.arms) <= set(study.arms(scale))
        assert (panel.published is not None) == (scale == "paper")
    assert study.counterparts("smoke") == ()
