"""Every method, on networks and with optimizers as people train with: what all tests of the suite are run on."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer
from transformers.optimization import Adafactor

import regrow
from regrow.attachment.attachment import Attachment
from regrow.methods import Method, UnitMethod, WeightMethod, methods_by_name
from regrow.networks.convnet import ConvNet
from regrow.networks.resnet import ResNet

SIZE = 4  # examples in a batch


class ActorCritic(nn.Module):
    """Two networks in one module and one optimizer, as in PPO."""

    def __init__(self) -> None:
        super().__init__()
        self.actor = nn.Sequential(nn.Linear(6, 12), nn.Tanh(), nn.Linear(12, 10), nn.ReLU(), nn.Linear(10, 3))
        self.critic = nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 10), nn.ReLU(), nn.Linear(10, 1))

    def forward(self, state: Tensor) -> tuple[Tensor, Tensor]:
        return self.actor(state), self.critic(state)


class Block(nn.Module):
    """Causal attention and a feed-forward network, norms first."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        parts = self.qkv(self.norm1(x)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        seen = F.scaled_dot_product_attention(*parts, is_causal=True)
        x = x + self.proj(seen.transpose(1, 2).flatten(2))
        return x + self.down(F.relu(self.up(self.norm2(x))))


class Transformer(nn.Module):
    """A language model of two blocks."""

    def __init__(self, words: int = 11, width: int = 8, length: int = 6) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(words, width), nn.Embedding(length, width)
        self.blocks = nn.Sequential(Block(width, 2), Block(width, 2))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, words)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.norm(self.blocks(self.words(tokens) + self.places.weight[: tokens.shape[1]])))


@dataclass(frozen=True)
class Problem:
    """A network and data for it.

    Attributes:
        build: makes the network.
        draw: makes inputs and targets of so many examples.
        loss: of what the network returns, and targets; the mean over the batch.
        norms_over_batch: what one example does depends on the others of its batch.
    """

    build: Callable[[], nn.Module]
    draw: Callable[[torch.Generator, int], tuple[Tensor, Tensor]]
    loss: Callable[[Any, Tensor], Tensor] = F.cross_entropy
    norms_over_batch: bool = False

    def network(self, seed: int = 0) -> nn.Module:
        """A network in training mode; the same one for the same seed."""
        with torch.random.fork_rng([]):
            torch.manual_seed(seed)
            return self.build()

    def batch(self, step: int, size: int = SIZE) -> tuple[Tensor, Tensor]:
        """Inputs and targets of one step: the same whatever came before."""
        return self.draw(torch.Generator().manual_seed(step), size)


def _vectors(draws: torch.Generator, size: int) -> tuple[Tensor, Tensor]:
    return torch.randn(size, 8, generator=draws), torch.randint(4, (size,), generator=draws)


def _images(draws: torch.Generator, size: int) -> tuple[Tensor, Tensor]:
    return torch.randn(size, 1, 12, 12, generator=draws), torch.randint(4, (size,), generator=draws)


def _states(draws: torch.Generator, size: int) -> tuple[Tensor, Tensor]:
    return torch.randn(size, 6, generator=draws), torch.randn(size, 4, generator=draws)


def _texts(draws: torch.Generator, size: int) -> tuple[Tensor, Tensor]:
    words = torch.randint(11, (size, 7), generator=draws)
    return words[:, :-1], words[:, 1:]


PROBLEMS = {
    "mlp": Problem(
        lambda: nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 12), nn.ReLU(), nn.Linear(12, 4)), _vectors
    ),
    "convnet": Problem(lambda: ConvNet(4, (4, 6, 8), (3, 2, 1), (10,), size=12, colours=1), _images),
    "resnet": Problem(lambda: ResNet(4, (4, 6), (1, 1), colours=1), _images, norms_over_batch=True),
    "actor-critic": Problem(ActorCritic, _states, lambda heads, wanted: F.mse_loss(torch.cat(heads, 1), wanted)),
    "transformer": Problem(
        Transformer, _texts, lambda logits, words: F.cross_entropy(logits.flatten(0, 1), words.flatten())
    ),
}

OPTIMIZERS: dict[str, Callable[[Any], Optimizer]] = {
    "sgd": lambda parameters: torch.optim.SGD(parameters, lr=0.05, momentum=0.9),
    "adam": lambda parameters: torch.optim.Adam(parameters, lr=0.01),
    "fused-adamw": lambda parameters: torch.optim.AdamW(parameters, lr=0.01, fused=True),
    # Not of torch, and with states that are not of the parameters' shapes.
    "adafactor": lambda parameters: Adafactor(parameters, lr=0.01, scale_parameter=False, relative_step=False),
}

Test = Callable[..., None]

# Variants come last, so that with a new one no other case gets another optimizer.
_KINDS = methods_by_name()
METHODS = [*_KINDS]


def brisk_settings(name: str) -> dict[str, Any]:
    """Settings under which a method acts within few steps."""
    kind, extra = _KINDS[name]
    return {**kind.brisk, **extra}


def brisk(name: str) -> Method:
    """A method with settings under which it acts within few steps."""
    return _KINDS[name][0](**brisk_settings(name))


def off(name: str) -> Method:
    """A method with settings under which it does nothing."""
    kind, extra = _KINDS[name]
    return kind(**{**extra, **kind.off})


def acts_at_task_changes_only(method: Method) -> bool:
    """Whether it does nothing until it is told of a task change."""
    return isinstance(method, WeightMethod) and method.acts_at_task_changes and not method.acts_at_steps


def replaces(method: Method) -> bool:
    """Whether it replaces units."""
    return isinstance(method, UnitMethod)


def every_method(where: Callable[[Method], bool] = lambda method: True) -> pytest.MarkDecorator:
    """Run a test with each method of a kind."""
    return pytest.mark.parametrize("method", [name for name in METHODS if where(brisk(name))])


def every_case(where: Callable[[Method], bool] = lambda method: True) -> Callable[[Test], Test]:
    """Run a test with each method of a kind on each network. Optimizers take turns, so that each method meets all.

    A variant, of which most is inherited, meets one network in each test: others in other tests.
    """
    names = [name for name in METHODS if where(brisk(name))]
    turns = [
        (name, problem, first + second) for first, name in enumerate(names) for second, problem in enumerate(PROBLEMS)
    ]

    def decorate(test: Test) -> Test:
        of_variants = [*PROBLEMS][len(test.__name__) % len(PROBLEMS)]
        cases = [
            (name, problem, [*OPTIMIZERS][turn % len(OPTIMIZERS)])
            for name, problem, turn in turns
            if name in Method.registry or problem == of_variants
        ]
        return pytest.mark.parametrize(("method", "problem", "optimizer"), cases)(test)

    return decorate


@dataclass
class Run:
    """A network in training.

    Attributes:
        problem: what it learns.
        model: the network.
        optimizer: its optimizer.
        plastic: what `attach` returned; None for a run without regrow.
        task: so many steps to a task change, of which the attachment is told; 0 for none.
        steps: so many have been made.
    """

    problem: Problem
    model: nn.Module
    optimizer: Optimizer
    plastic: Attachment | None
    task: int = 10
    steps: int = 0

    def train(self, steps: int, size: int = SIZE) -> "Run":
        """Make some steps. A task change comes before the step after it."""
        for _ in range(steps):
            if self.task and self.steps and self.steps % self.task == 0:
                self.change_task()
            inputs, targets = self.problem.batch(self.steps, size)
            self.optimizer.zero_grad()
            self.problem.loss(self.model(inputs), targets).backward()
            self.optimizer.step()
            self.steps += 1
        return self

    def change_task(self) -> None:
        """Tell of a task change, with the losses of two batches of the new data."""
        if self.plastic is not None and self.plastic.attached:
            new = [self.problem.batch(10_000 + self.steps + number) for number in range(2)]
            self.plastic.task_changed(self.problem.loss(self.model(inputs), targets) for inputs, targets in new)

    @property
    def state(self) -> dict[str, Tensor]:
        """Parameters and buffers, copied."""
        return {name: value.clone() for name, value in self.model.state_dict().items()}


def start(problem: str, optimizer: str, method: Method | Sequence[Method] | None, seed: int = 0, task: int = 10) -> Run:
    """A run at its beginning, with a method or without."""
    kind = PROBLEMS[problem]
    model = kind.network()
    made = OPTIMIZERS[optimizer](model.parameters())
    plastic = None
    if method is not None:
        plastic = regrow.attach(model, made, method, example=kind.batch(0)[0], seed=seed)
    return Run(kind, model, made, plastic, task)


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    """Whether two states hold the same bits."""
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)
