"""Steps of all families with parameters: layers, and raw parameters in whatever place."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from tests.units.grammar.program import Choices, Network, Run, kind


@kind()
def layer(net: Network, width: int, choose: Choices) -> Run:
    plain = net.layer(width, choose(4, 3, 6, 2), bias=choose(True, True, False))
    return lambda x, y: plain(x)


@kind()
def layer_in_place(net: Network, width: int, choose: Choices) -> Run:
    plain = net.layer(width, choose(4, 3))
    return lambda x, y: plain(x).relu_()


@kind()
def again(net: Network, width: int, choose: Choices) -> Run | None:
    """A layer that is used elsewhere already."""
    fitting = [
        part
        for part in net.parts
        if type(part) in (nn.Linear, nn.Conv2d) and part.weight.size(1) == width and getattr(part, "groups", 1) == 1
    ]
    if net.family == "images":  # there a linear layer is one across places, of which there must not be more then
        fitting = [part for part in fitting if type(part) is nn.Conv2d or part.weight.size(0) == part.weight.size(1)]
    if not fitting:
        return None
    plain = choose(*fitting)
    return lambda x, y: plain(x)


@kind()
def tie(net: Network, width: int, choose: Choices) -> Run | None:
    """The weight of a layer, transposed."""
    fitting = [part for part in net.parts if type(part) in (nn.Linear, nn.Conv2d) and part.weight.size(0) == width]
    fitting = [part for part in fitting if part.weight[0, 0].numel() == 1]
    if not fitting:
        return None
    plain = choose(*fitting)
    return lambda x, y: net.back(net.last(x) @ plain.weight.flatten(1))


@kind()
def residual(net: Network, width: int, choose: Choices) -> Run:
    inner, outer = net.layer(width, 5), net.layer(5, width)
    return lambda x, y: x + outer(F.relu(inner(x)))


@kind()
def one_gate(net: Network, width: int, choose: Choices) -> Run:
    """One number of a layer for all units, or one for each."""
    gate = net.layer(width, choose(1, width))
    run = choose(torch.mul, torch.add)
    return lambda x, y: run(x, torch.sigmoid(gate(y)))


@kind()
def mixture(net: Network, width: int, choose: Choices) -> Run:
    """Experts under a soft-max gate."""
    experts, gate = [net.layer(width, 4) for _ in range(2)], net.layer(width, 2)

    def run(x: Tensor, y: Tensor) -> Tensor:
        shares = net.last(gate(y)).softmax(-1)
        found = torch.stack([net.last(expert(x)) for expert in experts], -1)
        return net.back((found @ shares[..., None])[..., 0] if matrix else (found * shares[..., None, :]).sum(-1))

    matrix = choose(True, False)
    return run


@kind()
def scale(net: Network, width: int, choose: Choices) -> Run:
    gain = net.parameter(choose(width, 1))
    run = choose(torch.mul, torch.add, torch.div, lambda x, w: w * x, lambda x, w: w - x, lambda x, w: x * w.exp())
    return lambda x, y: run(x, net.per_unit(gain))


@kind()
def scalar(net: Network, width: int, choose: Choices) -> Run:
    gain = net.parameter(1)
    run = choose(lambda x, w: x * w[0], lambda x, w: x + w[0], lambda x, w: F.prelu(x, w), lambda x, w: x.pow(2) * w)
    return lambda x, y: run(x, gain)


@kind()
def slope(net: Network, width: int, choose: Choices) -> Run:
    weight = net.keep(nn.PReLU(width))
    return lambda x, y: weight(x) if net.family != "sequences" else weight(x.mT).mT


@kind()
def two_scales(net: Network, width: int, choose: Choices) -> Run:
    left, right = net.parameter(width), net.parameter(width)
    return lambda x, y: x * net.per_unit(left) + y * net.per_unit(right)


@kind()
def root_mean_square(net: Network, width: int, choose: Choices) -> Run:
    gain = net.parameter(width)
    return lambda x, y: x * (x.pow(2).mean(net.axis, True) + 1e-3).rsqrt() * net.per_unit(gain)


@kind()
def adaptive_norm(net: Network, width: int, choose: Choices) -> Run:
    """Gain and bias of a norm computed from another value."""
    made = net.layer(width, 2 * width)

    def run(x: Tensor, y: Tensor) -> Tensor:
        gain, bias = made(y).chunk(2, net.axis)
        return net.back(F.layer_norm(net.last(x), (width,))) * (1 + gain) + bias

    return run


@kind()
def computed_weight(net: Network, width: int, choose: Choices) -> Run:
    """A weight that is computed from a parameter."""
    weight, mask = net.parameter(4, width), torch.arange(4 * width).view(4, width) % 3 > 0
    run = choose(
        lambda w: w.exp(),
        lambda w: w * mask,
        lambda w: w - w.mean(1, keepdim=True),
        lambda w: w * 0.5,
        lambda w: w / w.norm(dim=1, keepdim=True),
        lambda w: w.softmax(1),
        lambda w: w + 1.0,
        lambda w: torch.where(mask, w, 0.0),
        lambda w: w.masked_fill(mask, 0.0),
        lambda w: w.tril(),
    )
    return lambda x, y: net.back(F.linear(net.last(x), run(weight)))


@kind()
def moved_weight(net: Network, width: int, choose: Choices) -> Run:
    """A weight whose elements are those of one or two parameters, in another order."""
    one, two = net.parameter(4, width), net.parameter(4, width)
    run = choose(
        lambda: torch.cat([one, two]),
        lambda: torch.cat([one, two])[2:6],
        lambda: one.flip(0),
        lambda: one.roll(1, 1),
        lambda: one.T.contiguous().T,
        lambda: one[[2, 0, 1]],
        lambda: one[::2],
        lambda: torch.stack([one[0], two[1], one[2]]),
        lambda: one.repeat(2, 1),
        lambda: one.view(2, 2, width).transpose(0, 1).reshape(4, width),
        lambda: F.pad(one, (0, 0, 1, 0)),
        lambda: one[:1].expand(3, width),
        lambda: torch.cat([one, one[:1] * 2.0]),
    )
    return lambda x, y: net.back(net.last(x) @ run().T)


@kind()
def part_of_weight(net: Network, width: int, choose: Choices) -> Run:
    """Different parts of one parameter for two values, side by side or in a sum."""
    weight = net.parameter(4, max(2 * width, 4))
    run = choose(
        lambda x, y: x @ weight[:, :width].T + y @ weight[:, -width:].T,
        lambda x, y: torch.cat([x @ weight[:2, :width].T, y @ weight[2:, :width].T], -1),
        lambda x, y: F.linear(x, weight[:, :width]) * F.linear(y, weight[:, -width:]),
        lambda x, y: F.linear(x, weight[:, : 2 * width : 2]),
        lambda x, y: F.linear(F.linear(x, weight[:, :width]), weight[:, :4]),
    )
    return lambda x, y: net.back(run(net.last(x), net.last(y)))


@kind()
def low_rank(net: Network, width: int, choose: Choices) -> Run:
    plain, down, up = net.layer(width, 4), net.parameter(2, width), net.parameter(4, 2)
    run = choose(
        lambda x: F.linear(F.linear(x, down), up),
        lambda x: F.linear(x, up @ down),
    )
    return lambda x, y: plain(x) + net.back(run(net.last(x)))


@kind()
def frozen(net: Network, width: int, choose: Choices) -> Run:
    plain = net.layer(width, 4)
    choose(plain, plain.weight).requires_grad_(False)
    return lambda x, y: plain(x)


@kind()
def weight_norm(net: Network, width: int, choose: Choices) -> Run:
    wrap = choose(parametrizations.weight_norm, parametrizations.spectral_norm)
    plain = wrap(net.layer(width, 4))
    return lambda x, y: plain(x)


@kind()
def hypernetwork(net: Network, width: int, choose: Choices) -> Run:
    """A weight that another layer makes from the data."""
    made = net.keep(nn.Linear(width, 3 * width))

    def run(x: Tensor, y: Tensor) -> Tensor:
        context = net.last(y).flatten(0, -2)[0] if whole else net.last(y).flatten(0, -2).mean(0)
        return net.back(net.last(x) @ made(context).view(width, 3))

    whole = choose(True, False)
    return run


@kind()
def by_hand(net: Network, width: int, choose: Choices) -> Run:
    """A product with a weight, spelt otherwise."""
    weight = net.parameter(4, width)
    run = choose(
        lambda x: torch.einsum("...i,oi->...o", x, weight),
        lambda x: (x[..., None, :] * weight).sum(-1),
        lambda x: torch.tensordot(x, weight, ([-1], [1])),
        lambda x: (weight @ x[..., None])[..., 0],
        lambda x: torch.stack([(x * row).sum(-1) for row in weight], -1),
        lambda x: F.conv1d(x.flatten(0, -2)[..., None], weight[..., None])[..., 0].view(*x.shape[:-1], 4),
        lambda x: torch.addmm(weight[:, 0], x.reshape(-1, width), weight.T).view(*x.shape[:-1], 4),
        lambda x: torch.baddbmm(weight[:, :1].T[None], x.reshape(1, -1, width), weight.T[None]).view(*x.shape[:-1], 4),
    )
    return lambda x, y: net.back(run(net.last(x)))


@kind()
def ensemble(net: Network, width: int, choose: Choices) -> Run:
    """Several small matrices at once."""
    weight = net.parameter(2, width, 3)
    run = choose(
        lambda x: torch.einsum("...i,eio->...eo", x, weight).flatten(-2),
        lambda x: (x.reshape(1, -1, width) @ weight).movedim(0, -2).reshape(*x.shape[:-1], 6),
        lambda x: (x.reshape(1, -1, width) @ weight).mean(0).view(*x.shape[:-1], 3),
        lambda x: (x.reshape(2, -1, width) @ weight).view(*x.shape[:-1], 3),
        lambda x: (x.reshape(1, -1, width) @ weight).amax(0).view(*x.shape[:-1], 3),
    )
    return lambda x, y: net.back(run(net.last(x)))


@kind()
def bilinear(net: Network, width: int, choose: Choices) -> Run:
    product = net.keep(nn.Bilinear(width, width, 4))
    return lambda x, y: net.back(product(net.last(x).contiguous(), net.last(y).contiguous()))


@kind()
def embedding(net: Network, width: int, choose: Choices) -> Run:
    """Rows of a table meet the value."""
    table = net.keep(nn.Embedding(5, width, padding_idx=choose(None, 1)))
    ids = torch.randint(5, net.example.movedim(net.axis, -1).shape[:-1])
    run = choose(torch.add, torch.mul, lambda x, rows: torch.cat([x, rows], net.axis))
    if width > 8:
        return lambda x, y: x + net.back(table(ids))
    return lambda x, y: run(x, net.back(table(ids)))


@kind()
def bag(net: Network, width: int, choose: Choices) -> Run:
    table, ids = net.keep(nn.EmbeddingBag(5, width, mode=choose("mean", "sum", "max"))), torch.randint(5, (4, 3))
    places = net.example.movedim(net.axis, -1).shape[:-1]
    ids = torch.randint(5, (places.numel(), 3))
    return lambda x, y: x + net.back(table(ids).view(*places, width))


@kind()
def logits(net: Network, width: int, choose: Choices) -> Run | None:
    """The table of an embedding as an output layer."""
    tables = [part for part in net.parts if isinstance(part, nn.Embedding) and part.weight.size(1) == width]
    if not tables:
        return None
    table = choose(*tables)
    return lambda x, y: net.back(F.linear(net.last(x), table.weight))
