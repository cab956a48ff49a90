import torch

from benchmarks.convolution import network_of, plain_loop, study_loop, usual_order
from regrow.methods import ContinualBackprop

PROBLEM = {
    "network": "ConvNet",
    "classes": 2,
    "batch": 4,
    "steps": 2,
    "learning_rate": 0.01,
    "momentum": 0.9,
    "epochs": 1,
    "measured_images": 0,
    "channels_last": True,
}


def test_both_loops_learn_the_same_network() -> None:
    torch.manual_seed(0)
    network = network_of(PROBLEM)
    usual = usual_order(network)
    assert [type(layer).__name__ for layer in usual][:3] == ["Conv2d", "ReLU", "MaxPool2d"]
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(network(images), usual(images))
    for learn in (plain_loop(PROBLEM), study_loop(PROBLEM, ContinualBackprop(0.1, 1))):
        learn()
        learn()
