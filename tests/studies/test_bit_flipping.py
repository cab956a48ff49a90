import pytest
import torch
from torch import nn

from regrow.errors import ConfigError
from regrow.experiments.run import run
from regrow.experiments.store import RunFolder
from regrow.methods import Method
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


def test_what_has_not_been_built_is_said():
    with pytest.raises(ConfigError, match="bit-flipping has no scale 'paper': only the comparison of methods has been"):
        BitFlippingStudy().scale("paper")


def test_seed_decides_network_and_leaves_the_global_generator_alone():
    study, before = BitFlippingStudy(), torch.get_rng_state()
    first, same, other = (study.network(study.scale("smoke").problem, seed)[0].weight for seed in (1, 1, 2))
    assert torch.equal(first, same) and not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.fixture
def process_settings():
    """What a run sets in its process, put back."""
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)
    torch.set_flush_denormal(False)


def test_every_method_runs_on_it(tmp_path, process_settings):
    specs = BitFlippingStudy().specs("smoke", seeds=[0])
    assert [spec.method for spec in specs] == sorted(Method.registry)
    for spec in specs:
        rows = []
        run(RunFolder.create(tmp_path, spec), rows.append)
        assert [row["task"] for row in rows] == [0, 1, 2, 3]
        assert all(0 < row["squared_error"] < 1e3 for row in rows), spec.method
        assert "accuracy" not in rows[0]
