import gzip

import numpy as np
import pytest
import torch
from torch import nn

from regrow.experiments.run import run
from regrow.experiments.store import RunFolder
from regrow.networks.layers.online_normalization import OnlineNormalization
from regrow.streams import sources
from regrow.studies.permuted_mnist import PermutedMNIST


@pytest.fixture
def study():
    return PermutedMNIST()


@pytest.fixture
def nothing_else(monkeypatch, tmp_path):
    """No image set but the packaged ones."""
    monkeypatch.delenv("REGROW_DATA", raising=False)
    monkeypatch.setattr(sources, "_DEBIAN", tmp_path / "none")


def idx(values):
    return bytes([0, 0, 8, values.ndim]) + b"".join(size.to_bytes(4, "big") for size in values.shape) + values.tobytes()


def fashion(folder, count=40):
    """What Debian's package installs, only smaller."""
    random = np.random.default_rng(0)
    place = folder / "fashion-mnist"
    place.mkdir(parents=True)
    images = random.integers(256, size=(count, 28, 28), dtype=np.uint8)
    for name, values in (("images-idx3", images), ("labels-idx1", np.arange(count, dtype=np.uint8) % 10)):
        (place / f"train-{name}-ubyte.gz").write_bytes(gzip.compress(idx(values)))


def test_the_scale_of_the_article_is_the_article_s(study):
    scale, arms = study.scale("paper"), study.arms("paper")
    assert len(scale.seeds) == 30
    problem = scale.problem
    assert (problem["images"], problem["tasks"], problem["learning_rate"], problem["batch"]) == (60_000, 800, 0.003, 1)
    assert {"backprop step=0.01", "backprop step=0.003", "backprop step=0.001"} <= set(arms)
    (cbp,) = arms["cbp"].methods
    assert (cbp.replacement_rate, cbp.maturity_threshold, cbp.decay_rate) == (1e-6, 100, 0.99)
    assert cbp.utility_rule == "adaptable_contribution" and cbp.budget == "carried"
    assert arms["adam"].changes == {"optimizer": "adam", "learning_rate": 1e-4}
    assert arms["dropout"].changes == {"dropout": 0.1}
    widths = [arm.changes["widths"] for arm in study.arms("paper-widths").values()]
    assert widths == [[100] * 3, [1000] * 3, [10_000] * 3]


def test_all_rates_of_change_see_as_many_examples(study, nothing_else):
    scale, arms = study.scale("paper-rates"), study.arms("paper-rates")
    assert scale.problem["every"] * scale.problem["tasks"] == 48_000_000
    changes = [scale.problem["every"] * arm.changes["stretches"] for arm in arms.values()]
    assert changes == [10_000, 100_000, 1_000_000]
    problem = {**study.settled(study.scale("smoke").problem), "every": 50, "stretches": 2}
    first, second, third = (study.stream(problem, 0).task(index).inputs for index in range(3))
    silent = [(task == 0).all(dim=0) for task in (first, second, third)]  # pixels of the border are always black
    assert len(first) == 50
    assert (silent[0] & silent[1]).sum() > (silent[0] & silent[2]).sum()


def test_the_network_is_the_one_of_the_text(study, nothing_else):
    problem = {**study.scale("smoke").problem, "widths": [8, 8], "dropout": 0.25}
    layers = list(study.network(problem, seed=0))
    assert [type(layer).__name__ for layer in layers] == ["Linear", "ReLU", "Dropout"] * 2 + ["Linear"]
    assert [tuple(layer.weight.shape) for layer in layers if isinstance(layer, nn.Linear)] == [(8, 64), (8, 8), (10, 8)]
    normal = list(study.network({**problem, "dropout": 0.0, "normalization": "online"}, seed=0))
    assert [type(layer) for layer in normal] == [nn.Linear, OnlineNormalization, nn.ReLU] * 2 + [nn.Linear]
    before = torch.get_rng_state()
    same = study.network(problem, seed=0)[0].weight
    assert torch.equal(same, layers[0].weight) and torch.equal(torch.get_rng_state(), before)


def test_it_takes_mnist_else_fashion_mnist_else_the_packaged_digits(study, nothing_else, monkeypatch, tmp_path):
    problem = study.scale("laptop").problem
    digits = study.settled(problem)
    assert (digits["data"], digits["images"]) == ("optical-digits", 1797)
    words = study.origin(digits)
    assert (
        words.startswith("1,797 images") and "optical-digits stands in for mnist and fashion-mnist, which are " in words
    )

    fashion(tmp_path / "debian")
    monkeypatch.setattr(sources, "_DEBIAN", tmp_path / "debian")
    found = study.settled(problem)
    assert (found["data"], found["images"]) == ("fashion-mnist", 40)
    assert "fashion-mnist stands in for mnist, which is " in study.origin(found)
    task = study.stream(found, seed=0).task(0)
    assert task.inputs.shape == (40, 784)

    monkeypatch.setenv("REGROW_DATA", str(tmp_path / "own"))
    fashion(tmp_path / "own")
    (tmp_path / "own" / "fashion-mnist").rename(tmp_path / "own" / "mnist")
    assert study.settled(problem)["data"] == "mnist" and "stands in" not in study.origin(study.settled(problem))


def test_the_data_that_were_found_are_in_the_spec(study, nothing_else):
    (spec,) = study.specs("laptop", seeds=[0], methods=["cbp"])
    assert spec.problem["data"] == "optical-digits"


def test_options_beyond_the_article(study, nothing_else):
    problem = study.settled(study.scale("smoke").problem)
    plain = study.stream(problem, 0).task(1)
    noisy = study.stream({**problem, "label_noise": 0.25}, 0).task(1)
    assert torch.equal(noisy.inputs, plain.inputs) and (noisy.labels != plain.labels).sum() == 50
    gradual = study.stream({**problem, "transition": 100}, 0).task(1)
    assert torch.equal(gradual.inputs[100:], plain.inputs[100:])
    moved = (gradual.inputs[:100] != plain.inputs[:100]).any(dim=1)
    assert moved[:30].sum() > moved[70:].sum() > 0


def test_every_arm_runs(study, tmp_path, nothing_else, process_settings):
    arms = {}
    for spec in study.specs("smoke", seeds=[0]):
        rows = []
        run(RunFolder.create(tmp_path, spec), rows.append)
        assert [row["task"] for row in rows] == [0, 1, 2]
        assert all(0 <= row["accuracy"] <= 1 and 0 <= row["dormant"] <= 1 for row in rows)
        arms[spec.method] = [row["weight_magnitude"] for row in rows]
    assert {"cbp", "l2", "shrink-and-perturb", "dropout", "online normalization", "adam"} <= set(arms)
    assert len({tuple(curve) for curve in arms.values()}) == len(arms)


def test_settings_of_others(study, nothing_else):
    kumar, arms = study.scale("kumar-2023").problem, study.arms("kumar-2023")
    assert kumar["images"] // kumar["batch"] == 625 and kumar["tasks"] == 500
    assert {"adam step=0.0001", "sgd step=0.01", "l2-init strength=0.01", "cbp rate=0.1"} <= set(arms)
    found = study.settled(kumar)
    layers = [layer for layer in study.network(found, 0) if isinstance(layer, nn.Linear)]
    assert [layer.out_features for layer in layers] == [100, 100, 10]
    assert 0.9 / 64**0.5 < layers[0].weight.abs().max() < 1 / 64**0.5  # torch's own law
    inputs = study.stream(found, 0).task(0).inputs
    assert inputs.min() == -1 and inputs.max() == 1
    hernandez = study.scale("hernandez-2025").problem
    assert hernandez["images"] // hernandez["batch"] == 2000 and hernandez["tasks"] == 1000


def test_figures_of_the_article_are_declared(study):
    for scale in study.scales:
        figures = study.counterparts(scale)
        assert bool(figures) == (scale.partition("-")[0] in ("laptop", "paper") and scale != "laptop-normalization"), (
            scale
        )
    (of_steps, of_methods) = study.counterparts("paper")
    assert len(of_steps.panels) == len(of_methods.panels) == 4
    assert of_methods.panels[0].arms[:2] == ("backprop step=0.003", "cbp")
    (rates,) = study.counterparts("paper-rates")
    assert rates.panels[0].bin == 100  # a million examples
