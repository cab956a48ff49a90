"""Steps on sequences: [batch, token, feature]."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.units.grammar.program import Choices, Network, Run, kind


def attend(q: Tensor, k: Tensor, v: Tensor, heads: int, causal: bool = False) -> Tensor:
    split = (value.unflatten(-1, (heads, -1)).transpose(1, 2) for value in (q, k, v))
    return F.scaled_dot_product_attention(*split, is_causal=causal).transpose(1, 2).flatten(2)


@kind("sequences")
def attention(net: Network, width: int, choose: Choices) -> Run:
    q, k, v = (net.layer(width, 4) for _ in range(3))
    heads, causal, out = choose(2, 1), choose(False, True), choose(False, True)
    last = net.layer(4, 4)

    def run(x: Tensor, y: Tensor) -> Tensor:
        found = attend(q(x), k(y), v(y), heads, causal)
        return last(found) if out else found

    return run


@kind("sequences")
def attention_by_hand(net: Network, width: int, choose: Choices) -> Run:
    qkv = net.layer(width, 12)

    def run(x: Tensor, y: Tensor) -> Tensor:
        q, k, v = (
            qkv(x).view(2, 4, 3, 2, 2).permute(2, 0, 3, 1, 4)
            if mixed
            else (part.unflatten(-1, (2, 2)).transpose(1, 2) for part in qkv(x).chunk(3, -1))
        )
        scores = (q @ k.mT / 2).masked_fill(torch.ones(4, 4).triu(1) > 0, -1e9)
        return (F.dropout(scores.softmax(-1), 0.1, net.training) @ v).transpose(1, 2).flatten(2)

    mixed = choose(True, False)
    return run


@kind("sequences")
def grouped_queries(net: Network, width: int, choose: Choices) -> Run:
    q, kv = net.layer(width, 4), net.layer(width, 4)
    return lambda x, y: attend(q(x), *(part.repeat(1, 1, 2) for part in kv(y).chunk(2, -1)), 2, True)


@kind("sequences")
def key_value(net: Network, width: int, choose: Choices) -> Run:
    return lambda x, y: attend(x, y, x, 1)


@kind("sequences")
def linear_attention(net: Network, width: int, choose: Choices) -> Run:
    """Without a soft-max: keys and values are summed over tokens first."""
    q, k, v = net.layer(width, 3), net.layer(width, 3), net.layer(width, 4)
    return lambda x, y: F.elu(q(x)) @ (F.elu(k(y)).mT @ v(y))


@kind("sequences")
def heads(net: Network, width: int, choose: Choices) -> Run | None:
    if width % 2:
        return None
    more = choose({}, {"add_bias_kv": True}, {"kdim": width, "vdim": width}, {"bias": False})
    layer = net.keep(nn.MultiheadAttention(width, 2, batch_first=True, **more))
    return lambda x, y: layer(x, y, y, need_weights=False)[0]


@kind("sequences")
def transformer(net: Network, width: int, choose: Choices) -> Run | None:
    if width % 2:
        return None
    layer = net.keep(nn.TransformerEncoderLayer(width, 2, 5, 0.1, batch_first=True, norm_first=choose(True, False)))
    return lambda x, y: layer(x)


@kind("sequences")
def queries(net: Network, width: int, choose: Choices) -> Run | None:
    """Learned queries."""
    if width % 2:
        return None
    query, layer = net.parameter(1, 4, width), net.keep(nn.MultiheadAttention(width, 1, batch_first=True))
    return lambda x, y: query + layer(query.expand(2, 4, width), x, x)[0]


@kind("sequences")
def token(net: Network, width: int, choose: Choices) -> Run:
    """A class token in the place of the first."""
    first = net.parameter(1, 1, width)
    return lambda x, y: torch.cat([first.expand(2, 1, width), x[:, 1:]], 1)


@kind("sequences")
def position(net: Network, width: int, choose: Choices) -> Run:
    positions = net.parameter(*choose((1, 4, width), (4, width), (4, 1), (2, 4, width)))
    return lambda x, y: x + positions


@kind("sequences")
def recurrent(net: Network, width: int, choose: Choices) -> Run:
    made = choose(nn.LSTM, nn.GRU, nn.RNN)
    layer = net.keep(made(width, 3, choose(1, 2), batch_first=True, bidirectional=choose(False, True)))
    final = choose(False, True)

    def run(x: Tensor, y: Tensor) -> Tensor:
        found, state = layer(x)
        if not final:
            return found
        state = state[0] if isinstance(state, tuple) else state
        return torch.cat([found, state[-1][:, None].expand(2, 4, 3)], -1)

    return run


@kind("sequences")
def cell(net: Network, width: int, choose: Choices) -> Run:
    """A cell in a loop, from zeros or from a learned state."""
    made, learned = choose(nn.GRUCell, nn.RNNCell, nn.LSTMCell)(width, 3), choose(False, True)
    layer, start = net.keep(made), net.parameter(1, 3)

    def run(x: Tensor, y: Tensor) -> Tensor:
        state = start.expand(2, 3) if learned else x.new_zeros(2, 3)
        memory, found = x.new_zeros(2, 3), []
        for step in x.unbind(1):
            if isinstance(layer, nn.LSTMCell):
                state, memory = layer(step, (state, memory))
            else:
                state = layer(step, state)
            found.append(state)
        return torch.stack(found, 1)

    return run


@kind("sequences")
def own_cell(net: Network, width: int, choose: Choices) -> Run:
    """A recurrence by hand, also with the same weight for input and state."""
    weight = net.parameter(width, width)
    own = net.layer(width, width)

    def run(x: Tensor, y: Tensor) -> Tensor:
        state, found = torch.zeros_like(x[:, 0]), []
        for step in x.unbind(1):
            state = torch.tanh(own(step) + state @ weight if two else own(step + state))
            found.append(state)
        return torch.stack(found, 1)

    two = choose(True, False)
    return run


@kind("sequences")
def along_time(net: Network, width: int, choose: Choices) -> Run:
    mixer = net.keep(nn.Linear(4, 4))
    run = choose(
        lambda x: mixer(x.mT).mT,
        lambda x: x.cumsum(1),
        lambda x: x.flip(1),
        lambda x: torch.cat([torch.zeros_like(x[:, :1]), x[:, :-1]], 1),
        lambda x: x.mean(1, keepdim=True).expand_as(x),
        lambda x: x.softmax(1) * x,
        lambda x: F.pad(x, (0, 0, 1, 0))[:, :-1] + x,
    )
    return lambda x, y: run(x)


@kind("sequences")
def mixer_block(net: Network, width: int, choose: Choices) -> Run:
    inner, outer = net.keep(nn.Linear(4, 3)), net.keep(nn.Linear(3, 4))
    return lambda x, y: x + outer(F.gelu(inner(x.mT))).mT


@kind("sequences")
def convolution(net: Network, width: int, choose: Choices) -> Run:
    groups = choose(1, width)
    after = width if groups > 1 else 4
    layer = net.keep(nn.Conv1d(width, after, 3, padding=choose(1, 2), groups=groups))
    return lambda x, y: layer(x.mT)[..., :4].mT


@kind("sequences")
def collect(net: Network, width: int, choose: Choices) -> Run:
    """Message passing on a graph whose nodes are the tokens."""
    source, target = torch.randint(4, (6,)), torch.randint(4, (6,))
    layer = net.layer(width, width)
    run = choose(
        lambda x: torch.zeros_like(x).index_add(1, target, layer(x)[:, source]),
        lambda x: torch.zeros_like(x).scatter_add(1, target[None, :, None].expand(2, 6, width), x[:, source]),
        lambda x: x.index_copy(1, target[:1], x[:, source[:1]] * 2.0),
    )
    return lambda x, y: run(x) + y


@kind("sequences")
def matrices(net: Network, width: int, choose: Choices) -> Run:
    """A matrix for each token."""
    weight, bias = net.parameter(4, width, 3), net.parameter(4, 1, 3)
    run = choose(
        lambda x: torch.einsum("bti,tio->bto", x, weight),
        lambda x: torch.bmm(x.transpose(0, 1), weight).transpose(0, 1),
        lambda x: torch.baddbmm(bias, x.transpose(0, 1), weight).transpose(0, 1),
    )
    return lambda x, y: run(x)


@kind("sequences")
def flat(net: Network, width: int, choose: Choices) -> Run:
    """All tokens together in one layer."""
    layer = net.keep(nn.Linear(4 * width, 8))
    run = choose(lambda x: x.flatten(1), lambda x: x.mT.flatten(1), lambda x: x.reshape(2, -1))
    return lambda x, y: layer(run(x)).view(2, 4, 2)


@kind("sequences")
def conditional(net: Network, width: int, choose: Choices) -> Run:
    """Experts picked by the data: half of the rows go one way, half another, so that the example reaches both."""
    left, right, router = net.layer(width, 3), net.layer(width, 3), net.layer(width, 2)

    def run(x: Tensor, y: Tensor) -> Tensor:
        flat = x.flatten(0, 1)
        pick = router(y)[..., 0].flatten().argsort() < 4 if routed else torch.arange(8) % 2 == 0
        found = x.new_zeros(8, 3)
        found[pick] = left(flat[pick])
        found[~pick] = right(flat[~pick])
        return found.view(2, 4, 3)

    routed = choose(True, False)
    return run
