"""Networks that put weights together in uncommon ways, with the groups that a person finds in them."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.units.hand_written import Case, Net, images, vectors, weight

SENT, RECEIVED = torch.tensor([0, 1, 1, 2, 3]), torch.tensor([3, 0, 2, 2, 1])  # edges of a graph of four nodes
EDGES = torch.sparse_coo_tensor(torch.stack([RECEIVED, SENT]), torch.ones(5), (4, 4), check_invariants=True)


def mixture(m: Net, x: Tensor) -> Tensor:
    share = m.gate(x).softmax(1)
    made = torch.stack([expert(x) for expert in m.experts], 1)
    return m.out((share[..., None] * made).sum(1))


def both_signs(m: Net, x: Tensor) -> Tensor:
    h = m.norm(m.a(x))
    return m.out(m.b(torch.cat([F.relu(h), F.relu(-h)], 1)).amax((2, 3)))


def hadamard(m: Net, x: Tensor, y: Tensor) -> Tensor:
    return m.out(torch.tanh(m.a(x)) * torch.tanh(m.b(y)))


def by_einsum(m: Net, x: Tensor) -> Tensor:
    h = F.relu(torch.einsum("bi,oi->bo", x, m.w1) + m.b1)
    return torch.einsum("io,bi->bo", m.w2, h)


def heads_by_einsum(m: Net, x: Tensor) -> Tensor:
    h = F.gelu(torch.einsum("btd,dhk->bthk", x, m.w1) + m.b1)
    return torch.einsum("bthk,hkd->btd", h, m.w2)


def ensemble_by_einsum(m: Net, x: Tensor) -> Tensor:
    h = F.relu(torch.einsum("bi,eio->beo", x, m.w1) + m.b1)
    h = F.relu(torch.einsum("bei,eio->beo", h, m.w2) + m.b2)
    return torch.einsum("bei,eio->ebo", h, m.w3)


def ensemble_by_bmm(m: Net, x: Tensor) -> Tensor:
    h = F.relu(torch.baddbmm(m.b1, x.expand(3, -1, -1), m.w1))
    h = F.relu(torch.bmm(h, m.w2) + m.b2)
    return torch.baddbmm(m.b3, h, m.w3).mean(0)


def ensemble_by_matmul(m: Net, x: Tensor) -> Tensor:
    return F.relu(x @ m.w1 + m.b1) @ m.w2


class MappedEnsemble(nn.Module):
    """One network's function, mapped over stacked parameters."""

    def __init__(self) -> None:
        super().__init__()
        members = [nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 2)) for _ in range(3)]
        stacked, _ = torch.func.stack_module_state(members)
        self.stacked = nn.ParameterDict({name.replace(".", "_"): nn.Parameter(one) for name, one in stacked.items()})
        self.member = [members[0].to("meta")]  # in a list, so that it is no part of this module

    def forward(self, x: Tensor) -> Tensor:
        def call(stacked: dict[str, Tensor], x: Tensor) -> Tensor:
            return torch.func.functional_call(self.member[0], stacked, (x,))

        stacked = {name.replace("_", "."): one for name, one in self.stacked.items()}
        return torch.func.vmap(call, in_dims=(0, None))(stacked, x)


class NoisyLinear(nn.Module):
    """Weights with factorised noise while training."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight_mean, self.weight_scale = weight(outputs, inputs), weight(outputs, inputs)
        self.bias_mean, self.bias_scale = weight(outputs), weight(outputs)

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return F.linear(x, self.weight_mean, self.bias_mean)
        rows, columns = (noise.sign() * noise.abs().sqrt() for noise in map(torch.randn, self.weight_mean.shape))
        noisy = self.weight_mean + self.weight_scale * rows.outer(columns)
        return F.linear(x, noisy, self.bias_mean + self.bias_scale * rows)


def hypernetwork(m: Net, x: Tensor, z: Tensor) -> Tensor:
    made = m.hyper(F.relu(m.embed(z[0]))).view(6, 5)
    return m.out(F.relu(F.linear(x, made)))


def distance(m: Net, x: Tensor, y: Tensor) -> Tensor:
    return m.out((torch.tanh(m.f(x)) - torch.tanh(m.f(y))).abs())


def tied(m: Net, x: Tensor) -> Tensor:
    return F.linear(F.relu(m.encode(x)), m.encode.weight.T)


def message_passing(m: Net, x: Tensor) -> Tensor:
    h = F.relu(m.embed(x))
    for _ in range(2):
        sent = F.relu(m.message(torch.cat([h[SENT], h[RECEIVED]], 1)))
        received = torch.zeros(4, 5).index_add(0, RECEIVED, sent)
        h = h + torch.tanh(m.update(torch.cat([h, received], 1)))
    return m.out(h)


def graph_convolution(m: Net, x: Tensor) -> Tensor:
    h = F.relu(torch.sparse.mm(EDGES, m.a(x)))
    return EDGES @ m.out(F.relu(EDGES.to_dense() @ m.b(h)))


def deep_sets(m: Net, x: Tensor) -> Tensor:
    return m.whole(m.each(x).sum(1))


def highway(m: Net, x: Tensor) -> Tensor:
    h = m.a(x)
    carried = torch.sigmoid(m.gate(h))
    return m.out(carried * F.relu(m.f(h)) + (1 - carried) * h)


def dueling(m: Net, x: Tensor) -> Tensor:
    h = F.relu(m.trunk(x))
    value, advantage = m.value(F.relu(m.v(h))), m.advantage(F.relu(m.a(h)))
    return value + advantage - advantage.mean(1, keepdim=True)


def distributional(m: Net, x: Tensor) -> tuple[Tensor, Tensor]:
    shares = m.head(F.relu(m.trunk(x))).view(-1, 3, 5).softmax(2)
    return shares, (shares * torch.linspace(-1, 1, 5)).sum(2)


def implicit_quantiles(m: Net, x: Tensor) -> Tensor:
    cosines = torch.cos(torch.linspace(0.1, 0.9, 3)[:, None] * torch.arange(4) * torch.pi)
    return m.head(F.relu(m.trunk(x))[:, None] * F.relu(m.embed(cosines))).mT


def twin_critics(m: Net, state: Tensor, action: Tensor) -> Tensor:
    both = torch.cat([state, action], 1)
    return torch.min(m.first(both), m.second(both))


def fourier(m: Net, x: Tensor) -> Tensor:
    angles = m.frequencies(x)
    h = F.relu(m.a(torch.cat([angles.sin(), angles.cos()], -1)))
    return m.out(h)


class Splines(nn.Module):
    """A learned function on every edge: bumps on a grid, beside a linear part."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.base = nn.Linear(inputs, outputs, bias=False)
        self.bumps = weight(outputs, inputs, 4)

    def forward(self, x: Tensor) -> Tensor:
        heights = torch.exp(-((x[..., None] - torch.linspace(-1, 1, 4)) ** 2))
        return self.base(F.silu(x)) + torch.einsum("big,oig->bo", heights, self.bumps)


def scaled_residual(m: Net, x: Tensor) -> Tensor:
    h = m.a(x)
    return m.out(h + m.scale * m.c(F.relu(m.b(h))))


class Standardised(nn.Conv2d):
    """A convolution whose weights have mean 0 and deviation 1 over the inputs of each channel."""

    def forward(self, x: Tensor) -> Tensor:
        deviation, mean = torch.std_mean(self.weight, (1, 2, 3), keepdim=True)
        return F.conv2d(x, (self.weight - mean) / deviation, self.bias)


def in_a_list(m: Net, x: Tensor) -> Tensor:
    for made, bias in zip(m.weights[:-1], m.biases, strict=True):
        x = torch.tanh(torch.addmm(bias, x, made))
    return x @ m.weights[-1]


def in_dicts(m: Net, x: Tensor) -> Tensor:
    h = m.parts["encoder"]["first"](x)
    return m.parts["heads"]["left"](h) + m.parts["heads"]["right"](torch.relu(h))


def in_place(m: Net, x: Tensor) -> Tensor:
    h = m.a(x)
    h[:, ::2].mul_(2)
    h.clamp_(-3, 3).add_(m.b(x), alpha=0.5).relu_()
    h.lerp_(m.c(h), 0.3).masked_fill_(x[:, :1] > 0, 0.5)
    F.dropout(h, 0.2, m.training, inplace=True)
    made = torch.empty(len(x), 6)
    made[:] = h
    made[:, 1] += 1
    return m.out(torch.nn.functional.elu_(made))


class PartlyFixed(nn.Module):
    """Some outputs have weights that are not trained."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.weight = weight(3, inputs)
        self.register_buffer("fixed", torch.randn(2, inputs))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, torch.cat([self.weight, self.fixed]))


def row_as_bias(m: Net, x: Tensor) -> Tensor:
    return m.out(torch.relu(torch.relu(m.a(x)) @ m.w + m.w[0]))


def picked_by_data(m: Net, x: Tensor, index: Tensor) -> Tensor:
    h = torch.relu(m.a(x))
    return m.out(torch.cat([h.gather(1, index), m.b(x)], 1)) + m.rest(h)


def picked_by_largest(m: Net, x: Tensor) -> Tensor:
    h = torch.relu(m.a(x))
    return m.out(h + h.gather(1, m.b(x).argmax(1, keepdim=True)))


def shifted(m: Net, x: Tensor) -> Tensor:
    h = m.a(x)
    h = torch.cat([h[:, 1:], torch.zeros_like(h[:, :1])], 1)
    return m.out(torch.relu(h + m.b).flatten(1))


def shifted_into_norm(m: Net, x: Tensor) -> Tensor:
    h = m.a(x)
    h = torch.cat([h[:, 1:], torch.zeros_like(h[:, :1])], 1)
    return m.out(torch.relu(m.norm(h)).flatten(1))


def last_of_each(m: Net, x: Tensor, lengths: Tensor) -> Tensor:
    h = torch.relu(m.a(x))
    return m.out(h[torch.arange(len(x)), lengths])


def shuffled(m: Net, x: Tensor) -> Tensor:
    return m.out(torch.relu(m.a(x))[:, torch.arange(6).flip(0)])


def causal_weights(m: Net, x: Tensor) -> Tensor:
    return m.out(torch.relu(F.linear(torch.relu(m.a(x)), m.w.tril())))


def nothing_beside(m: Net, x: Tensor) -> Tensor:
    return m.out(torch.relu(torch.cat([m.a(x), F.linear(x, m.none)], 1)))


def stacked(*sizes: int) -> dict[str, nn.Parameter]:
    """Weights and biases of three members."""
    made = {}
    for number, (inputs, outputs) in enumerate(zip(sizes, sizes[1:], strict=False), 1):
        made |= {f"w{number}": weight(3, inputs, outputs), f"b{number}": weight(3, 1, outputs)}
    return made


STRUCTURAL = [
    Case("mixture of experts", lambda: Net(
        mixture, gate=nn.Linear(5, 3), out=nn.Linear(4, 2), experts=nn.ModuleList(
            [nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 4)) for _ in range(3)])), vectors(5), [
        ("gate", 3, "blocked", "gate.weight", ""),
        ("experts.0.0", 6, "free", "experts.0.0.weight", "experts.0.2.weight"),
        ("experts.0.2", 4, "shared", "experts.0.2.weight experts.1.2.weight experts.2.2.weight", "out.weight"),
        ("experts.1.0", 6, "free", "experts.1.0.weight", "experts.1.2.weight"),
        ("experts.2.0", 6, "free", "experts.2.0.weight", "experts.2.2.weight"),
        ("out", 2, "output", "out.weight", ""),
    ]),
    Case("crelu", lambda: Net(
        both_signs, a=nn.Conv2d(3, 4, 3), norm=nn.BatchNorm2d(4), b=nn.Conv2d(8, 5, 3), out=nn.Linear(5, 2)),
        images(3), [
        ("a", 4, "free", "a.weight", "b.weight"),
        ("b", 5, "free", "b.weight", "out.weight"),
        ("out", 2, "output", "out.weight", ""),
    ]),
    Case("bilinear of low rank", lambda: Net(
        hadamard, a=nn.Linear(5, 6), b=nn.Linear(4, 6), out=nn.Linear(6, 2)), vectors(5, 4), [
        ("a", 6, "shared", "a.weight b.weight", "out.weight"),
        ("out", 2, "output", "out.weight", ""),
    ]),
    Case("einsum", lambda: Net(by_einsum, w1=weight(6, 5), b1=weight(6), w2=weight(6, 2)), vectors(5), [
        ("w1", 6, "free", "w1", "w2"),
        ("w2", 2, "output", "w2", ""),
    ]),
    Case("heads by einsum", lambda: Net(
        heads_by_einsum, w1=weight(5, 2, 4), b1=weight(2, 4), w2=weight(2, 4, 3)), lambda: torch.randn(3, 5, 5), [
        ("w1", 8, "free", "w1", "w2"),
        ("w2", 3, "output", "w2", ""),
    ]),
    Case("ensemble by einsum", lambda: Net(
        ensemble_by_einsum, **{name: nn.Parameter(made.squeeze(1)) if name[0] == "b" else made
                               for name, made in stacked(5, 6, 4, 2).items() if name != "b3"}), vectors(5), [
        ("w1", 18, "free", "w1", "w2"),
        ("w2", 12, "free", "w2", "w3"),
        ("w3", 6, "output", "w3", ""),
    ]),
    # The members' outputs are averaged: each place of the mean has three units, which become one.
    Case("ensemble by bmm", lambda: Net(ensemble_by_bmm, **stacked(5, 6, 4, 2)), vectors(5), [
        ("w1", 18, "free", "w1", "w2"),
        ("w2", 12, "free", "w2", "w3"),
        ("w3", 2, "output", "w3", ""),
    ]),
    Case("ensemble by matmul", lambda: Net(
        ensemble_by_matmul, **{name: made for name, made in stacked(5, 6, 2).items() if name != "b2"}), vectors(5), [
        ("w1", 18, "free", "w1", "w2"),
        ("w2", 6, "output", "w2", ""),
    ]),
    Case("ensemble by mapping", MappedEnsemble, vectors(5), [
        ("stacked.0_weight", 18, "free", "stacked.0_weight", "stacked.2_weight"),
        ("stacked.2_weight", 6, "output", "stacked.2_weight", ""),
    ]),
    # Mean and scale of the incoming weights make a unit together.
    Case("noisy layers", lambda: nn.Sequential(
        nn.Linear(5, 7), nn.ReLU(), NoisyLinear(7, 6), nn.ReLU(), NoisyLinear(6, 2)), vectors(5), [
        ("0", 7, "free", "0.weight", "2.weight_mean 2.weight_scale"),
        ("2.weight_mean", 6, "shared", "2.weight_mean 2.weight_scale", "4.weight_mean 4.weight_scale"),
        ("4.weight_mean", 2, "output", "4.weight_mean 4.weight_scale", ""),
    ]),
    # What the small network makes are weights, which no weights read.
    Case("hypernetwork", lambda: Net(
        hypernetwork, embed=nn.Linear(4, 8), hyper=nn.Linear(8, 30), out=nn.Linear(6, 2)), vectors(5, 4), [
        ("embed", 8, "free", "embed.weight", "hyper.weight"),
        ("hyper", 30, "blocked", "hyper.weight", ""),
        ("out", 2, "output", "out.weight", ""),
    ]),
    Case("siamese, distance", lambda: Net(distance, f=nn.Linear(5, 6), out=nn.Linear(6, 2)), vectors(5, 5), [
        ("f", 6, "free", "f.weight", "out.weight"),
        ("out", 2, "output", "out.weight", ""),
    ]),
    # New incoming weights of a hidden unit would be new outgoing weights as well. The outputs have none of their own.
    Case("tied autoencoder", lambda: Net(tied, encode=nn.Linear(5, 7)), vectors(5), [
        ("encode", 7, "blocked", "encode.weight", "encode.weight"),
    ]),
    Case("message passing", lambda: Net(
        message_passing, embed=nn.Linear(3, 6), message=nn.Linear(12, 5), update=nn.Linear(11, 6), out=nn.Linear(6, 2)),
        lambda: torch.randn(4, 3), [
        ("embed", 6, "shared", "embed.weight update.weight", "message.weight update.weight out.weight"),
        ("message", 5, "free", "message.weight", "update.weight"),
        ("out", 2, "output", "out.weight", ""),
    ]),
    Case("graph convolution", lambda: Net(
        graph_convolution, a=nn.Linear(3, 6), b=nn.Linear(6, 5), out=nn.Linear(5, 2)), lambda: torch.randn(4, 3), [
        ("a", 6, "free", "a.weight", "b.weight"),
        ("b", 5, "free", "b.weight", "out.weight"),
        ("out", 2, "output", "out.weight", ""),
    ]),
    Case("deep sets", lambda: Net(
        deep_sets, each=nn.Sequential(nn.Linear(3, 7), nn.ReLU(), nn.Linear(7, 6)),
        whole=nn.Sequential(nn.ReLU(), nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 2))), lambda: torch.randn(4, 5, 3), [
        ("each.0", 7, "free", "each.0.weight", "each.2.weight"),
        ("each.2", 6, "free", "each.2.weight", "whole.1.weight"),
        ("whole.1", 5, "free", "whole.1.weight", "whole.3.weight"),
        ("whole.3", 2, "output", "whole.3.weight", ""),
    ]),
    Case("highway", lambda: Net(
        highway, a=nn.Linear(5, 6), gate=nn.Linear(6, 6), f=nn.Linear(6, 6), out=nn.Linear(6, 2)), vectors(5), [
        ("a", 6, "shared", "a.weight gate.weight f.weight", "gate.weight f.weight out.weight"),
        ("out", 2, "output", "out.weight", ""),
    ]),
    Case("dueling", lambda: Net(
        dueling, trunk=nn.Linear(5, 6), v=nn.Linear(6, 5), value=nn.Linear(5, 1), a=nn.Linear(6, 4),
        advantage=nn.Linear(4, 3)), vectors(5), [
        ("trunk", 6, "free", "trunk.weight", "v.weight a.weight"),
        ("v", 5, "free", "v.weight", "value.weight"),
        ("value", 1, "output", "value.weight", ""),
        ("a", 4, "free", "a.weight", "advantage.weight"),
        ("advantage", 3, "output", "advantage.weight", ""),
    ]),
    Case("distributional", lambda: Net(
        distributional, trunk=nn.Linear(5, 6), head=nn.Linear(6, 15)), vectors(5), [
        ("trunk", 6, "free", "trunk.weight", "head.weight"),
        ("head", 15, "output", "head.weight", ""),
    ]),
    Case("implicit quantiles", lambda: Net(
        implicit_quantiles, trunk=nn.Linear(5, 6), embed=nn.Linear(4, 6), head=nn.Linear(6, 2)), vectors(5), [
        ("trunk", 6, "shared", "trunk.weight embed.weight", "head.weight"),
        ("head", 2, "output", "head.weight", ""),
    ]),
    Case("twin critics", lambda: Net(
        twin_critics, **{name: nn.Sequential(nn.Linear(7, 6), nn.ReLU(), nn.Linear(6, 1))
                         for name in ("first", "second")}), vectors(5, 2), [
        ("first.0", 6, "free", "first.0.weight", "first.2.weight"),
        ("first.2", 1, "output", "first.2.weight second.2.weight", ""),
        ("second.0", 6, "free", "second.0.weight", "second.2.weight"),
    ]),
    Case("fourier features", lambda: Net(
        fourier, frequencies=nn.Linear(2, 6), a=nn.Linear(12, 5), out=nn.Linear(5, 2)), vectors(2), [
        ("frequencies", 6, "free", "frequencies.weight", "a.weight"),
        ("a", 5, "free", "a.weight", "out.weight"),
        ("out", 2, "output", "out.weight", ""),
    ]),
    Case("functions on edges", lambda: nn.Sequential(Splines(5, 6), Splines(6, 2)), vectors(5), [
        ("0.base", 6, "shared", "0.base.weight 0.bumps", "1.base.weight 1.bumps"),
        ("1.base", 2, "output", "1.base.weight 1.bumps", ""),
    ]),
    *(Case(f"residual, scaled by {name}", lambda scale=scale: Net(
        scaled_residual, a=nn.Linear(5, 6), b=nn.Linear(6, 7), c=nn.Linear(7, 6), out=nn.Linear(6, 2),
        scale=nn.Parameter(scale.clone())), vectors(5), [
        ("a", 6, "shared", "a.weight c.weight", "b.weight out.weight"),
        ("b", 7, "free", "b.weight", "c.weight"),
        ("out", 2, "output", "out.weight", ""),
    ]) for name, scale in (("a number", torch.tensor(0.0)), ("channel", torch.full((6,), 1e-4)))),
    # A column of standardised weights is not silenced by zeros in the column that it is made from.
    Case("weight standardisation", lambda: nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), Standardised(4, 5, 3), nn.ReLU(), nn.Conv2d(5, 2, 3)), images(3), [
        ("0", 4, "blocked", "0.weight", ""),
        ("4", 2, "output", "4.weight", ""),
    ]),
    Case("lists of parameters", lambda: Net(
        in_a_list, weights=nn.ParameterList([weight(5, 6), weight(6, 4), weight(4, 2)]),
        biases=nn.ParameterList([weight(6), weight(4)])), vectors(5), [
        ("weights.0", 6, "free", "weights.0", "weights.1"),
        ("weights.1", 4, "free", "weights.1", "weights.2"),
        ("weights.2", 2, "output", "weights.2", ""),
    ]),
    Case("dicts of modules", lambda: Net(in_dicts, parts=nn.ModuleDict({
        "encoder": nn.ModuleDict({"first": nn.Linear(5, 6)}),
        "heads": nn.ModuleDict({"left": nn.Linear(6, 2), "right": nn.Linear(6, 2)})})), vectors(5), [
        ("parts.encoder.first", 6, "free", "parts.encoder.first.weight",
         "parts.heads.left.weight parts.heads.right.weight"),
        ("parts.heads.left", 2, "output", "parts.heads.left.weight parts.heads.right.weight", ""),
    ]),
    # What the fixed part reads of a unit cannot be set to 0.
    Case("a weight with a fixed part", lambda: nn.Sequential(
        nn.Linear(5, 6), nn.ReLU(), PartlyFixed(6), nn.ReLU(), nn.Linear(5, 2)), vectors(5), [
        ("0", 6, "blocked", "0.weight", ""),
        ("4", 2, "output", "4.weight", ""),
    ]),
    # Zeros in the row that reads the first unit are another bias of all units that it helps to make.
    Case("a row of weights is a bias too", lambda: Net(
        row_as_bias, a=nn.Linear(5, 6), w=weight(6, 4), out=nn.Linear(4, 2)), vectors(5), [
        ("a", 1, "blocked", "a.weight", "w"),
        ("a:2", 5, "free", "a.weight", "w"),
        ("w", 4, "free", "w", "out.weight"),
        ("out", 2, "output", "out.weight", ""),
    ]),
    Case("a triangle of weights", lambda: Net(
        causal_weights, a=nn.Linear(5, 6), w=weight(6, 6), out=nn.Linear(6, 2)), vectors(5), [
        ("a", 6, "free", "a.weight", "w"),
        ("w", 6, "free", "w", "out.weight"),
        ("out", 2, "output", "out.weight", ""),
    ]),
    Case("a layer of no units", lambda: Net(
        nothing_beside, a=nn.Linear(5, 6), none=weight(0, 5), out=nn.Linear(6, 2)), vectors(5), [
        ("a", 6, "free", "a.weight", "out.weight"),
        ("out", 2, "output", "out.weight", ""),
    ]),
    # This example picks only some of them.
    Case("units picked by data", lambda: Net(
        picked_by_data, a=nn.Linear(5, 6), b=nn.Linear(5, 3), rest=nn.Linear(6, 2), out=nn.Linear(4, 2)),
        lambda: (torch.randn(4, 5), torch.tensor([[1], [2], [1], [2]])), [
        ("a", 6, "blocked", "a.weight", "rest.weight"),
        ("b", 3, "free", "b.weight", "out.weight"),
        ("out", 2, "output", "out.weight rest.weight", ""),
    ]),
    Case("units picked by the largest of others", lambda: Net(
        picked_by_largest, a=nn.Linear(5, 6), b=nn.Linear(5, 6), out=nn.Linear(6, 2)), vectors(5), [
        ("a", 6, "blocked", "a.weight", "out.weight"),
        ("b", 6, "blocked", "b.weight", ""),
        ("out", 2, "output", "out.weight", ""),
    ]),
    Case("the last step of each sequence", lambda: Net(
        last_of_each, a=nn.Linear(5, 6), out=nn.Linear(6, 2)),
        lambda: (torch.randn(4, 3, 5), torch.tensor([0, 2, 1, 2])), [
        ("a", 6, "free", "a.weight", "out.weight"),
        ("out", 2, "output", "out.weight", ""),
    ]),
    # In the place of the zeros is the bias alone, which is the unit's.
    Case("zeros that get a bias", lambda: Net(
        shifted, a=nn.Linear(5, 6), b=weight(6), out=nn.Linear(24, 2)), lambda: torch.randn(4, 4, 5), [
        ("a", 6, "free", "a.weight", "out.weight"),
        ("out", 2, "output", "out.weight", ""),
    ]),
    Case("zeros in a norm over units", lambda: Net(
        shifted_into_norm, a=nn.Linear(5, 6), norm=nn.LayerNorm(6), out=nn.Linear(24, 2)),
        lambda: torch.randn(4, 4, 5), [
        ("a", 6, "coupled", "a.weight", "out.weight"),
        ("out", 2, "output", "out.weight", ""),
    ]),
    Case("zeros in a root mean square", lambda: Net(
        shifted_into_norm, a=nn.Linear(5, 6), norm=nn.RMSNorm(6), out=nn.Linear(24, 2)),
        lambda: torch.randn(4, 4, 5), [
        ("a", 6, "coupled", "a.weight", "out.weight"),
        ("out", 2, "output", "out.weight", ""),
    ]),
    Case("units in another order", lambda: Net(shuffled, a=nn.Linear(5, 6), out=nn.Linear(6, 2)), vectors(5), [
        ("a", 6, "free", "a.weight", "out.weight"),
        ("out", 2, "output", "out.weight", ""),
    ]),
    Case("in place", lambda: Net(
        in_place, a=nn.Linear(5, 6), b=nn.Linear(5, 6), c=nn.Linear(6, 6), out=nn.Linear(6, 2)), vectors(5), [
        ("a", 6, "shared", "a.weight b.weight c.weight", "c.weight out.weight"),
        ("out", 2, "output", "out.weight", ""),
    ]),
]  # fmt: skip
