"""Networks with the groups that a person finds in them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from regrow.networks.convnet import ConvNet
from regrow.networks.mlp import MLP
from regrow.networks.resnet import ResNet, resnet18

Row = tuple[str, int, str, str, str]  # name, size, status, producers, consumers


@dataclass(frozen=True)
class Case:
    """A network, an example, and the rows of its table."""

    name: str
    model: Callable[[], nn.Module]
    example: Callable[[], Any]
    rows: list[Row]

    def build(self) -> tuple[nn.Module, Any]:
        torch.manual_seed(0)
        return self.model(), self.example()


class Net(nn.Module):
    """Modules by name and a forward as a function."""

    def __init__(self, forward: Callable[..., Any], **parts: nn.Module | nn.Parameter) -> None:
        super().__init__()
        for name, part in parts.items():
            setattr(self, name, part)
        self._forward = forward

    def forward(self, *args: Tensor) -> Any:
        return self._forward(self, *args)


def vectors(*sizes: int) -> Callable[[], Any]:
    return lambda: tuple(torch.randn(4, size) for size in sizes)


def images(channels: int, size: int = 8, channels_last: bool = False) -> Callable[[], Tensor]:
    layout = torch.channels_last if channels_last else torch.contiguous_format
    return lambda: torch.randn(4, channels, size, size).to(memory_format=layout)


def weight(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.randn(shape))


def residual_mlp(m: Net, x: Tensor) -> Tensor:
    h = F.relu(m.a(x))
    h = h + m.c(F.relu(m.b(h)))
    h += m.e(torch.tanh(m.d(h)))
    return m.out(h)


def policy_and_value(m: Net, x: Tensor) -> tuple[torch.distributions.Normal, Tensor]:
    h = m.trunk(x)
    return torch.distributions.Normal(m.policy(h), m.log_std.exp()), m.value(h).squeeze(-1)


def dense_block(m: Net, x: Tensor) -> Tensor:
    a = F.relu(m.a(x))
    b = F.relu(m.b(torch.cat([x, a], 1)))
    return m.out(F.relu(torch.cat([x, a, b], 1)).flatten(1))


def conv_permute(m: Net, x: Tensor) -> Tensor:
    h = F.max_pool2d(F.relu_(m.conv(x)), 2)
    return m.out(F.relu(m.fc(h.permute(0, 2, 3, 1).flatten(1))))


def siamese(m: Net, x: Tensor, y: Tensor) -> Tensor:
    return m.out(torch.cat([F.relu(m.f(x)), F.relu(m.f(y))], 1))


def in_sequence(m: Net, x: Tensor) -> Tensor:
    h = torch.tanh(m.a(x))
    return m.out(torch.tanh(m.f(torch.tanh(m.f(h)))))


def raw(m: Net, x: Tensor) -> Tensor:
    h = m.act(F.linear(x, m.w1, m.b1))
    return (h @ m.w2 + m.b2).relu() @ m.w3


def squeeze_excite(m: Net, x: Tensor) -> Tensor:
    h = F.relu(m.conv(x))
    gate = torch.sigmoid(m.expand(F.silu(m.squeeze(h.mean((2, 3))))))
    return m.out((h * gate[:, :, None, None]).amax((2, 3)))


def set_slices(m: Net, x: Tensor) -> Tensor:
    both = x.new_zeros(x.size(0), 5)
    both[:, :3] = m.a(x)
    both[:, 3:] = m.b(x)
    return m.out(both.relu_())


def maxout(m: Net, x: Tensor) -> Tensor:
    return m.out(m.a(x).unflatten(1, (3, 2)).amax(2))


def gated(m: Net, x: Tensor) -> Tensor:
    return m.down(F.silu(m.gate(x)) * m.up(x))


def preactivation(m: Net, x: Tensor) -> Tensor:
    h = m.stem(x)
    h = h + m.conv2(F.relu(m.norm2(m.conv1(F.relu(m.norm1(h))))))
    return m.out(F.adaptive_avg_pool2d(F.relu(m.norm3(h)), 2).flatten(1))


def depthwise(expand: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 6, 1, bias=False), nn.BatchNorm2d(6), nn.ReLU6(),
        nn.Conv2d(6, 6 * expand, 3, padding=1, groups=6, bias=False), nn.BatchNorm2d(6 * expand), nn.ReLU6(),
        nn.Conv2d(6 * expand, 4, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2),
    )  # fmt: skip


def mixed(m: Net, x: Tensor) -> Tensor:
    return m.out(torch.softmax(F.relu(m.a(x)), dim=1))


CASES = [
    Case("mlp", lambda: MLP(5, [7, 6], 3), vectors(5), [
        ("0", 7, "free", "0.weight", "2.weight"),
        ("2", 6, "free", "2.weight", "4.weight"),
        ("4", 3, "output", "4.weight", ""),
    ]),
    Case("mlp, one hidden unit, one output", lambda: MLP(5, [1], 1), vectors(5), [
        ("0", 1, "free", "0.weight", "2.weight"),
        ("2", 1, "output", "2.weight", ""),
    ]),
    Case("mlp with dropout on tokens", lambda: nn.Sequential(
        nn.Linear(5, 7), nn.GELU(), nn.Dropout(0.3), nn.Linear(7, 2)), lambda: torch.randn(2, 3, 5), [
        ("0", 7, "free", "0.weight", "3.weight"),
        ("3", 2, "output", "3.weight", ""),
    ]),
    Case("mlp with batch norm", lambda: nn.Sequential(
        nn.Linear(5, 7, bias=False), nn.BatchNorm1d(7), nn.ReLU(), nn.Linear(7, 6), nn.ReLU(),
        nn.BatchNorm1d(6, affine=False), nn.Linear(6, 6), nn.BatchNorm1d(6, track_running_stats=False), nn.Tanh(),
        nn.Linear(6, 3)), vectors(5), [
        ("0", 7, "free", "0.weight", "3.weight"),
        ("3", 6, "free", "3.weight", "6.weight"),
        ("6", 6, "free", "6.weight", "9.weight"),
        ("9", 3, "output", "9.weight", ""),
    ]),
    Case("mlp with layer norm", lambda: nn.Sequential(
        nn.Linear(5, 7), nn.LayerNorm(7), nn.ReLU(), nn.Linear(7, 6), nn.ReLU(), nn.Linear(6, 3)), vectors(5), [
        ("0", 7, "coupled", "0.weight", "3.weight"),
        ("3", 6, "free", "3.weight", "5.weight"),
        ("5", 3, "output", "5.weight", ""),
    ]),
    Case("convnet", lambda: ConvNet(2, (4, 6), (3, 3), (5,), 14), images(3, 14), [
        ("0", 4, "free", "0.weight", "3.weight"),
        ("3", 6, "free", "3.weight", "7.weight"),
        ("7", 5, "free", "7.weight", "9.weight"),
        ("9", 2, "output", "9.weight", ""),
    ]),
    Case("convnet, channels last", lambda: ConvNet(2, (4, 6), (3, 3), (5,), 14).to(memory_format=torch.channels_last),
         images(3, 14, channels_last=True), [
        ("0", 4, "free", "0.weight", "3.weight"),
        ("3", 6, "free", "3.weight", "7.weight"),
        ("7", 5, "free", "7.weight", "9.weight"),
        ("9", 2, "output", "9.weight", ""),
    ]),
    Case("permute before flatten", lambda: Net(
        conv_permute, conv=nn.Conv2d(3, 4, 3, padding=1), fc=nn.Linear(64, 5), out=nn.Linear(5, 2)), images(3), [
        ("conv", 4, "free", "conv.weight", "fc.weight"),
        ("fc", 5, "free", "fc.weight", "out.weight"),
        ("out", 2, "output", "out.weight", ""),
    ]),
    Case("conv1d", lambda: nn.Sequential(
        nn.Conv1d(3, 4, 3), nn.ReLU(inplace=True), nn.AvgPool1d(2), nn.Conv1d(4, 5, 2, stride=2), nn.MaxPool1d(2),
        nn.Flatten(), nn.Linear(5, 2)), lambda: torch.randn(4, 3, 10), [
        ("0", 4, "free", "0.weight", "3.weight"),
        ("3", 5, "free", "3.weight", "6.weight"),
        ("6", 2, "output", "6.weight", ""),
    ]),
    Case("grouped convolutions", lambda: nn.Sequential(
        nn.Conv2d(4, 6, 3, groups=2), nn.ReLU(), nn.Conv2d(6, 4, 3, groups=2), nn.ReLU(),
        nn.ConvTranspose2d(4, 6, 3, groups=2), nn.ELU(), nn.Conv2d(6, 1, 3)), images(4), [
        ("0", 6, "free", "0.weight", "2.weight"),
        ("2", 4, "free", "2.weight", "4.weight"),
        ("4", 6, "free", "4.weight", "6.weight"),
        ("6", 1, "output", "6.weight", ""),
    ]),
    Case("depthwise convolution", lambda: depthwise(1), images(3), [
        ("0", 6, "free", "0.weight", "6.weight"),
        ("6", 4, "free", "6.weight", "9.weight"),
        ("9", 2, "output", "9.weight", ""),
    ]),
    Case("depthwise convolution with two channels out of one", lambda: depthwise(2), images(3), [
        ("0", 6, "free", "0.weight", "6.weight"),
        ("6", 4, "free", "6.weight", "9.weight"),
        ("9", 2, "output", "9.weight", ""),
    ]),
    Case("group and instance norm", lambda: nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.GroupNorm(2, 4), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.GroupNorm(4, 4), nn.ReLU(),
        nn.Conv2d(4, 6, 3), nn.InstanceNorm2d(6, affine=True, track_running_stats=True), nn.Flatten(),
        nn.Linear(24, 2)), images(3), [
        ("0", 4, "coupled", "0.weight", "3.weight"),
        ("3", 4, "free", "3.weight", "6.weight"),
        ("6", 6, "free", "6.weight", "9.weight"),
        ("9", 2, "output", "9.weight", ""),
    ]),
    Case("residual mlp", lambda: Net(
        residual_mlp, a=nn.Linear(5, 6), b=nn.Linear(6, 7), c=nn.Linear(7, 6), d=nn.Linear(6, 4), e=nn.Linear(4, 6),
        out=nn.Linear(6, 2)), vectors(5), [
        ("a", 6, "shared", "a.weight c.weight e.weight", "b.weight d.weight out.weight"),
        ("b", 7, "free", "b.weight", "c.weight"),
        ("d", 4, "free", "d.weight", "e.weight"),
        ("out", 2, "output", "out.weight", ""),
    ]),
    Case("small resnet", lambda: ResNet(3, (4, 6), (1, 2)), images(3), [
        ("stem", 4, "shared", "stem.weight stages.0.0.conv2.weight",
         "stages.0.0.conv1.weight stages.1.0.conv1.weight stages.1.0.shortcut.0.weight"),
        ("stages.0.0.conv1", 4, "free", "stages.0.0.conv1.weight", "stages.0.0.conv2.weight"),
        ("stages.1.0.conv1", 6, "free", "stages.1.0.conv1.weight", "stages.1.0.conv2.weight"),
        ("stages.1.0.conv2", 6, "shared",
         "stages.1.0.conv2.weight stages.1.0.shortcut.0.weight stages.1.1.conv2.weight",
         "stages.1.1.conv1.weight output.weight"),
        ("stages.1.1.conv1", 6, "free", "stages.1.1.conv1.weight", "stages.1.1.conv2.weight"),
        ("output", 3, "output", "output.weight", ""),
    ]),
    Case("preactivation resnet", lambda: Net(
        preactivation, stem=nn.Conv2d(3, 4, 3, padding=1), norm1=nn.BatchNorm2d(4), conv1=nn.Conv2d(4, 5, 1),
        norm2=nn.BatchNorm2d(5), conv2=nn.Conv2d(5, 4, 3, padding=1), norm3=nn.BatchNorm2d(4), out=nn.Linear(16, 2)),
        images(3), [
        ("stem", 4, "shared", "stem.weight conv2.weight", "conv1.weight out.weight"),
        ("conv1", 5, "free", "conv1.weight", "conv2.weight"),
        ("out", 2, "output", "out.weight", ""),
    ]),
    Case("policy and value", lambda: Net(
        policy_and_value, trunk=nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 6), nn.Tanh()),
        policy=nn.Linear(6, 2), value=nn.Linear(6, 1), log_std=weight(2)), vectors(5), [
        ("trunk.0", 7, "free", "trunk.0.weight", "trunk.2.weight"),
        ("trunk.2", 6, "free", "trunk.2.weight", "policy.weight value.weight"),
        ("policy", 2, "output", "policy.weight", ""),
        ("value", 1, "output", "value.weight", ""),
    ]),
    Case("concatenation", lambda: Net(
        dense_block, a=nn.Conv2d(3, 4, 3, padding=1), b=nn.Conv2d(7, 5, 3, padding=1), out=nn.Linear(12 * 64, 2)),
        images(3), [
        ("a", 4, "free", "a.weight", "b.weight out.weight"),
        ("b", 5, "free", "b.weight", "out.weight"),
        ("out", 2, "output", "out.weight", ""),
    ]),
    Case("siamese", lambda: Net(siamese, f=nn.Linear(5, 6), out=nn.Linear(12, 2)), vectors(5, 5), [
        ("f", 6, "free", "f.weight", "out.weight"),
        ("out", 2, "output", "out.weight", ""),
    ]),
    Case("one layer twice in sequence", lambda: Net(
        in_sequence, a=nn.Linear(5, 6), f=nn.Linear(6, 6), out=nn.Linear(6, 2)), vectors(5), [
        ("a", 6, "shared", "a.weight f.weight", "f.weight out.weight"),
        ("out", 2, "output", "out.weight", ""),
    ]),
    Case("raw parameters", lambda: Net(
        raw, w1=weight(7, 5), b1=weight(7), act=nn.ReLU(), w2=weight(7, 6), b2=weight(6), w3=weight(6, 2)),
        vectors(5), [
        ("w1", 7, "free", "w1", "w2"),
        ("w2", 6, "free", "w2", "w3"),
        ("w3", 2, "output", "w3", ""),
    ]),
    Case("squeeze and excitation", lambda: Net(
        squeeze_excite, conv=nn.Conv2d(3, 6, 3), squeeze=nn.Linear(6, 2), expand=nn.Linear(2, 6), out=nn.Linear(6, 2)),
        images(3), [
        ("conv", 6, "shared", "conv.weight expand.weight", "squeeze.weight out.weight"),
        ("squeeze", 2, "free", "squeeze.weight", "expand.weight"),
        ("out", 2, "output", "out.weight", ""),
    ]),
    Case("writes into parts of a buffer", lambda: Net(
        set_slices, a=nn.Linear(5, 3), b=nn.Linear(5, 2), out=nn.Linear(5, 2)), vectors(5), [
        ("a", 3, "free", "a.weight", "out.weight"),
        ("b", 2, "free", "b.weight", "out.weight"),
        ("out", 2, "output", "out.weight", ""),
    ]),
    Case("maxout", lambda: Net(maxout, a=nn.Linear(5, 6), out=nn.Linear(3, 2)), vectors(5), [
        ("a", 3, "free", "a.weight", "out.weight"),
        ("out", 2, "output", "out.weight", ""),
    ]),
    Case("gated", lambda: Net(gated, gate=nn.Linear(5, 6), up=nn.Linear(5, 6), down=nn.Linear(6, 2)), vectors(5), [
        ("gate", 6, "shared", "gate.weight up.weight", "down.weight"),
        ("down", 2, "output", "down.weight", ""),
    ]),
    Case("glu", lambda: nn.Sequential(nn.Linear(5, 8), nn.GLU(), nn.Linear(4, 2)), vectors(5), [
        ("0", 4, "free", "0.weight", "2.weight"),
        ("2", 2, "output", "2.weight", ""),
    ]),
    Case("softmax over hidden units", lambda: Net(mixed, a=nn.Linear(5, 6), out=nn.Linear(6, 2)), vectors(5), [
        ("a", 6, "blocked", "a.weight", ""),
        ("out", 2, "output", "out.weight", ""),
    ]),
    Case("log-softmax at the end", lambda: nn.Sequential(
        nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 3), nn.LogSoftmax(1)), vectors(5), [
        ("0", 6, "free", "0.weight", "2.weight"),
        ("2", 3, "output", "2.weight", ""),
    ]),
]  # fmt: skip

RESNET18 = Case("resnet18", lambda: resnet18(10), images(3, 16), [
    ("stem", 64, "shared", "stem.weight stages.0.0.conv2.weight stages.0.1.conv2.weight",
     "stages.0.0.conv1.weight stages.0.1.conv1.weight stages.1.0.conv1.weight stages.1.0.shortcut.0.weight"),
    ("stages.0.0.conv1", 64, "free", "stages.0.0.conv1.weight", "stages.0.0.conv2.weight"),
    ("stages.0.1.conv1", 64, "free", "stages.0.1.conv1.weight", "stages.0.1.conv2.weight"),
    ("stages.1.0.conv1", 128, "free", "stages.1.0.conv1.weight", "stages.1.0.conv2.weight"),
    ("stages.1.0.conv2", 128, "shared",
     "stages.1.0.conv2.weight stages.1.0.shortcut.0.weight stages.1.1.conv2.weight",
     "stages.1.1.conv1.weight stages.2.0.conv1.weight stages.2.0.shortcut.0.weight"),
    ("stages.1.1.conv1", 128, "free", "stages.1.1.conv1.weight", "stages.1.1.conv2.weight"),
    ("stages.2.0.conv1", 256, "free", "stages.2.0.conv1.weight", "stages.2.0.conv2.weight"),
    ("stages.2.0.conv2", 256, "shared",
     "stages.2.0.conv2.weight stages.2.0.shortcut.0.weight stages.2.1.conv2.weight",
     "stages.2.1.conv1.weight stages.3.0.conv1.weight stages.3.0.shortcut.0.weight"),
    ("stages.2.1.conv1", 256, "free", "stages.2.1.conv1.weight", "stages.2.1.conv2.weight"),
    ("stages.3.0.conv1", 512, "free", "stages.3.0.conv1.weight", "stages.3.0.conv2.weight"),
    ("stages.3.0.conv2", 512, "shared",
     "stages.3.0.conv2.weight stages.3.0.shortcut.0.weight stages.3.1.conv2.weight",
     "stages.3.1.conv1.weight output.weight"),
    ("stages.3.1.conv1", 512, "free", "stages.3.1.conv1.weight", "stages.3.1.conv2.weight"),
    ("output", 10, "output", "output.weight", ""),
])  # fmt: skip
