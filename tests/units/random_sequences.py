"""Random networks with attention, recurrence, embeddings and norms by hand: the rows of a batch are the tokens."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.units.random_networks import RandomNetwork


class RandomSequence(RandomNetwork):
    """As `RandomNetwork`, for tokens.

    Args:
        seed: of the structure and the weights.
    """

    def __init__(self, seed: int) -> None:
        super().__init__(seed, spatial=False)

    def kinds(self) -> list[str]:
        own = ["attention", "packed", "heads", "root_mean_square", "position", "recurrent"] * 2
        own += ["standardise", "by_mean", "normalize", "embedding", "bag", "token", "queries", "collect", "bilinear"]
        own += ["logits", "statistic", "in_place_statistic", "key_value", "grouped_queries"]
        return super().kinds() + own

    def weight(self, *shape: int) -> nn.Parameter:
        parameter = nn.Parameter(torch.randn(shape))
        self.register_parameter(f"weight{len(self.steps)}", parameter)
        return parameter

    def add(self, kind: str) -> None:
        one = self.pick()
        width = self.widths[one]
        other = self.alike(width)
        if kind == "attention":
            q, k, v = (self.layer(width, 4) for _ in range(3))
            causal = self.random.random() < 0.5
            self.step(4, lambda pool: attend(q(pool[one]), k(pool[other]), v(pool[other]), 2, causal))
        elif kind == "packed":
            qkv = self.layer(width, 12)
            self.step(4, lambda pool: attend(*qkv(pool[one]).chunk(3, 1), 2, False))
        elif kind == "grouped_queries":
            q, kv = self.layer(width, 4), self.layer(width, 4)
            self.step(
                4, lambda pool: attend(q(pool[one]), *(x.repeat(1, 2) for x in kv(pool[other]).chunk(2, 1)), 2, True)
            )
        elif kind == "heads" and width % 2 == 0:
            attention = self.keep(nn.MultiheadAttention(width, 2, add_bias_kv=self.random.random() < 0.3))
            self.step(width, lambda pool: attention(pool[one], pool[other], pool[other], need_weights=False)[0])
        elif kind == "key_value":
            self.step(width, lambda pool: attend(pool[one], pool[other], pool[one], 1, False))
        elif kind == "root_mean_square":
            gain = self.weight(width)
            self.step(width, lambda pool: pool[one] * (pool[one].pow(2).mean(1, True) + 1e-3).rsqrt() * gain)
        elif kind == "standardise":

            def standardise(pool: list[Tensor]) -> Tensor:
                centred = pool[one] - pool[one].mean(1, keepdim=True)
                return centred / (1e-3 + centred.var(1, keepdim=True)).sqrt()

            self.step(width, standardise)
        elif kind == "by_mean":
            self.step(width, lambda pool: pool[one] * pool[other].mean(1, keepdim=True))
        elif kind == "normalize":
            self.step(width, lambda pool: F.normalize(pool[one], dim=1))
        elif kind == "statistic":
            self.step(width, lambda pool: pool[one] + pool[other].std(1, keepdim=True))
        elif kind == "in_place_statistic":
            self.step(width, lambda pool: pool[one].clone().sub_(pool[other].mean(1, keepdim=True)))
        elif kind == "position":
            positions = self.weight(4, width)
            self.step(width, lambda pool: pool[one] + positions)
        elif kind == "recurrent":
            layer = self.keep(self.random.choice([nn.LSTM, nn.GRU, nn.RNN])(width, 3, bidirectional=True))
            self.step(6, lambda pool: layer(pool[one])[0])
        elif kind == "embedding":
            table, ids = self.keep(nn.Embedding(5, width)), torch.randint(5, (4,))
            self.step(width, lambda pool: table(ids) * pool[one].sigmoid() if width > 3 else table(ids) + pool[one])
        elif kind == "bag":
            bag, ids = self.keep(nn.EmbeddingBag(5, width)), torch.randint(5, (4, 3))
            self.step(2 * width, lambda pool: torch.cat([bag(ids), pool[one]], 1))
        elif kind == "logits":
            tables = [part for part in self.parts if isinstance(part, nn.Embedding) and part.weight.size(1) == width]
            if tables:
                table = self.random.choice(tables)
                self.step(5, lambda pool: F.linear(pool[one], table.weight))
        elif kind == "token":
            token = self.weight(1, width)
            self.step(width, lambda pool: torch.cat([token, pool[one][1:]]))
        elif kind == "queries" and width % 2 == 0:
            queries, attention = self.weight(4, width), self.keep(nn.MultiheadAttention(width, 1))
            self.step(width, lambda pool: queries + attention(queries, pool[one], pool[one])[0])
        elif kind == "collect":
            index = torch.randint(4, (4,))
            self.step(width, lambda pool: torch.zeros(4, width).index_add(0, index, pool[one]) + pool[other])
        elif kind == "bilinear":
            layer = self.keep(nn.Bilinear(width, width, 4))
            self.step(4, lambda pool: layer(pool[one], pool[other]))
        elif kind in super().kinds():
            super().add(kind)


def attend(q: Tensor, k: Tensor, v: Tensor, heads: int, causal: bool) -> Tensor:
    """Attention of rows to rows."""
    split = (value.unflatten(1, (heads, -1)).movedim(0, 1) for value in (q, k, v))
    return F.scaled_dot_product_attention(*split, is_causal=causal).movedim(0, 1).flatten(1)
