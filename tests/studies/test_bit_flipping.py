import pytest
import torch
from torch import nn

from regrow.errors import ConfigError
from regrow.experiments.run import run
from regrow.experiments.store import RunFolder
from regrow.methods import methods_by_name
from regrow.studies import BitFlippingStudy


def test_the_network_and_the_stream_are_those_of_the_text():
    study = BitFlippingStudy()
    problem = study.scale("methods").problem
    layers = [module for module in study.network(problem, seed=0).modules() if isinstance(module, nn.Linear)]
    assert [tuple(layer.weight.shape) for layer in layers] == [(20, 20), (1, 20)]
    first, second = (study.stream(problem, seed=3).task(index) for index in (0, 1))
    assert first.inputs.shape == (960, 20) and first.labels.shape == (960, 1)
    slow = [task.inputs[:, :15].unique(dim=0) for task in (first, second)]
    assert [len(bits) for bits in slow] == [1, 1] and not torch.equal(*slow)


def test_the_scale_of_the_article_is_the_article_s():
    study = BitFlippingStudy()
    scale, arms = study.scale("paper"), study.arms("paper")
    assert len(scale.seeds) == 100 and scale.problem["tasks"] * scale.problem["period"] == 3_000_000
    backprop = [name for name, arm in arms.items() if "activation" in arm.changes]
    assert len(backprop) == 6 * 3 and "tanh step=0.003" in backprop
    for name, shapes in (("swish step=0.001", [(5, 20), (1, 5)]), ("linear step=0.01", [(1, 20)])):
        network = study.network({**scale.problem, **arms[name].changes}, seed=0)
        layers = [module for module in network.modules() if isinstance(module, nn.Linear)]
        assert [tuple(layer.weight.shape) for layer in layers] == shapes
    first, second = (study.stream(scale.problem, seed=3).task(index).inputs for index in (0, 1))
    assert len(first) == 10_000
    assert (first[0, :15] != second[0, :15]).sum() == 1  # one bit flips


def test_the_scale_of_the_code_differs_in_what_flips_and_in_the_target():
    study = BitFlippingStudy()
    article, code = study.scale("laptop").problem, study.scale("paper-code").problem
    assert {key for key in article if article[key] != code[key]} == {"flip", "target"}
    labels = [study.stream(problem, 0).task(0).labels for problem in (article, code)]
    assert not torch.equal(*labels)


def test_an_unknown_scale_is_said():
    with pytest.raises(ConfigError, match="The study bit-flipping has no scale 'papre'; did you mean 'paper'"):
        BitFlippingStudy().scale("papre")


def test_seed_decides_network_and_leaves_the_global_generator_alone():
    study, before = BitFlippingStudy(), torch.get_rng_state()
    first, same, other = (study.network(study.scale("smoke").problem, seed)[0].weight for seed in (1, 1, 2))
    assert torch.equal(first, same) and not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), before)


def test_every_method_runs_on_it(tmp_path, process_settings):
    specs = BitFlippingStudy().specs("smoke", seeds=[0])
    assert [spec.method for spec in specs] == [*methods_by_name()]
    for spec in specs:
        rows = []
        run(RunFolder.create(tmp_path, spec), rows.append)
        assert [row["task"] for row in rows] == [0, 1, 2, 3]
        assert all(0 < row["squared_error"] < 1e3 for row in rows), spec.method
        assert "accuracy" not in rows[0]
