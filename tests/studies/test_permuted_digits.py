import math

import pytest
import torch
from torch import nn

from regrow.studies.permuted_digits import PermutedDigits


@pytest.fixture
def study():
    return PermutedDigits()


def test_the_network_is_the_one_of_the_text(study):
    network = study.network(study.scale("laptop").problem, seed=0)
    layers = [module for module in network.modules() if isinstance(module, nn.Linear)]
    assert [tuple(layer.weight.shape) for layer in layers] == [(64, 64), (64, 64), (64, 64), (10, 64)]
    for layer, most in zip(layers, (6, 6, 6, 3), strict=True):
        bound = math.sqrt(most / 64)
        assert 0.95 * bound < layer.weight.abs().max() <= bound
        assert not layer.bias.any()


def test_seed_decides_network_and_stream(study):
    problem = study.scale("smoke").problem
    first, same, other = (study.network(problem, seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(first[name], same[name]) for name in first)
    assert not any(torch.equal(first[name], other[name]) for name in first if "weight" in name)
    streams = [study.stream(problem, seed).task(2) for seed in (1, 1, 2)]
    assert torch.equal(streams[0].inputs, streams[1].inputs)
    assert not torch.equal(streams[0].inputs, streams[2].inputs)


def test_making_a_network_leaves_the_global_generator_alone(study):
    before = torch.get_rng_state()
    study.network(study.scale("smoke").problem, seed=1)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_task_shows_every_digit_three_times(study):
    task = study.stream(study.scale("laptop").problem, seed=0).task(0)
    assert len(task) == 3 * 1797
    assert task.inputs.shape == (5391, 64)


@pytest.mark.parametrize("scale", ["smoke", "laptop"])
def test_the_control_replaces_at_the_rate_of_cbp(study, scale):
    arms = study.arms(scale)
    (cbp,), (control,) = arms["cbp"].methods, arms["random-replacement"].methods
    assert (cbp.replacement_rate, cbp.maturity_threshold) == (control.replacement_rate, control.maturity_threshold)
    assert cbp.weight_sums == "each_step"
