import math

import torch
from torch import nn

from regrow.networks.resnet import ResNet, resnet18


def test_the_article_s_network() -> None:
    network = resnet18()
    convolutions = {name: module for name, module in network.named_modules() if isinstance(module, nn.Conv2d)}
    on_main_path = [name for name in convolutions if "shortcut" not in name]
    assert len(on_main_path) == 17
    assert len(convolutions) == 20
    assert all(module.bias is not None for module in convolutions.values())
    # torchvision's ResNet-18 for 100 classes, its stem 3×3, biases in its 20 convolutions.
    assert sum(parameter.numel() for parameter in network.parameters()) == 11_220_132 + 4_800


def test_units_of_the_main_path_are_those_of_the_article() -> None:
    network = resnet18()
    path = network.main_path()
    assert sum(conv.out_channels for conv, _ in path) == 3904
    assert all(conv.out_channels == norm.num_features for conv, norm in path)
    assert path[0] == (network.stem, network.norm)
    assert path[-1] == (network.stages[3][1].conv2, network.stages[3][1].norm2)


def test_initial_law() -> None:
    torch.manual_seed(0)
    network = resnet18()
    weight = network.stages[3][1].conv2.weight
    assert math.isclose(weight.std().item(), math.sqrt(2 / (512 * 9)), rel_tol=0.01)
    assert math.isclose(network.output.weight.std().item(), math.sqrt(1 / 512), rel_tol=0.02)
    assert not bool(network.output.bias.any())


def test_small_variant_halves_the_image_at_each_stage_but_the_first() -> None:
    network = ResNet(4, channels=(6, 8), blocks=(1, 2), colours=1)
    assert network.stages(network.stem(torch.zeros(2, 1, 8, 8))).shape == (2, 8, 4, 4)
    assert network(torch.zeros(2, 1, 8, 8)).shape == (2, 4)


def test_activations_lead_from_the_images_to_the_logits() -> None:
    torch.manual_seed(0)
    network = ResNet(4, channels=(6, 8), blocks=(1, 2)).eval()
    images = torch.randn(3, 3, 8, 8)
    layers = network.activations(images)
    assert [layer.shape[1] for layer in layers] == [conv.out_channels for conv, _ in network.main_path()]
    assert all(bool((layer >= 0).all()) for layer in layers)
    seen = {}
    for name, (conv, _) in enumerate(network.main_path()):
        conv.register_forward_pre_hook(lambda module, inputs, name=name: seen.update({name: inputs[0]}))
    logits = network(images)
    assert all(torch.equal(layers[name - 1], seen[name]) for name in range(1, len(layers)))
    assert torch.equal(network.output(layers[-1]), logits)
