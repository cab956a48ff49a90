import torch
from torch import nn

from regrow.networks.convnet import ConvNet


def test_the_article_s_network() -> None:
    network = ConvNet()
    assert sum(parameter.numel() for parameter in network.parameters()) == 177_218
    assert network(torch.zeros(3, 3, 32, 32)).shape == (3, 2)


def test_small_variant() -> None:
    network = ConvNet(5, channels=(4, 6), kernels=(3, 3), widths=(7,), size=12, colours=1)
    assert network(torch.zeros(2, 1, 12, 12)).shape == (2, 5)


def test_without_hidden_layers_it_is_a_linear_classifier() -> None:
    network = ConvNet(channels=(), kernels=(), widths=())
    assert [tuple(parameter.shape) for parameter in network.parameters()] == [(2, 3072), (2,)]


def test_pooling_first_changes_no_bit_of_outputs_and_gradients() -> None:
    torch.manual_seed(0)
    network = ConvNet(channels=(4, 6, 8))
    layers = list(network)
    for place in (1, 4, 7):
        layers[place], layers[place + 1] = layers[place + 1], layers[place]
    usual = nn.Sequential(*layers)
    assert [type(layer).__name__ for layer in usual][:9] == ["Conv2d", "ReLU", "MaxPool2d"] * 3
    # Squares of one colour, so that equal values compete, as they do in flat parts of real images.
    images = torch.randn(16, 3, 8, 8).repeat_interleave(4, dim=2).repeat_interleave(4, dim=3)
    found = []
    for each in (network, usual):
        network.zero_grad()
        outputs = each(images)
        outputs.square().sum().backward()
        found.append([outputs, *(parameter.grad for parameter in network.parameters())])
    assert all(torch.equal(*pair) for pair in zip(*found, strict=True))
