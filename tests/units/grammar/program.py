"""Random networks as programs: lists of steps, which hypothesis draws, shrinks and prints."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from hypothesis import strategies
from torch import Tensor, nn

Run = Callable[[Tensor, Tensor], Tensor]  # of one value and another of the same width
Kind = Callable[["Network", int, "Choices"], Run | None]  # None if a step of this kind does not fit

EXAMPLES = {"vectors": (4, 4), "images": (4, 4, 4, 4), "sequences": (2, 4, 4)}  # units lie along AXES
AXES = {"vectors": 1, "images": 1, "sequences": 2}
kinds: dict[str, dict[str, Kind]] = {family: {} for family in EXAMPLES}


def kind(*families: str) -> Callable[[Kind], Kind]:
    """Register a function as a kind of step, for all families if none is named."""

    def register(function: Kind) -> Kind:
        for family in families or EXAMPLES:
            kinds[family][function.__name__] = function
        return function

    return register


class Step(NamedTuple):
    """One step of a program.

    Attributes:
        kind: name of the function that says what it does.
        one: the value that it takes, counted back from the last.
        other: a second value of the same width, counted back from the last of these.
        choice: everything else that is to be chosen, as one number.
    """

    kind: str
    one: int = 0
    other: int = 0
    choice: int = 0


@dataclass(frozen=True)
class Program:
    """What a network does: each step adds a value to a pool; in the end some are read out.

    Attributes:
        family: of what form values are, a key of `EXAMPLES`.
        steps: in order. Those that do not fit are left out.
        end: how values are read out, as one number.
    """

    family: str
    steps: tuple[Step, ...]
    end: int = 0


class Choices:
    """Choices by the digits of a number. All are the first option if it is 0."""

    def __init__(self, number: int) -> None:
        self._number = number

    def __call__(self, *options: Any) -> Any:
        self._number, place = divmod(self._number, len(options))
        return options[place]


def programs(family: str, *only: str) -> strategies.SearchStrategy[Program]:
    """Programs of one family, layers and activations more often than other steps, or of some kinds of steps only."""
    names = list(only) or [name for name in kinds[family] for _ in range(_OFTEN.get(name, 1))]
    back = strategies.integers(0, 3)
    steps = strategies.builds(Step, strategies.sampled_from(names), back, back, strategies.integers(0, 719))
    return strategies.builds(
        Program,
        strategies.just(family),
        strategies.lists(steps, min_size=4, max_size=16).map(tuple),
        strategies.integers(0, 719),
    )


_OFTEN = {"layer": 9, "activation": 4, "add": 3, "cat": 2, "gate": 2, "attention": 3, "convolution": 3, "layer_norm": 4}


class Network(nn.Module):
    """Runs a program. Numbers are in double precision and weights all different, so that each tells which it is."""

    def __init__(self, program: Program) -> None:
        super().__init__()
        self.axis = AXES[program.family]
        self.family = program.family
        self.parts = nn.ModuleList()
        self.example = torch.randn(EXAMPLES[program.family], dtype=torch.float64, generator=_generator(0))
        self._steps: list[tuple[Step, int, int, Run]] = []
        self._pool = [self.example]
        default = torch.get_default_dtype()
        torch.set_default_dtype(torch.float64)
        try:
            with torch.random.fork_rng([]), torch.no_grad():
                torch.manual_seed(0)
                for step in program.steps:
                    self._add(step)
                self._heads = self._read_out(Choices(program.end))
                self._randomise()
        finally:
            torch.set_default_dtype(default)
            del self._pool

    def forward(self, value: Tensor) -> tuple[Tensor, ...]:
        pool = [value]
        for _, one, other, run in self._steps:
            pool.append(run(pool[one], pool[other]))
        return tuple(head(pool[place]) for place, head in self._heads)

    def listing(self) -> str:
        """The program as it runs, one step a line, and the shapes of all parameters."""
        lines = [
            f"v{number} = {step.kind}(v{one}, v{other}; {step.choice})"
            for number, (step, one, other, _) in enumerate(self._steps, start=1)
        ]
        read = ", ".join(f"v{place}" for place, _ in self._heads)
        shapes = [f"{name} {tuple(parameter.shape)}" for name, parameter in self.named_parameters()]
        return "\n".join([*lines, f"read out: {read}", *shapes])

    # What kinds of steps build with.

    def keep(self, module: nn.Module) -> Any:
        """Make a module part of the network."""
        self.parts.append(module)
        return module

    def parameter(self, *shape: int) -> nn.Parameter:
        """A parameter of the network itself."""
        weight = nn.Parameter(torch.rand(shape))
        self.register_parameter(f"weight{len(list(self.parameters(recurse=False)))}", weight)
        return weight

    def layer(self, before: int, after: int, bias: bool = True) -> Any:
        """The plain layer of the family, one number of channels to another."""
        if self.family == "images":
            return self.keep(nn.Conv2d(before, after, 1, bias=bias))
        return self.keep(nn.Linear(before, after, bias=bias))

    def per_unit(self, weight: Tensor) -> Tensor:
        """A parameter with an element for each unit, in the shape in which it meets values."""
        return weight[:, None, None] if self.family == "images" else weight

    def last(self, value: Tensor) -> Tensor:
        """A value with units along the last dimension."""
        return value.movedim(self.axis, -1)

    def back(self, value: Tensor) -> Tensor:
        """The inverse of `last`."""
        return value.movedim(-1, self.axis)

    def part(self, value: Tensor, start: int, length: int) -> Tensor:
        """Some of the units, as a view."""
        return value.narrow(self.axis, start, length)

    # Building.

    def _add(self, step: Step) -> None:
        one = max(len(self._pool) - 1 - step.one, 0)
        width = self._pool[one].size(self.axis)
        alike = [place for place, value in enumerate(self._pool) if value.size(self.axis) == width]
        other = alike[-1 - step.other % len(alike)]
        run = kinds[self.family][step.kind](self, width, Choices(step.choice))
        if run is not None:
            self.eval()
            self._steps.append((step, one, other, run))
            self._pool.append(run(self._pool[one].clone(), self._pool[other].clone()))
            self.train()

    def _read_out(self, choose: Choices) -> list[tuple[int, Callable[[Tensor], Tensor]]]:
        places = [len(self._pool) - 1]
        if choose(False, False, True):
            places.append(choose(*range(len(self._pool))))
        return [(place, self._head(self._pool[place], choose)) for place in places]

    def _head(self, value: Tensor, choose: Choices) -> Callable[[Tensor], Tensor]:
        if self.family == "vectors":
            read: Callable[[Tensor], Tensor] = choose(lambda value: value)
        elif self.family == "images":
            read = choose(
                lambda value: value.mean((2, 3)),
                lambda value: value.flatten(1),
                lambda value: value.permute(0, 2, 3, 1).flatten(1),
                lambda value: value.amax((2, 3)),
            )
        else:
            read = choose(
                lambda value: value,
                lambda value: value.mean(1),
                lambda value: value[:, -1],
                lambda value: value.flatten(1),
            )
        layer = self.keep(nn.Linear(read(value).size(-1), 3))
        return lambda value: layer(read(value))

    def _randomise(self) -> None:
        generator = _generator(1)
        for parameter in self.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(noise / parameter[0].numel() ** 0.5 if parameter.dim() > 1 else 0.3 + 0.5 * noise)


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)
