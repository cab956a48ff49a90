"""Steps on images: [batch, channel, height, width]."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.units.grammar.program import Choices, Network, Run, kind


@kind("images")
def convolution(net: Network, width: int, choose: Choices) -> Run:
    size, after = choose(3, 1), choose(4, 3, 6)
    layer = net.keep(nn.Conv2d(width, after, size, padding="same", dilation=choose(1, 2), bias=choose(True, False)))
    return lambda x, y: layer(x)


@kind("images")
def grouped(net: Network, width: int, choose: Choices) -> Run | None:
    if width % 2:
        return None
    layer = net.keep(nn.Conv2d(width, choose(4, 6, 2), choose(1, 3), padding="same", groups=2))
    return lambda x, y: layer(x)


@kind("images")
def depthwise(net: Network, width: int, choose: Choices) -> Run | None:
    times = choose(1, 2) if width <= 6 else 1
    layer = net.keep(nn.Conv2d(width, times * width, 3, padding=1, groups=width))
    return lambda x, y: layer(x)


@kind("images")
def separable(net: Network, width: int, choose: Choices) -> Run:
    layer = net.keep(nn.Conv2d(width, width, 3, padding=1, groups=width, bias=False))
    point = net.layer(width, 4)
    return lambda x, y: point(F.relu(layer(x)))


@kind("images")
def transposed(net: Network, width: int, choose: Choices) -> Run:
    groups = choose(1, 2, width) if width % 2 == 0 else choose(1, width)
    after = groups * choose(1, 2) if groups > 1 else choose(4, 3)
    layer = net.keep(nn.ConvTranspose2d(width, min(after, 12), 3, padding=1, groups=groups if after <= 12 else 1))
    return lambda x, y: layer(x)


@kind("images")
def down_and_up(net: Network, width: int, choose: Choices) -> Run:
    """Half the size and back, as a U-Net does."""
    down = net.keep(nn.Conv2d(width, 5, 3, stride=2, padding=1))
    up = net.keep(nn.ConvTranspose2d(5, 4, 2, stride=2))
    plain = net.layer(5, 4)
    run = choose(
        lambda x: up(F.relu(down(x))),
        lambda x: F.interpolate(plain(F.relu(down(x))), scale_factor=2, mode="nearest"),
        lambda x: F.interpolate(plain(down(x)), size=(4, 4), mode="bilinear", align_corners=False),
        lambda x: F.interpolate(down(x), scale_factor=2, mode="bicubic"),
    )
    return lambda x, y: run(x)


@kind("images")
def shuffle(net: Network, width: int, choose: Choices) -> Run:
    made = net.layer(width, 8)
    layer = net.layer(4 * width if width <= 4 else width, 4)
    run = choose(
        lambda x: F.pixel_shuffle(made(F.avg_pool2d(x, 2)), 2),
        lambda x: F.pixel_unshuffle(x.repeat_interleave(2, 2).repeat_interleave(2, 3), 2) if width <= 4 else x,
        lambda x: F.interpolate(layer(F.pixel_unshuffle(x, 2)), scale_factor=2) if width <= 4 else layer(x),
        lambda x: F.channel_shuffle(x, 2) if width % 2 == 0 else x,
    )
    return lambda x, y: run(x)


@kind("images")
def pool(net: Network, width: int, choose: Choices) -> Run:
    run = choose(
        lambda x: F.max_pool2d(x, 3, 1, 1),
        lambda x: F.avg_pool2d(x, 3, 1, 1),
        lambda x: F.adaptive_avg_pool2d(x, 1).expand_as(x),
        lambda x: F.interpolate(F.adaptive_max_pool2d(x, 2), scale_factor=2),
        lambda x: F.max_unpool2d(*F.max_pool2d(x, 2, return_indices=True), 2),
        lambda x: F.avg_pool2d(F.pad(x, (1, 1, 1, 1), mode="reflect"), 3, 1),
    )
    return lambda x, y: run(x)


@kind("images")
def squeeze(net: Network, width: int, choose: Choices) -> Run:
    """Squeeze and excitation."""
    inner, outer = net.layer(width, 3), net.layer(3, width)
    return lambda x, y: x * torch.sigmoid(outer(F.relu(inner(y.mean((2, 3), keepdim=True)))))


@kind("images")
def group_norm(net: Network, width: int, choose: Choices) -> Run:
    groups = choose(width, 1, 2) if width % 2 == 0 else choose(width, 1)
    norm = net.keep(nn.GroupNorm(groups, width, affine=choose(True, True, False)))
    return lambda x, y: norm(x)


@kind("images")
def instance_norm(net: Network, width: int, choose: Choices) -> Run:
    norm = net.keep(nn.InstanceNorm2d(width, affine=choose(True, False), track_running_stats=choose(False, True)))
    return lambda x, y: norm(x)


@kind("images")
def drop_channels(net: Network, width: int, choose: Choices) -> Run:
    return lambda x, y: F.dropout2d(x, 0.3, net.training)


@kind("images")
def non_local(net: Network, width: int, choose: Choices) -> Run:
    """Attention of places to places."""
    query, key, value = net.layer(width, 2), net.layer(width, 2), net.layer(width, 4)

    def run(x: Tensor, y: Tensor) -> Tensor:
        scores = query(x).flatten(2).mT @ key(y).flatten(2)
        return (value(y).flatten(2) @ scores.softmax(-1).mT).view(len(x), 4, 4, 4)

    return run


@kind("images")
def places(net: Network, width: int, choose: Choices) -> Run:
    """Learned maps, for all channels or each."""
    weight = net.parameter(*choose((width, 4, 4), (4, 4), (1, 4, 4)))
    run = choose(torch.add, torch.mul)
    return lambda x, y: run(x, weight)


@kind("images")
def along_places(net: Network, width: int, choose: Choices) -> Run:
    mixer = net.keep(nn.Linear(4, 4))
    run = choose(
        lambda x: mixer(x),
        lambda x: x.softmax(-1),
        lambda x: x.flip(-1).transpose(2, 3),
        lambda x: torch.cat([x[:, :, 1:], torch.zeros_like(x[:, :, :1])], 2),
        lambda x: x - x.mean((2, 3), keepdim=True),
    )
    return lambda x, y: run(x)


@kind("images")
def volume(net: Network, width: int, choose: Choices) -> Run:
    """Channels as depth, or the height as batch, in other convolutions."""
    deep, flat = (
        net.keep(nn.Conv3d(width, 4, (1, 3, 3), padding=(0, 1, 1))),
        net.keep(nn.Conv1d(width, 4, 3, padding=1)),
    )
    run = choose(
        lambda x: deep(x[:, :, None])[:, :, 0],
        lambda x: flat(x.movedim(2, 1).flatten(0, 1)).unflatten(0, (len(x), 4)).movedim(1, 2),
        lambda x: flat(x.flatten(2)).unflatten(2, (4, 4)),
    )
    return lambda x, y: run(x)


@kind("images")
def patches(net: Network, width: int, choose: Choices) -> Run:
    """Patches as vectors for a linear layer."""
    layer = net.keep(nn.Linear(9 * width, 4))
    return lambda x, y: layer(F.unfold(x, 3, padding=1).mT).mT.unflatten(2, (4, 4))
