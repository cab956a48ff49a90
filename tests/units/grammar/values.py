"""Steps of all families that combine, move and rescale values."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.units.grammar.program import Choices, Network, Run, kind


@kind()
def activation(net: Network, width: int, choose: Choices) -> Run:
    run = choose(F.relu, torch.tanh, F.gelu, F.silu, F.elu, F.hardswish, F.leaky_relu, F.softplus, torch.abs, torch.sin)
    return lambda x, y: run(x)


@kind()
def activation_in_place(net: Network, width: int, choose: Choices) -> Run:
    """On the value itself, so that whatever else reads it sees the change."""
    run = choose(torch.relu_, torch.tanh_, lambda x: x.clamp_(-1, 1), lambda x: x.mul_(2.0), lambda x: x.add_(1.0))
    return lambda x, y: run(x.clone() if x._is_view() else x)


@kind()
def add(net: Network, width: int, choose: Choices) -> Run:
    run = choose(torch.add, torch.sub, torch.maximum, lambda x, y: torch.lerp(x, y, 0.3), lambda x, y: x.addcmul(x, y))
    return lambda x, y: run(x, y)


@kind()
def add_in_place(net: Network, width: int, choose: Choices) -> Run:
    return lambda x, y: (x.clone() if x._is_view() else x).add_(y.clone())


@kind()
def gate(net: Network, width: int, choose: Choices) -> Run:
    run = choose(torch.sigmoid, torch.tanh, lambda x: x, F.softplus)
    return lambda x, y: run(x) * y


@kind()
def glu(net: Network, width: int, choose: Choices) -> Run | None:
    return (lambda x, y: F.glu(x, net.axis)) if width % 2 == 0 else None


@kind()
def cat(net: Network, width: int, choose: Choices) -> Run | None:
    run = choose(lambda x, y: (x, y), lambda x, y: (x.relu(), (-x).relu()), lambda x, y: (y, torch.ones_like(x)))
    return (lambda x, y: torch.cat(run(x, y), net.axis)) if width <= 8 else None


@kind()
def stack(net: Network, width: int, choose: Choices) -> Run:
    way = choose("mean", "interleave", "max")

    def run(x: Tensor, y: Tensor) -> Tensor:
        both = torch.stack([net.last(x), net.last(y)], -1)
        if way == "interleave":
            return net.back(both.flatten(-2)[..., :width])
        return net.back(both.mean(-1) if way == "mean" else both.amax(-1))

    return run


@kind()
def part(net: Network, width: int, choose: Choices) -> Run:
    half = max(1, width // 2)
    start = choose(0, width - half)
    return lambda x, y: net.part(x, start, half)


@kind()
def swap(net: Network, width: int, choose: Choices) -> Run:
    def run(x: Tensor, y: Tensor) -> Tensor:
        first, *rest = x.chunk(2, net.axis) if way == "chunk" else x.unbind(net.axis)
        return torch.cat([*rest, first], net.axis) if way == "chunk" else torch.stack([*rest, first], net.axis)

    way = choose("chunk", "unbind")
    return run


@kind()
def flip(net: Network, width: int, choose: Choices) -> Run:
    run = choose(lambda x: x.flip(net.axis), lambda x: x.roll(1, net.axis))
    return lambda x, y: run(x)


@kind()
def rows(net: Network, width: int, choose: Choices) -> Run:
    order = choose(torch.randperm(width), torch.randint(width, (width,)))
    run = choose(
        lambda x: x.index_select(net.axis, order),
        lambda x: net.back(net.last(x)[..., order]),
        lambda x: net.last(x).gather(-1, order.expand(net.last(x).shape)).movedim(-1, net.axis),
    )
    return lambda x, y: run(x)


@kind()
def maxout(net: Network, width: int, choose: Choices) -> Run | None:
    run = choose(lambda x: x.amax(-1), lambda x: x.sum(-1), lambda x: x.max(-1)[0], lambda x: x.mean(-1))
    return (lambda x, y: net.back(run(net.last(x).unflatten(-1, (-1, 2))))) if width % 2 == 0 else None


@kind()
def detour(net: Network, width: int, choose: Choices) -> Run:
    run = choose(
        lambda x: x.movedim(net.axis, 0).contiguous().movedim(0, net.axis),
        lambda x: net.back(net.last(x).reshape(-1, width).view(net.last(x).shape)),
        lambda x: x.transpose(0, net.axis).clone().transpose(0, net.axis),
        lambda x: F.pad(net.last(x), (1, 2))[..., 1:-2].movedim(-1, net.axis),
    )
    return lambda x, y: run(x)


@kind()
def fold(net: Network, width: int, choose: Choices) -> Run:
    """Reshaped across units."""
    return lambda x, y: torch.cat(x.flatten(1).reshape(2, -1).chunk(2, 1)).reshape(x.shape)


@kind()
def repeat(net: Network, width: int, choose: Choices) -> Run | None:
    run = choose(
        lambda x: net.last(x).repeat_interleave(2, -1),
        lambda x: net.last(x).repeat(*[1] * (x.dim() - 1), 2),
        lambda x: net.last(x)[..., None].expand(*net.last(x).shape, 2).flatten(-2),
    )
    return (lambda x, y: net.back(run(x))) if width <= 6 else None


@kind()
def roll_batch(net: Network, width: int, choose: Choices) -> Run:
    return lambda x, y: x.roll(1, 0) + y


@kind()
def write(net: Network, width: int, choose: Choices) -> Run:
    fill = choose(0.0, 1.0)

    def run(x: Tensor, y: Tensor) -> Tensor:
        value = torch.zeros_like(x)
        net.part(value, 0, width - 1).copy_(net.part(y, 1, width - 1))
        net.part(value, width - 1, 1).fill_(fill)
        return value

    return run


@kind()
def write_part(net: Network, width: int, choose: Choices) -> Run:
    """In place on a part of a copy, of which a view was taken before."""

    def run(x: Tensor, y: Tensor) -> Tensor:
        value = x.clone()
        view = net.last(value)
        view[..., 1:].mul_(2.0)
        net.part(value, 0, 1).add_(net.part(y, width - 1, 1))
        return net.back(view)

    return run


@kind()
def write_base(net: Network, width: int, choose: Choices) -> Run:
    """In place on a value of which another step holds a view."""

    def run(x: Tensor, y: Tensor) -> Tensor:
        value = x.clone()
        view = net.part(value, 0, max(1, width // 2))
        value.mul_(y)
        return view

    return run


@kind()
def choice(net: Network, width: int, choose: Choices) -> Run:
    """Elements by a condition on values."""
    run = choose(
        lambda x, y: torch.where(x > 0, x, y),
        lambda x, y: x.masked_fill(y > 0, 0.5),
        lambda x, y: torch.where(net.part(y, 0, 1) > 0, x, -x),
        lambda x, y: x * (y > 0),
        lambda x, y: net.last(x).gather(-1, net.last(y).argmax(-1, keepdim=True)).movedim(-1, net.axis) + x,
    )
    return lambda x, y: run(x, y)


@kind()
def mix(net: Network, width: int, choose: Choices) -> Run:
    """Units have an effect on each other."""
    run = choose(
        lambda x: x.softmax(net.axis),
        lambda x: x.cumsum(net.axis),
        lambda x: x.sort(net.axis)[0],
        lambda x: x.log_softmax(net.axis),
        lambda x: net.part(x.topk(width, net.axis)[0], 0, width),
        lambda x: x - x.logsumexp(net.axis, keepdim=True),
    )
    return lambda x, y: run(x)


@kind()
def along_batch(net: Network, width: int, choose: Choices) -> Run:
    run = choose(
        lambda x: x - x.mean(0, keepdim=True),
        lambda x: x.softmax(0),
        lambda x: x.cumsum(0),
        lambda x: x.sort(0)[0],
        lambda x: x / (1 + x.std(0, keepdim=True)),
    )
    return lambda x, y: run(x)


@kind()
def by_statistic(net: Network, width: int, choose: Choices) -> Run:
    """Values meet a statistic, of their own or of others."""
    run = choose(
        lambda x, y: x - y.mean(net.axis, keepdim=True),
        lambda x, y: x * y.mean(net.axis, keepdim=True),
        lambda x, y: x + y.std(net.axis, correction=0, keepdim=True),
        lambda x, y: x.clone().sub_(y.mean(net.axis, keepdim=True)),
        lambda x, y: x / (1e-3 + y.abs().sum(net.axis, keepdim=True)),
        lambda x, y: x - x.amax(net.axis, keepdim=True) + y,
    )
    return lambda x, y: run(x, y)


@kind()
def standardise(net: Network, width: int, choose: Choices) -> Run:
    """Norms written by hand, without an affine part."""

    def by_variance(x: Tensor) -> Tensor:
        centred = x - x.mean(net.axis, keepdim=True)
        return centred / (1e-3 + centred.var(net.axis, correction=0, keepdim=True)).sqrt()

    run = choose(
        by_variance,
        lambda x: F.normalize(x, dim=net.axis),
        lambda x: x * (x.pow(2).mean(net.axis, True) + 1e-3).rsqrt(),
        lambda x: x / (x.norm(dim=net.axis, keepdim=True) + 1e-3),
    )
    return lambda x, y: run(x)


@kind()
def drop(net: Network, width: int, choose: Choices) -> Run:
    run = choose(
        lambda x: F.dropout(x, 0.2, net.training),
        lambda x: x + torch.randn_like(x) if net.training else x,
        lambda x: F.feature_alpha_dropout(x, 0.2, net.training) if x.dim() > 2 else x,
        lambda x: x * torch.bernoulli(torch.full_like(x, 0.8)) if net.training else x,
    )
    return lambda x, y: run(x)


@kind()
def only_in_training(net: Network, width: int, choose: Choices) -> Run:
    run = choose(torch.add, torch.mul)
    return lambda x, y: run(x, y) if net.training else x


@kind()
def cut(net: Network, width: int, choose: Choices) -> Run:
    """No gradient, but an effect all the same."""
    run = choose(lambda x, y: x.detach() + y, lambda x, y: x + (y.round() - y).detach())
    return lambda x, y: run(x, y)


@kind()
def buffer(net: Network, width: int, choose: Choices) -> Run:
    """Constants of the network."""
    name = f"buffer{len(list(net.buffers()))}"
    net.register_buffer(name, torch.rand(choose(1, width)))
    run = choose(torch.add, torch.mul, torch.div)
    return lambda x, y: run(x, net.per_unit(getattr(net, name)))


@kind()
def norm(net: Network, width: int, choose: Choices) -> Run:
    dims = {"vectors": nn.BatchNorm1d, "images": nn.BatchNorm2d, "sequences": nn.BatchNorm1d}
    layer = net.keep(dims[net.family](width, affine=choose(True, True, False), track_running_stats=choose(True, False)))
    if net.family == "sequences":
        return lambda x, y: layer(x.mT).mT
    return lambda x, y: layer(x)


@kind()
def layer_norm(net: Network, width: int, choose: Choices) -> Run:
    norm = net.keep(choose(nn.LayerNorm, nn.RMSNorm)(width, elementwise_affine=choose(True, True, False)))
    return lambda x, y: net.back(norm(net.last(x)))
