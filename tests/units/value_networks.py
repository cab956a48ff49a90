"""Networks whose values choose, leave for Python or change their form, with the groups that a person finds in them."""

import warnings
from collections import deque
from typing import Any

import torch
from torch import Tensor, nn

from tests.units.hand_written import Case, Net, vectors


def masked_by_values(m: Net, x: Tensor) -> Tensor:
    h, active = m.a(x).clone(), torch.zeros(len(x), 6)
    active[m.b(x) > 0.3] = 1.0
    h[h < 0] = 0
    return m.out(h * active)


def picked_by_values(m: Net, x: Tensor) -> Tensor:
    chosen = x.new_zeros(len(x), 2)
    chosen[torch.arange(len(x)), (m.a(x)[:, 0] > 0).long()] = 1.0
    return m.out(chosen)


def as_long_as_told(m: Net, x: Tensor) -> Tensor:
    h = torch.relu(m.a(x))
    lengths = m.length(h).exp().clamp(1, 3).long().squeeze(1)
    return m.out(torch.cat([one.repeat_interleave(times, 0) for one, times in zip(h[:, None], lengths, strict=True)]))


def from_lists(m: Net, x: Tensor) -> Tensor:
    """Of each value one element, put into a list: no operator reads it."""
    h = [getattr(m, name)(x).detach()[0, 0] for name in "abcd"]
    numbers = torch.tensor([h[0], 1.0]), torch.as_tensor([h[1]]), x.new_tensor([[h[2]]])[0], torch.FloatTensor([h[3]])
    return m.out(torch.cat(numbers)[None].to(x))


def where_told(m: Net, x: Tensor) -> Tensor:
    """As many rows as a unit says, of numbers up to another one."""
    count = (m.a(x)[:1, 0].abs().clamp(1, 4)).long()
    rows = torch.ones(6, 4, dtype=x.dtype).tensor_split(count)[0]
    return m.out(rows.sum(0) * torch.linspace(0.0, m.b(x)[0, 0].detach(), 4))


class Hidden:
    """A result that keeps its value in a slot."""

    __slots__ = ("value",)

    def __init__(self, value: Tensor) -> None:
        self.value = value


def in_odd_places(m: Net, x: Tensor) -> dict[str, Any]:
    a, b = torch.relu(m.a(x)), torch.relu(m.b(x))
    return {"logits": m.out(a + b.sum(1, keepdim=True)), "a": Hidden(a), "b": deque([[[[[[[[b]]]]]]]])}


def written_by_numpy(m: Net, x: Tensor) -> Tensor:
    """Zeros that are none any more."""
    made = torch.zeros(len(x), 6, dtype=x.dtype)
    made.numpy()[:, :3] = 1.5
    return m.out(made) + m.out(torch.relu(m.a(x)))


def nested(m: Net, x: Tensor) -> Tensor:
    h = m.a(x)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a prototype
        return m.out(torch.nested.as_nested_tensor([h[:1], h[1:]]).to_padded_tensor(0.0))


def into_others(m: Net, x: Tensor) -> Tensor:
    """Of the last units nothing is left."""
    with torch.no_grad():
        h = m.a(x)
        torch.cumsum(h[:, :3], 1, out=h[:, 3:])
    return m.out(h)


def complex_pairs(m: Net, x: Tensor) -> Tensor:
    """Pairs of units are turned in a plane."""
    angles = torch.polar(torch.ones(3, dtype=x.dtype), torch.arange(3, dtype=x.dtype))
    pairs = torch.view_as_complex(m.a(x).view(len(x), 3, 2)) * angles
    return m.out(torch.view_as_real(pairs.conj().resolve_conj()).flatten(1))


def complex_layers(m: Net, x: Tensor) -> Tensor:
    h = m.b(torch.tanh(m.a(x.to(m.a.weight.dtype))))
    return m.out(torch.cat([h.real, h.imag], 1))


VALUES = [
    Case("numbers where a mask of values is set", lambda: Net(
        masked_by_values, a=nn.Linear(5, 6), b=nn.Linear(5, 6), out=nn.Linear(6, 2)), vectors(5), [
        ("a", 6, "shared", "a.weight b.weight", "out.weight"),
        ("out", 2, "output", "out.weight", ""),
    ]),
    Case("a number where values say", lambda: Net(
        picked_by_values, a=nn.Linear(5, 1), out=nn.Linear(2, 2)), vectors(5), [
        ("a", 1, "blocked", "a.weight", ""),
        ("out", 2, "output", "out.weight", ""),
    ]),
    Case("a unit says how long the output is", lambda: Net(
        as_long_as_told, a=nn.Linear(5, 6), length=nn.Linear(6, 1), out=nn.Linear(6, 2)), vectors(5), [
        ("a", 6, "free", "a.weight", "length.weight out.weight"),
        ("length", 1, "blocked", "length.weight", ""),
        ("out", 2, "output", "out.weight", ""),
    ]),
    Case("numbers out of lists of values", lambda: Net(
        from_lists, **{name: nn.Linear(5, 1) for name in "abcd"}, out=nn.Linear(5, 2)), vectors(5), [
        *((name, 1, "blocked", f"{name}.weight", "") for name in "abcd"),
        ("out", 2, "output", "out.weight", ""),
    ]),
    Case("values say how many rows, and up to where", lambda: Net(
        where_told, a=nn.Linear(5, 1), b=nn.Linear(5, 1), out=nn.Linear(4, 2)), vectors(5), [
        ("a", 1, "blocked", "a.weight", ""),
        ("b", 1, "free", "b.weight", "out.weight"),
        ("out", 2, "output", "out.weight", ""),
    ]),
    Case("outputs in odd places", lambda: Net(
        in_odd_places, a=nn.Linear(5, 6), b=nn.Linear(5, 6), out=nn.Linear(6, 2)), vectors(5), [
        ("a", 6, "output", "a.weight", "out.weight"),
        ("b", 6, "output", "b.weight", ""),
        ("out", 2, "output", "out.weight", ""),
    ]),
    Case("nested tensors", lambda: Net(nested, a=nn.Linear(5, 6), out=nn.Linear(6, 2)), vectors(5), [
        ("a", 6, "blocked", "a.weight", ""),
        ("out", 2, "output", "out.weight", ""),
    ]),
    Case("zeros that NumPy writes into", lambda: Net(
        written_by_numpy, a=nn.Linear(5, 6), out=nn.Linear(6, 2)), vectors(5), [
        ("out", 2, "output", "out.weight", ""),
        ("a", 6, "blocked", "a.weight", "out.weight"),
    ]),
    Case("written over other units", lambda: Net(into_others, a=nn.Linear(5, 6), out=nn.Linear(6, 2)), vectors(5), [
        ("a", 3, "blocked", "a.weight", "out.weight"),
        ("a:2", 3, "unused", "a.weight", ""),
        ("out", 2, "output", "out.weight", ""),
    ]),
    Case("pairs as complex numbers", lambda: Net(complex_pairs, a=nn.Linear(5, 6), out=nn.Linear(6, 2)), vectors(5), [
        ("a", 3, "free", "a.weight", "out.weight"),
        ("out", 2, "output", "out.weight", ""),
    ]),
    Case("complex layers", lambda: Net(
        complex_layers, a=nn.Linear(5, 6, dtype=torch.cfloat), b=nn.Linear(6, 4, dtype=torch.cfloat),
        out=nn.Linear(8, 2)), vectors(5), [
        ("a", 6, "free", "a.weight", "b.weight"),
        ("b", 4, "free", "b.weight", "out.weight"),
        ("out", 2, "output", "out.weight", ""),
    ]),
]  # fmt: skip
