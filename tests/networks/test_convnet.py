import torch

from regrow.networks.convnet import ConvNet


def test_the_article_s_network() -> None:
    network = ConvNet()
    assert sum(parameter.numel() for parameter in network.parameters()) == 177_218
    assert network(torch.zeros(3, 3, 32, 32)).shape == (3, 2)


def test_small_variant() -> None:
    network = ConvNet(5, channels=(4, 6), kernels=(3, 3), widths=(7,), size=12, colours=1)
    assert network(torch.zeros(2, 1, 12, 12)).shape == (2, 5)
