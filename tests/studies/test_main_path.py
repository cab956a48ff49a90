import torch
from torch import nn

from regrow.networks.resnet import ResNet
from regrow.studies.main_path import main_path_symptoms


def network() -> ResNet:
    torch.manual_seed(0)
    return ResNet(5, channels=(4, 6), blocks=(1, 2))


UNITS = 4 + 2 * 4 + 4 * 6


def silence(norm: nn.BatchNorm2d, channels: int) -> None:
    """Make the first channels of a norm negative everywhere."""
    with torch.no_grad():
        norm.weight[:channels] = 0
        norm.bias[:channels] = -1


def test_counted_are_the_units_of_each_convolution_of_the_main_path() -> None:
    net, images = network(), torch.randn(20, 3, 8, 8)
    assert main_path_symptoms(net, images)["dormant"] == 0
    silence(net.stages[0][0].norm1, 3)
    assert abs(main_path_symptoms(net, images)["dormant"] - 3 / UNITS) < 1e-6


def test_a_unit_of_the_stream_counts_after_each_block() -> None:
    net, images = network(), torch.randn(20, 3, 8, 8)
    silence(net.stages[1][0].norm2, 2)
    silence(net.stages[1][0].shortcut[1], 2)
    silence(net.stages[1][1].norm2, 2)  # the second block adds nothing to what came in, so that both are silent
    assert abs(main_path_symptoms(net, images)["dormant"] - 4 / UNITS) < 1e-6


def test_less_than_one_percent_of_the_places_is_dormant() -> None:
    net = network()
    net.stages[0][0].conv1 = nn.Conv2d(4, 4, 1, bias=False)
    net.stages[0][0].norm1 = nn.Identity()
    net.stages[0][0].conv1.forward = lambda value: maps  # type: ignore[method-assign]
    maps = torch.zeros(1, 4, 20, 10)
    maps[0, :3, 0, 0] = 1  # 1 of 200 places
    maps[0, 1, 0, 1] = 1  # 2 of 200 places: one percent is not less than one percent
    maps[0, 2, :, :] = 1
    net.stages[0][0].after = lambda value, inner: value  # type: ignore[method-assign]
    found = main_path_symptoms(net, torch.randn(1, 3, 20, 10))
    assert round(found["dormant"] * UNITS) == 2


def test_ranks_are_of_the_last_features() -> None:
    net, images = network(), torch.randn(30, 3, 8, 8)
    found = main_path_symptoms(net, images)
    assert found["last_rank"] == found["article_rank"] / 6 and found["article_rank"] > 1
    with torch.no_grad():
        net.stages[1][1].norm2.weight.zero_()
        net.stages[1][1].norm2.bias.fill_(100)  # all features nearly alike
    assert main_path_symptoms(net, images)["article_rank"] == 1


def test_magnitude_is_over_all_parameters() -> None:
    net = network()
    every = torch.cat([parameter.detach().flatten() for parameter in net.parameters()])
    found = main_path_symptoms(net, torch.randn(20, 3, 8, 8))["weight_magnitude"]
    assert abs(found - every.abs().mean().item()) < 1e-6


def test_train_mode_takes_the_statistics_of_the_images_and_changes_nothing() -> None:
    """D2: the published code measures with the statistics of the probe images."""
    net, images = network().eval(), torch.randn(30, 3, 8, 8)
    with torch.no_grad():
        net.norm.running_mean.fill_(50)  # so that nothing fires in eval mode
    before = {name: value.clone() for name, value in net.state_dict().items()}
    assert main_path_symptoms(net, images)["dormant"] >= 4 / UNITS
    assert main_path_symptoms(net, images, "train")["dormant"] == 0
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert not net.training
