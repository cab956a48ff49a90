"""Random networks: values combined in ways that no one would think of."""

import random
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Step = Callable[[list[Tensor]], Tensor]


class RandomNetwork(nn.Module):
    """A pool of values; each step takes some of them and adds one; the last ones are read out.

    Args:
        seed: of the structure and the weights.
        spatial: whether values are images or vectors.
    """

    def __init__(self, seed: int, spatial: bool) -> None:
        super().__init__()
        self.spatial = spatial
        self.random = random.Random(seed)
        self.parts = nn.ModuleList()
        self.steps: list[Step] = []
        self.widths = [4]
        torch.manual_seed(seed)
        for _ in range(self.random.randint(6, 14)):
            self.add(self.random.choice(self.kinds()))
        heads = [len(self.widths) - 1]
        if self.random.random() < 0.3:
            heads.append(self.random.randrange(len(self.widths)))
        self.heads = [(place, self.head(self.widths[place])) for place in heads]

    def example(self) -> Tensor:
        return torch.randn(4, 4, 4, 4) if self.spatial else torch.randn(4, 4)

    def forward(self, value: Tensor) -> tuple[Tensor, ...]:
        pool = [value]
        for step in self.steps:
            pool.append(step(pool))
        return tuple(head(pool[place]) for place, head in self.heads)

    def kinds(self) -> list[str]:
        common = ["layer"] * 5 + ["activation"] * 3 + ["norm", "add", "add", "gate", "cat", "flip", "part", "again"]
        rare = ["layer_norm", "max", "scale", "drop", "write", "detour", "tie", "rows", "in_place", "softmax", "centre"]
        rare += ["roll", "double", "one_gate", "shift", "fold", "computed"]
        return common + rare + (["pool", "depthwise", "grouped", "group_norm"] if self.spatial else ["residual"])

    def keep(self, module: nn.Module) -> nn.Module:
        self.parts.append(module)
        return module

    def layer(self, before: int, after: int) -> nn.Module:
        bias = self.random.random() < 0.7
        if self.spatial:
            return self.keep(nn.Conv2d(before, after, self.random.choice([1, 3]), padding="same", bias=bias))
        return self.keep(nn.Linear(before, after, bias=bias))

    def pick(self) -> int:
        """A value, mostly the last, so that the network is deep."""
        last = len(self.widths) - 1
        return last if self.random.random() < 0.6 else self.random.randint(0, last)

    def alike(self, width: int) -> int:
        return self.random.choice([place for place, found in enumerate(self.widths) if found == width])

    def step(self, width: int, run: Step) -> None:
        self.steps.append(run)
        self.widths.append(width)

    def add(self, kind: str) -> None:
        one = self.pick()
        width = self.widths[one]
        other = self.alike(width)
        along = [1] * 2 if self.spatial else []
        if kind == "layer":
            after = self.random.choice([3, 4, 4, 6])
            layer = self.layer(width, after)
            self.step(after, lambda pool: layer(pool[one]))
        elif kind == "activation":
            run = self.random.choice([F.relu, torch.tanh, F.gelu, lambda value: value.clone().relu_(), F.silu])
            self.step(width, lambda pool: run(pool[one]))
        elif kind == "norm":
            norm = self.keep((nn.BatchNorm2d if self.spatial else nn.BatchNorm1d)(width))
            self.step(width, lambda pool: norm(pool[one]))
        elif kind == "add":
            sign = 1 if one == other else self.random.choice([1, -1])
            self.step(width, lambda pool: pool[one] + sign * pool[other])
        elif kind == "residual":
            inner, outer = self.layer(width, 5), self.layer(5, width)
            self.step(width, lambda pool: pool[one] + outer(F.relu(inner(pool[one]))))
        elif kind == "gate":
            self.step(width, lambda pool: torch.sigmoid(pool[one]) * pool[other])
        elif kind == "cat":
            self.step(2 * width, lambda pool: torch.cat([pool[one], pool[other]], 1))
        elif kind == "flip":
            self.step(width, lambda pool: pool[one].flip(1))
        elif kind == "part":
            half = max(1, width // 2)
            start = self.random.choice([0, width - half])
            self.step(half, lambda pool: pool[one][:, start : start + half])
        elif kind == "again":
            fitting = [part for part in self.parts if isinstance(part, nn.Linear | nn.Conv2d)]
            fitting = [part for part in fitting if part.weight.size(1) == width and getattr(part, "groups", 1) == 1]
            if fitting:
                layer = self.random.choice(fitting)
                self.step(layer.weight.size(0), lambda pool: layer(pool[one]))
        elif kind == "layer_norm":
            norm = self.keep(nn.GroupNorm(1, width) if self.spatial else nn.LayerNorm(width))
            self.step(width, lambda pool: norm(pool[one]))
        elif kind == "group_norm":
            norm = self.keep(nn.GroupNorm(width, width))
            self.step(width, lambda pool: norm(pool[one]))
        elif kind == "max":
            if width % 2 == 0:
                self.step(width // 2, lambda pool: pool[one].unflatten(1, (-1, 2)).amax(2))
        elif kind == "scale":
            gain = nn.Parameter(torch.rand(self.random.choice([1, width]), *along))
            self.register_parameter(f"gain{len(self.steps)}", gain)
            self.step(width, lambda pool: pool[one] * gain)
        elif kind == "drop":
            self.step(width, lambda pool: F.dropout(pool[one], 0.2, self.training))
        elif kind == "write":

            def write(pool: list[Tensor]) -> Tensor:
                value = torch.zeros_like(pool[one])
                value[:, : width - 1] = pool[other][:, 1:]
                value[:, width - 1 :] = 1.0
                return value

            self.step(width, write)
        elif kind == "detour":
            self.step(width, lambda pool: pool[one].movedim(1, -1).contiguous().movedim(-1, 1))
        elif kind == "tie":
            square = [part for part in self.parts if isinstance(part, nn.Linear) and part.weight.size(0) == width]
            if square:
                weight = self.random.choice(square).weight
                self.step(weight.size(1), lambda pool: pool[one] @ weight)
        elif kind == "rows":
            order = torch.randperm(width)
            self.step(width, lambda pool: pool[one][:, order])
        elif kind == "in_place":

            def change(pool: list[Tensor]) -> Tensor:
                value = pool[one].clone()
                value[:, 1:].mul_(2.0)
                value.flatten(1)[:, :1].add_(pool[other].flatten(1)[:, -1:])
                return value

            self.step(width, change)
        elif kind == "softmax":
            self.step(width, lambda pool: pool[one].softmax(1))
        elif kind == "centre":
            self.step(width, lambda pool: pool[one] - pool[other].mean(1, keepdim=True))
        elif kind == "roll":
            self.step(width, lambda pool: pool[one].roll(1, 0) + pool[other])
        elif kind == "double":
            order = torch.randint(width, (width,))
            self.step(width, lambda pool: pool[one].index_select(1, order))
        elif kind == "one_gate":
            gate = self.layer(width, 1)
            self.step(width, lambda pool: pool[one] * torch.sigmoid(gate(pool[one])))
        elif kind == "shift":
            shift = nn.Parameter(torch.rand(self.random.choice([1, width]), *along))
            self.register_parameter(f"shift{len(self.steps)}", shift)
            self.step(width, lambda pool: shift + pool[one])
        elif kind == "fold":
            self.step(width, lambda pool: torch.cat(pool[one].flatten(1).reshape(2, -1).chunk(2, 1)).view_as(pool[one]))
        elif kind == "computed":
            layer = self.layer(width, 4)
            run = F.conv2d if self.spatial else F.linear
            corner = (..., slice(1), slice(1)) if self.spatial else ...
            self.step(4, lambda pool: run(pool[one], layer.weight[corner].exp()))
        elif kind == "pool":
            run = self.random.choice([F.max_pool2d, F.avg_pool2d])
            self.step(width, lambda pool: run(pool[one], 3, 1, 1))
        elif kind == "depthwise":
            layer = self.keep(nn.Conv2d(width, 2 * width, 3, padding=1, groups=width))
            self.step(2 * width, lambda pool: layer(pool[one]))
        elif kind == "grouped":
            if width % 2 == 0:
                layer = self.keep(nn.Conv2d(width, 4, 1, groups=2))
                self.step(4, lambda pool: layer(pool[one]))
        else:
            raise ValueError(kind)

    def head(self, width: int) -> Callable[[Tensor], Tensor]:
        if not self.spatial:
            return self.keep(nn.Linear(width, 3))
        way = self.random.choice(["mean", "flatten", "permute"])
        layer = self.keep(nn.Linear(width if way == "mean" else 16 * width, 3))
        if way == "mean":
            return lambda value: layer(value.mean((2, 3)))
        if way == "flatten":
            return lambda value: layer(value.flatten(1))
        return lambda value: layer(value.permute(0, 2, 3, 1).flatten(1))
