"""A small loop that the attachment's tests share: the same data at step i whatever came before."""

from collections.abc import Callable

import torch
from torch import Tensor, nn


def make_network(seed: int = 0) -> nn.Sequential:
    """20–16–12–5, ReLU."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(20, 16), nn.ReLU(), nn.Linear(16, 12), nn.ReLU(), nn.Linear(12, 5))


def batch(step: int, size: int = 4) -> tuple[Tensor, Tensor]:
    """Inputs and labels of one step."""
    generator = torch.Generator().manual_seed(step)
    return torch.randn(size, 20, generator=generator), torch.randint(5, (size,), generator=generator)


def train(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    steps: int,
    start: int = 0,
    after: Callable[[int], None] = lambda step: None,
) -> None:
    """Run some optimizer steps, numbered from `start`; `after` is called when each has returned."""
    for step in range(start, start + steps):
        inputs, labels = batch(step)
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(inputs), labels).backward()
        optimizer.step()
        after(step)


def same(first: nn.Module, second: nn.Module) -> bool:
    """Whether two networks have bit-identical parameters."""
    return all(torch.equal(one, two) for one, two in zip(first.parameters(), second.parameters(), strict=True))
