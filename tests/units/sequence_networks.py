"""Attention, recurrent networks and embeddings, with the groups that a person finds in them."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.units.hand_written import Case, Net, Row, weight

STREAM = [
    ("1.self_attn", 16, "blocked", "1.self_attn.in_proj_weight", ""),
    ("1.self_attn:2", 8, "free", "1.self_attn.in_proj_weight", "1.self_attn.out_proj.weight"),
    ("1.linear1", 12, "free", "1.linear1.weight", "1.linear2.weight"),
    ("2", 3, "output", "2.weight", ""),
]


def tokens(*sizes: int) -> Tensor:
    return torch.randn(3, 5, *sizes)


def encoder(norm_first: bool) -> nn.Module:
    layer = nn.TransformerEncoderLayer(8, 2, 12, norm_first=norm_first, batch_first=True)
    return nn.Sequential(nn.Linear(6, 8), layer, nn.Linear(8, 3))


def self_attention(m: Net, x: Tensor) -> Tensor:
    h = m.a(x)
    return m.out(m.attention(h, h, h)[0])


def cross_attention(m: Net, x: Tensor, y: Tensor) -> Tensor:
    q, h = m.a(x), m.b(y)
    return m.out(m.attention(q, h, h, need_weights=False)[0])


def decoder(m: Net, x: Tensor, y: Tensor) -> Tensor:
    mask = nn.Transformer.generate_square_subsequent_mask(x.size(1))
    return m.out(m.layer(m.a(x), m.b(y), tgt_mask=mask, tgt_is_causal=True))


def last_step(m: Net, x: Tensor) -> Tensor:
    return m.out(m.r(x)[0][:, -1])


def all_steps(m: Net, x: Tensor) -> Tensor:
    return m.out(m.r(x)[0])


def returns_its_state(m: Net, x: Tensor) -> tuple[Tensor, Tensor]:
    hidden, state = m.r(x)
    return m.out(hidden), state


def state_from_outside(m: Net, x: Tensor, state: Tensor) -> Tensor:
    return m.out(m.r(x, state)[0])


def cell(m: Net, x: Tensor) -> Tensor:
    hidden = x.new_zeros(x.size(0), 5)
    for step in range(x.size(1)):
        hidden = m.cell(x[:, step], hidden)
    return m.out(hidden)


def long_short_cell(m: Net, x: Tensor) -> Tensor:
    state = x.new_zeros(x.size(0), 5), x.new_zeros(x.size(0), 5)
    for step in range(x.size(1)):
        state = m.cell(x[:, step], state)
    return m.out(state[0])


class RootMeanSquare(nn.Module):
    """As it is written by hand."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        precise = x.float()
        return self.weight * (precise * torch.rsqrt(precise.pow(2).mean(-1, keepdim=True) + 1e-6)).type_as(x)


class Standardise(nn.Module):
    """Layer norm as it is written by hand."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(width)), nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        centred = x - x.mean(-1, keepdim=True)
        return centred / torch.sqrt(centred.square().mean(-1, keepdim=True) + 1e-6) * self.weight + self.bias


class Block(nn.Module):
    """Attention and two layers, each with the norm first and a skip."""

    def __init__(self, causal: bool) -> None:
        super().__init__()
        self.causal = causal
        self.norm1, self.norm2 = nn.LayerNorm(8), nn.LayerNorm(8)
        self.qkv, self.proj = nn.Linear(8, 24), nn.Linear(8, 8)
        self.fc1, self.fc2 = nn.Linear(8, 12), nn.Linear(12, 8)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(self.norm1(x)).view(*x.shape[:2], 3, 2, 4).permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        x = x + self.proj(attended.transpose(1, 2).reshape(x.shape))
        return x + self.fc2(F.gelu(self.fc1(self.norm2(x))))


class LanguageModel(nn.Module):
    """Next tokens."""

    def __init__(self, tied: bool) -> None:
        super().__init__()
        self.tok, self.pos = nn.Embedding(9, 8), nn.Embedding(6, 8)
        self.blocks = nn.Sequential(Block(causal=True), Block(causal=True))
        self.norm, self.head = nn.LayerNorm(8), nn.Linear(8, 9, bias=False)
        if tied:
            self.head.weight = self.tok.weight

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.norm(self.blocks(self.tok(ids) + self.pos(torch.arange(ids.size(1))))))


class VisionTransformer(nn.Module):
    """Patches, a class token and positions."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, 8, 4, stride=4)
        self.cls, self.pos = nn.Parameter(torch.randn(1, 1, 8)), nn.Parameter(torch.randn(1, 5, 8))
        self.block, self.norm, self.head = Block(causal=False), nn.LayerNorm(8), nn.Linear(8, 3)

    def forward(self, images: Tensor) -> Tensor:
        patches = self.patch(images).flatten(2).mT
        x = torch.cat([self.cls.expand(len(patches), -1, -1), patches], 1) + self.pos
        return self.head(self.norm(self.block(x))[:, 0])


def learned_queries(m: Net, x: Tensor) -> Tensor:
    h = m.a(x)
    return m.out(m.attention(m.queries.expand(len(x), -1, -1), h, h, need_weights=False)[0])


def embeds(m: Net, ids: Tensor) -> Tensor:
    return m.out(F.relu(m.a(m.e(ids))))


def gated(m: Net, x: Tensor) -> Tensor:
    h = m.a(x)
    normed = m.norm(h)
    return m.out(h + m.down(F.silu(m.gate(normed)) * m.up(normed)))


def packed(m: Net, x: Tensor) -> Tensor:
    lengths = torch.tensor([2, 5, 3])
    steps = nn.utils.rnn.pack_padded_sequence(F.relu(m.a(x)), lengths, batch_first=True, enforce_sorted=False)
    return m.out(nn.utils.rnn.pad_packed_sequence(m.r(steps)[0], batch_first=True)[0])


def attention_pooling(m: Net, x: Tensor) -> Tensor:
    h = m.a(x)
    return m.out((m.score(h).softmax(1) * h).sum(1))


def relative_positions(m: Net, x: Tensor) -> Tensor:
    q, k, v = (layer(x).unflatten(2, (2, 4)).transpose(1, 2) for layer in (m.q, m.k, m.v))
    scores = q @ k.mT + m.bias(torch.arange(5)[:, None] - torch.arange(5) + 4).permute(2, 0, 1)
    return m.out((scores.softmax(-1) @ v).transpose(1, 2).flatten(2))


def experts(m: Net, x: Tensor) -> Tensor:
    weights, choice = m.gate(x).softmax(1).topk(2)
    order = choice.flatten().argsort(stable=True)
    ends = torch.bincount(choice.flatten(), minlength=3).cumsum(0).int()
    h = F.relu(torch._grouped_mm(x[order // 2], m.up, ends))
    found = torch._grouped_mm(h, m.down, ends)[order.argsort()].view(len(x), 2, -1)
    return m.out((found * weights[..., None]).sum(1))


def two_inputs(m: Net, x: Tensor, y: Tensor) -> Tensor:
    return m.out(m.both(F.relu(m.a(x)), m.b(y)))


def messages(m: Net, x: Tensor) -> Tensor:
    sent = F.relu(m.a(x))[torch.tensor([0, 1, 1, 2])]
    received = torch.zeros(4, 6).index_add(0, torch.tensor([3, 0, 2, 2]), sent)
    return m.out(F.relu(received + torch.zeros(4, 6).scatter_add(0, torch.arange(4)[:, None].expand(4, 6), sent)))


def block(name: str) -> list[Row]:
    """Rows of a block, but for the stream."""
    return [
        (f"{name}.qkv", 16, "blocked", f"{name}.qkv.weight", ""),
        (f"{name}.qkv:2", 8, "free", f"{name}.qkv.weight", f"{name}.proj.weight"),
        (f"{name}.fc1", 12, "free", f"{name}.fc1.weight", f"{name}.fc2.weight"),
    ]


def stream(*made: str) -> str:
    return " ".join(f"{name}.weight" for name in made)


def recurrent(name: str, layers: int, ways: tuple[str, ...] = ("",), out: str = "out.weight") -> list[Row]:
    """Rows of stacked recurrent layers: what a layer's units read and write are themselves and the layer above."""
    rows = []
    for layer in range(layers):
        above = [f"{name}.weight_ih_l{layer + 1}{way}" for way in ways] if layer + 1 < layers else [out]
        for way in ways:
            made, own = (f"{name}.weight_{kind}_l{layer}{way}" for kind in ("ih", "hh"))
            rows.append((made, 5, "shared", f"{made} {own}", " ".join([own, *above])))
    return [*rows, ("out", 2, "output", "out.weight", "")]


def switch(m: Net, x: Tensor) -> Tensor:
    """One expert for each, in a stream with a norm."""
    h = m.a(x)
    order = (choice := m.gate(h).softmax(1).max(1).indices).argsort(stable=True)
    ends = torch.bincount(choice, minlength=3).cumsum(0).int()
    found = torch._grouped_mm(F.relu(torch._grouped_mm(h[order], m.up, ends)), m.down, ends)
    return m.out(m.norm(h + found[order.argsort()]))


def shifted_in_time(m: Net, x: Tensor) -> Tensor:
    h = m.a(x)
    before = F.pad(h, (0, 0, 1, -1))
    return m.out(F.relu(m.b(h * m.mix + before * (1 - m.mix))))


def filled_up(m: Net, x: Tensor) -> Tensor:
    """Places that are no places hold -1, as where attention looks at windows."""
    values = F.pad(m.v(x), (0, 0, 2, 2), value=-1.0)
    return m.out(x.new_ones(5, 9).softmax(1) @ values)


def states(m: Net, x: Tensor) -> Tensor:
    """A linear recurrence whose rates are those of each unit, computed from a parameter."""
    rates, state, found = -m.rates.exp(), torch.zeros(len(x), 6, 4), []
    for u in m.a(x).unbind(1):
        state = rates.exp() * state + u[..., None]
        found.append(state.sum(-1))
    return m.out(torch.stack(found, 1))


SEQUENCES = [
    Case("transformer encoder layer", lambda: encoder(False), lambda: tokens(6), [
        ("0", 8, "coupled", "0.weight 1.self_attn.out_proj.weight 1.linear2.weight",
         "1.self_attn.in_proj_weight 1.linear1.weight 2.weight"), *STREAM]),
    Case("transformer encoder layer, norms first", lambda: encoder(True), lambda: tokens(6), [
        ("0", 8, "coupled", "0.weight 1.self_attn.out_proj.weight 1.linear2.weight",
         "1.self_attn.in_proj_weight 1.linear1.weight 2.weight"), *STREAM]),
    Case("self-attention", lambda: Net(
        self_attention, a=nn.Linear(6, 8), attention=nn.MultiheadAttention(8, 2, 0.1, batch_first=True),
        out=nn.Linear(8, 3)), lambda: tokens(6), [
        ("a", 8, "free", "a.weight", "attention.in_proj_weight"),
        ("attention", 16, "blocked", "attention.in_proj_weight", ""),
        ("attention:2", 8, "free", "attention.in_proj_weight", "attention.out_proj.weight"),
        ("attention.out_proj", 8, "free", "attention.out_proj.weight", "out.weight"),
        ("out", 3, "output", "out.weight", ""),
    ]),
    Case("cross-attention", lambda: Net(
        cross_attention, a=nn.Linear(6, 8), b=nn.Linear(4, 8),
        attention=nn.MultiheadAttention(8, 2, batch_first=True), out=nn.Linear(8, 3)),
        lambda: (tokens(6), tokens(4)), [
        ("a", 8, "free", "a.weight", "attention.in_proj_weight"),
        ("b", 8, "free", "b.weight", "attention.in_proj_weight"),
        ("attention", 16, "blocked", "attention.in_proj_weight", ""),
        ("attention:2", 8, "free", "attention.in_proj_weight", "attention.out_proj.weight"),
        ("attention.out_proj", 8, "free", "attention.out_proj.weight", "out.weight"),
        ("out", 3, "output", "out.weight", ""),
    ]),
    Case("transformer decoder layer", lambda: Net(
        decoder, a=nn.Linear(6, 8), b=nn.Linear(4, 8), layer=nn.TransformerDecoderLayer(8, 2, 12, batch_first=True),
        out=nn.Linear(8, 3)), lambda: (tokens(6), tokens(4)), [
        ("a", 8, "coupled",
         "a.weight layer.self_attn.out_proj.weight layer.multihead_attn.out_proj.weight layer.linear2.weight",
         "layer.self_attn.in_proj_weight layer.multihead_attn.in_proj_weight layer.linear1.weight out.weight"),
        ("b", 8, "free", "b.weight", "layer.multihead_attn.in_proj_weight"),
        ("layer.self_attn", 16, "blocked", "layer.self_attn.in_proj_weight", ""),
        ("layer.self_attn:2", 8, "free", "layer.self_attn.in_proj_weight", "layer.self_attn.out_proj.weight"),
        ("layer.multihead_attn", 16, "blocked", "layer.multihead_attn.in_proj_weight", ""),
        ("layer.multihead_attn:2", 8, "free", "layer.multihead_attn.in_proj_weight",
         "layer.multihead_attn.out_proj.weight"),
        ("layer.linear1", 12, "free", "layer.linear1.weight", "layer.linear2.weight"),
        ("out", 3, "output", "out.weight", ""),
    ]),
    Case("lstm", lambda: Net(
        last_step, r=nn.LSTM(6, 5, 2, batch_first=True, dropout=0.1), out=nn.Linear(5, 2)), lambda: tokens(6),
        recurrent("r", 2)),
    Case("bidirectional lstm", lambda: Net(
        all_steps, r=nn.LSTM(6, 5, 2, batch_first=True, bidirectional=True), out=nn.Linear(10, 2)),
        lambda: tokens(6), recurrent("r", 2, ("", "_reverse"))),
    Case("gru", lambda: Net(all_steps, r=nn.GRU(6, 5, 2, batch_first=True), out=nn.Linear(5, 2)), lambda: tokens(6),
         recurrent("r", 2)),
    Case("rnn", lambda: Net(last_step, r=nn.RNN(6, 5, batch_first=True), out=nn.Linear(5, 2)), lambda: tokens(6),
         recurrent("r", 1)),
    Case("rnn, state returned", lambda: Net(
        returns_its_state, r=nn.RNN(6, 5, batch_first=True), out=nn.Linear(5, 2)), lambda: tokens(6), [
        ("r.weight_ih_l0", 5, "output", "r.weight_ih_l0 r.weight_hh_l0", "r.weight_hh_l0 out.weight"),
        ("out", 2, "output", "out.weight", ""),
    ]),
    Case("rnn, state from outside", lambda: Net(
        state_from_outside, r=nn.RNN(6, 5, batch_first=True), out=nn.Linear(5, 2)),
        lambda: (tokens(6), torch.randn(1, 3, 5)), [
        ("r.weight_ih_l0", 5, "blocked", "r.weight_ih_l0 r.weight_hh_l0", "r.weight_hh_l0 out.weight"),
        ("out", 2, "output", "out.weight", ""),
    ]),
    Case("rnn cell in a loop", lambda: Net(cell, cell=nn.RNNCell(6, 5), out=nn.Linear(5, 2)), lambda: tokens(6), [
        ("cell.weight_hh", 5, "shared", "cell.weight_hh cell.weight_ih", "cell.weight_hh out.weight"),
        ("out", 2, "output", "out.weight", ""),
    ]),
    Case("gru cell in a loop", lambda: Net(cell, cell=nn.GRUCell(6, 5), out=nn.Linear(5, 2)), lambda: tokens(6), [
        ("cell.weight_ih", 5, "shared", "cell.weight_ih cell.weight_hh", "cell.weight_hh out.weight"),
        ("out", 2, "output", "out.weight", ""),
    ]),
    Case("lstm cell in a loop", lambda: Net(
        long_short_cell, cell=nn.LSTMCell(6, 5), out=nn.Linear(5, 2)), lambda: tokens(6), [
        ("cell.weight_hh", 5, "shared", "cell.weight_hh cell.weight_ih", "cell.weight_hh out.weight"),
        ("out", 2, "output", "out.weight", ""),
    ]),
    Case("language model", lambda: LanguageModel(tied=False), lambda: torch.randint(9, (3, 5)), [
        ("tok", 8, "coupled",
         stream("tok", "pos", "blocks.0.proj", "blocks.0.fc2", "blocks.1.proj", "blocks.1.fc2"),
         stream("blocks.0.qkv", "blocks.0.fc1", "blocks.1.qkv", "blocks.1.fc1", "head")),
        *block("blocks.0"), *block("blocks.1"),
        ("head", 9, "output", "head.weight", ""),
    ]),
    Case("language model, tied", lambda: LanguageModel(tied=True), lambda: torch.randint(9, (3, 5)), [
        ("tok", 8, "blocked",
         stream("tok", "pos", "blocks.0.proj", "blocks.0.fc2", "blocks.1.proj", "blocks.1.fc2"),
         stream("blocks.0.qkv", "blocks.0.fc1", "blocks.1.qkv", "blocks.1.fc1", "tok")),
        *block("blocks.0"), *block("blocks.1"),
    ]),
    Case("vision transformer", VisionTransformer, lambda: torch.randn(3, 3, 8, 8), [
        ("patch", 8, "coupled", "patch.weight cls pos block.proj.weight block.fc2.weight",
         stream("block.qkv", "block.fc1", "head")),
        *block("block"),
        ("head", 3, "output", "head.weight", ""),
    ]),
    Case("learned queries", lambda: Net(
        learned_queries, a=nn.Linear(6, 8), queries=nn.Parameter(torch.randn(4, 8)),
        attention=nn.MultiheadAttention(8, 2, batch_first=True), out=nn.Linear(8, 2)), lambda: tokens(6), [
        ("a", 8, "free", "a.weight", "attention.in_proj_weight"),
        ("queries", 8, "free", "queries", "attention.in_proj_weight"),
        ("attention", 16, "blocked", "attention.in_proj_weight", ""),
        ("attention:2", 8, "free", "attention.in_proj_weight", "attention.out_proj.weight"),
        ("attention.out_proj", 8, "free", "attention.out_proj.weight", "out.weight"),
        ("out", 2, "output", "out.weight", ""),
    ]),
    Case("embedding", lambda: Net(
        embeds, e=nn.Embedding(9, 6, padding_idx=2), a=nn.Linear(6, 7), out=nn.Linear(7, 2)),
        lambda: torch.randint(9, (3, 5)), [
        ("e", 6, "free", "e.weight", "a.weight"),
        ("a", 7, "free", "a.weight", "out.weight"),
        ("out", 2, "output", "out.weight", ""),
    ]),
    Case("bag of embeddings", lambda: Net(
        embeds, e=nn.EmbeddingBag(9, 6), a=nn.Linear(6, 7), out=nn.Linear(7, 2)), lambda: torch.randint(9, (3, 5)), [
        ("e", 6, "free", "e.weight", "a.weight"),
        ("a", 7, "free", "a.weight", "out.weight"),
        ("out", 2, "output", "out.weight", ""),
    ]),
    *(Case(f"norm by hand, {norm.__name__}", lambda norm=norm: nn.Sequential(
        nn.Linear(5, 7), norm(7), nn.ReLU(), nn.Linear(7, 6), nn.ReLU(), nn.Linear(6, 3)), lambda: tokens(5), [
        ("0", 7, "coupled", "0.weight", "3.weight"),
        ("3", 6, "free", "3.weight", "5.weight"),
        ("5", 3, "output", "5.weight", ""),
    ]) for norm in (nn.RMSNorm, RootMeanSquare, Standardise)),
    *(Case(f"gated units in a stream, {norm.__name__}", lambda norm=norm: Net(
        gated, a=nn.Linear(5, 6), norm=norm(6), gate=nn.Linear(6, 7), up=nn.Linear(6, 7), down=nn.Linear(7, 6),
        out=nn.Linear(6, 3)), lambda: tokens(5), [
        ("a", 6, "coupled", "a.weight down.weight", "gate.weight up.weight out.weight"),
        ("gate", 7, "shared", "gate.weight up.weight", "down.weight"),
        ("out", 3, "output", "out.weight", ""),
    ]) for norm in (nn.RMSNorm, RootMeanSquare)),
    Case("bilinear", lambda: Net(
        two_inputs, a=nn.Linear(5, 6), b=nn.Linear(5, 7), both=nn.Bilinear(6, 7, 4), out=nn.Linear(4, 2)),
        lambda: (tokens(5), tokens(5)), [
        ("a", 6, "blocked", "a.weight", ""),
        ("b", 7, "blocked", "b.weight", ""),
        ("both", 4, "free", "both.weight", "out.weight"),
        ("out", 2, "output", "out.weight", ""),
    ]),
    Case("bilinear with an input", lambda: Net(
        two_inputs, a=nn.Linear(5, 6), b=nn.Identity(), both=nn.Bilinear(6, 5, 4), out=nn.Linear(4, 2)),
        lambda: (tokens(5), tokens(5)), [
        ("a", 6, "free", "a.weight", "both.weight"),
        ("both", 4, "free", "both.weight", "out.weight"),
        ("out", 2, "output", "out.weight", ""),
    ]),
    Case("messages on a graph", lambda: Net(messages, a=nn.Linear(5, 6), out=nn.Linear(6, 2)),
         lambda: torch.randn(3, 5), [
        ("a", 6, "free", "a.weight", "out.weight"),
        ("out", 2, "output", "out.weight", ""),
    ]),
    Case("packed sequences", lambda: Net(
        packed, a=nn.Linear(6, 7), r=nn.GRU(7, 5, batch_first=True), out=nn.Linear(5, 2)), lambda: tokens(6), [
        ("a", 7, "free", "a.weight", "r.weight_ih_l0"), *recurrent("r", 1)]),
    Case("attention pooling", lambda: Net(
        attention_pooling, a=nn.Linear(6, 8), score=nn.Linear(8, 1), out=nn.Linear(8, 3)), lambda: tokens(6), [
        ("a", 8, "free", "a.weight", "score.weight out.weight"),
        ("score", 1, "blocked", "score.weight", ""),
        ("out", 3, "output", "out.weight", ""),
    ]),
    Case("relative positions", lambda: Net(
        relative_positions, q=nn.Linear(6, 8), k=nn.Linear(6, 8), v=nn.Linear(6, 8), bias=nn.Embedding(9, 2),
        out=nn.Linear(8, 3)), lambda: tokens(6), [
        ("q", 8, "blocked", "q.weight", ""),
        ("k", 8, "blocked", "k.weight", ""),
        ("v", 8, "free", "v.weight", "out.weight"),
        ("bias", 2, "blocked", "bias.weight", ""),
        ("out", 3, "output", "out.weight", ""),
    ]),
    Case("experts", lambda: Net(
        experts, gate=nn.Linear(8, 3), up=nn.Parameter(torch.randn(3, 8, 4)), down=nn.Parameter(torch.randn(3, 4, 8)),
        out=nn.Linear(8, 2)), lambda: torch.randn(16, 8), [
        ("gate", 3, "blocked", "gate.weight", ""),
        ("up", 12, "free", "up", "down"),
        ("down", 8, "free", "down", "out.weight"),
        ("out", 2, "output", "out.weight", ""),
    ]),
    Case("one expert for each, in a stream", lambda: Net(
        switch, a=nn.Linear(5, 8), gate=nn.Linear(8, 3), up=nn.Parameter(torch.randn(3, 8, 4)),
        down=nn.Parameter(torch.randn(3, 4, 8)), norm=nn.LayerNorm(8), out=nn.Linear(8, 2)),
        lambda: torch.randn(16, 5), [
        ("a", 8, "coupled", "a.weight down", "gate.weight up out.weight"),
        ("gate", 3, "blocked", "gate.weight", ""),
        ("up", 12, "free", "up", "down"),
        ("out", 2, "output", "out.weight", ""),
    ]),
    Case("units mixed with themselves one step before", lambda: Net(
        shifted_in_time, a=nn.Linear(5, 6), mix=weight(6), b=nn.Linear(6, 7), out=nn.Linear(7, 2)), lambda: tokens(5), [
        ("a", 6, "free", "a.weight", "b.weight"),
        ("b", 7, "free", "b.weight", "out.weight"),
        ("out", 2, "output", "out.weight", ""),
    ]),
    Case("places filled up with a number", lambda: Net(
        filled_up, v=nn.Linear(6, 8), out=nn.Linear(8, 3)), lambda: tokens(6), [
        ("v", 8, "free", "v.weight", "out.weight"),
        ("out", 3, "output", "out.weight", ""),
    ]),
    Case("rates of each unit", lambda: Net(
        states, a=nn.Linear(5, 6), rates=weight(6, 4), out=nn.Linear(6, 2)), lambda: tokens(5), [
        ("a", 6, "free", "a.weight", "out.weight"),
        ("out", 2, "output", "out.weight", ""),
    ]),
    Case("queries that begin with a norm", lambda: Net(
        lambda m: m.out(F.relu(m.a(m.norm(m.queries)))), queries=weight(4, 6), norm=nn.LayerNorm(6), a=nn.Linear(6, 7),
        out=nn.Linear(7, 2)), lambda: (), [
        ("queries", 6, "coupled", "queries", "a.weight"),
        ("a", 7, "free", "a.weight", "out.weight"),
        ("out", 2, "output", "out.weight", ""),
    ]),
]  # fmt: skip
