"""Attention, recurrent networks and embeddings, with the groups that a person finds in them."""

import torch
from torch import Tensor, nn

from tests.units.hand_written import Case, Net, Row

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


def recurrent(name: str, layers: int, ways: tuple[str, ...] = ("",), out: str = "out.weight") -> list[Row]:
    """Rows of stacked recurrent layers: what a layer's units read and write are themselves and the layer above."""
    rows = []
    for layer in range(layers):
        above = [f"{name}.weight_ih_l{layer + 1}{way}" for way in ways] if layer + 1 < layers else [out]
        for way in ways:
            made, own = (f"{name}.weight_{kind}_l{layer}{way}" for kind in ("ih", "hh"))
            rows.append((made, 5, "shared", f"{made} {own}", " ".join([own, *above])))
    return [*rows, ("out", 2, "output", "out.weight", "")]


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
        ("r.weight_ih_l0", 5, "blocked", "r.weight_ih_l0 r.weight_hh_l0", "out.weight"),
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
]  # fmt: skip
