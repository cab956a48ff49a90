"""The networks that steps are timed on, each with a batch and its loss."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from regrow.networks.mlp import MLP
from regrow.networks.resnet import ResNet


class Attention(nn.Module):
    """Causal self-attention."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, value: Tensor) -> Tensor:
        """[batch, tokens, width] to the same."""
        parts = self.qkv(value).chunk(3, dim=2)
        query, key, content = (part.unflatten(2, (self.heads, -1)).transpose(1, 2) for part in parts)
        mixed = functional.scaled_dot_product_attention(query, key, content, is_causal=True)
        result: Tensor = self.out(mixed.transpose(1, 2).flatten(2))
        return result


class Block(nn.Module):
    """Attention and a feed-forward layer, norms first."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.attention = nn.LayerNorm(width), Attention(width, heads)
        self.norm2 = nn.LayerNorm(width)
        self.feed_forward = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, value: Tensor) -> Tensor:
        """[batch, tokens, width] to the same."""
        value = value + self.attention(self.norm1(value))
        result: Tensor = value + self.feed_forward(self.norm2(value))
        return result


class GPT(nn.Module):
    """A decoder-only transformer in plain torch, as one would write it by hand."""

    def __init__(self, vocabulary: int, tokens: int, layers: int, width: int, heads: int) -> None:
        super().__init__()
        self.token, self.position = nn.Embedding(vocabulary, width), nn.Embedding(tokens, width)
        self.blocks = nn.Sequential(*(Block(width, heads) for _ in range(layers)))
        self.norm, self.output = nn.LayerNorm(width), nn.Linear(width, vocabulary, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """[batch, tokens] of int64 to logits [batch, tokens, vocabulary]."""
        value = self.token(tokens) + self.position(torch.arange(tokens.size(1), device=tokens.device))
        result: Tensor = self.output(self.norm(self.blocks(value)))
        return result


@dataclass(frozen=True)
class Workload:
    """What is trained.

    Attributes:
        description: the network and its batch, in words.
        model: makes the network.
        inputs: makes the inputs of one batch.
        classes: number of outputs.
        steps: how many training steps one timed call takes.
        rounds: how often each case is timed.
    """

    description: str
    model: Callable[[], nn.Module]
    inputs: Callable[[], Tensor]
    classes: int
    steps: int
    rounds: int

    def build(self) -> tuple[nn.Module, Tensor, Callable[[], Tensor]]:
        """The network, its inputs and its loss on them; the same every time."""
        torch.manual_seed(0)
        model, inputs = self.model(), self.inputs()
        labels = torch.randint(self.classes, model(inputs).shape[:-1]).flatten()
        return model, inputs, lambda: functional.cross_entropy(model(inputs).flatten(0, -2), labels)


WORKLOADS = {
    "mlp": Workload(
        "MLP 784–2000–2000–2000–10, batch 32",
        lambda: MLP(784, [2000] * 3, 10),
        lambda: torch.rand(32, 784),
        10,
        steps=5,
        rounds=8,
    ),
    "resnet": Workload(
        "ResNet-18 on 3×32×32, batch 32", lambda: ResNet(10), lambda: torch.rand(32, 3, 32, 32), 10, steps=1, rounds=4
    ),
    "gpt": Workload(
        "GPT of 6 layers × 384, 256 characters, batch 4×256",
        lambda: GPT(256, 256, layers=6, width=384, heads=6),
        lambda: torch.randint(256, (4, 256)),
        256,
        steps=1,
        rounds=4,
    ),
}
