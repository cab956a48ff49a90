"""The law that new incoming weights are drawn from."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Generator, Tensor, nn
from torch.nn.utils import parametrize
from torch.utils._python_dispatch import TorchDispatchMode

from regrow.errors import ConfigError, nearest
from regrow.units import host
from regrow.units.example import untouched
from regrow.units.graph import UnitGroup
from regrow.units.parametrized import parametrizations
from regrow.units.surgery import Region

Draw = Callable[[UnitGroup, Tensor, tuple[int, ...], Generator], Tensor]
Init = str | Draw | None
Kind = Literal["uniform", "normal", "constant"]


@dataclass(frozen=True)
class Law:
    """How to draw the incoming weights of new units.

    Attributes:
        description: what the table shows.
        draw: called with group, units (n,), shape (n, *one unit's incoming slice) and a host generator.
        same: the law that is the same for every element; None if there is none.
        is_measured: it was read off the values that the tensor had at attach, and not off the code that draws it.
    """

    description: str
    draw: Draw
    same: "SameLaw | None" = None
    is_measured: bool = False


@dataclass(frozen=True)
class SameLaw:
    """The law of a tensor whose elements are drawn independently, all from one distribution.

    Attributes:
        kind: "uniform" between two numbers, "normal" with mean and standard deviation, or "constant".
        first: the lower bound, the mean or the value.
        second: the upper bound or the standard deviation.
    """

    kind: Kind
    first: float
    second: float = 0.0

    @classmethod
    def from_tensor(cls, values: Tensor) -> "SameLaw":
        """The law that `as_tensor` wrote down."""
        kind, first, second = values.tolist()
        return cls(get_args(Kind)[int(kind)], first, second)

    def as_tensor(self) -> Tensor:
        """Everything about it, as float64."""
        return host.tensor([get_args(Kind).index(self.kind), self.first, self.second], dtype=torch.float64)

    def sample(self, shape: tuple[int, ...], generator: Generator) -> Tensor:
        """Draws of a shape, float32 on the host."""
        if self.kind == "uniform":
            return host.empty(shape).uniform_(self.first, self.second, generator=generator)
        if self.kind == "normal":
            return host.empty(shape).normal_(self.first, self.second, generator=generator)
        return host.full(shape, self.first, dtype=torch.float32)

    def could_give(self, values: Tensor) -> bool:
        """Whether values, not all of them equal, spread as draws from this law do, as far as chance goes."""
        if self.kind == "constant":
            return False
        uniform = self.kind == "uniform"
        middle = (self.first + self.second) / 2 if uniform else self.first
        std = (self.second - self.first) / math.sqrt(12) if uniform else self.second
        found = (values - middle).square().mean().sqrt().item()
        return abs(found - std) <= 4 * std / math.sqrt(values.numel())


def _independent(same: SameLaw, description: str, is_measured: bool = False) -> Law:
    def draw(group: UnitGroup, units: Tensor, shape: tuple[int, ...], generator: Generator) -> Tensor:
        return same.sample(shape, generator)

    return Law(description, draw, same, is_measured)


def _uniform(low: float, high: float, description: str) -> Law:
    return _independent(SameLaw("uniform", low, high), description)


def _normal(mean: float, std: float, description: str) -> Law:
    return _independent(SameLaw("normal", mean, std), description)


def _constant(value: float) -> Law:
    return _independent(SameLaw("constant", value), f"constant {value:g}")


# Named laws by fan-in n: the uniform bound or the standard deviation. Gains as torch.nn.init has them, for ReLU.
_NAMED: dict[str, Callable[[int, str], Law]] = {
    "kaiming_uniform": lambda n, text: _uniform(-math.sqrt(6 / n), math.sqrt(6 / n), text),
    "kaiming_normal": lambda n, text: _normal(0.0, math.sqrt(2 / n), text),
    "lecun_uniform": lambda n, text: _uniform(-math.sqrt(3 / n), math.sqrt(3 / n), text),
    "lecun_normal": lambda n, text: _normal(0.0, math.sqrt(1 / n), text),
}


def law_for(model: nn.Module, region: Region, init: Init = None) -> Law:
    """The law for one incoming slice.

    By default the law of the owning module's `reset_parameters`, if it draws the whole tensor from one uniform
    or normal distribution; else normal with the standard deviation that the tensor has now.

    Args:
        model: the model that the slice's name is relative to.
        region: the incoming slice on its tensor.
        init: None, the name of a law, or a callable `(group, units, shape, generator) -> Tensor`.

    Raises:
        ConfigError: no law has that name.
    """
    if callable(init):
        return Law(getattr(init, "__name__", type(init).__name__), init)
    if init is not None:
        if init not in _NAMED:
            raise ConfigError(f"There is no initial law {init!r} for init=; {nearest(str(init), _NAMED)}")
        return _NAMED[init](region.fan_in, init)
    owner, _, name = region.part.parameter.rpartition(".")
    return _own_law(nn.Module.get_submodule(model, owner), name) or _present_law(region.tensor)


def starting_law(model: nn.Module, name: str) -> SameLaw:
    """The law that a whole parameter of a network that has not been trained was drawn from.

    The law of its module's `reset_parameters`, unless the values at hand cannot come from it, since something else gave
    the network its first weights: then the constant that they are, or a uniform or normal law with their mean and
    standard deviation.
    """
    present = _module_of(model, name).get_parameter(name.rpartition(".")[2]).detach().float()
    law = reset_law(model, name)
    if bool((present == present.flatten()[:1]).all()):
        is_own = law is not None and present.numel() == 1
        return law if law is not None and is_own else SameLaw("constant", present.flatten()[0].item())
    if law is not None and law.could_give(present):
        return law
    mean, std = present.mean().item(), present.std(correction=0).item()
    if (present - mean).abs().max().item() < 1.8 * std:  # a normal law goes on for longer than √3
        return SameLaw("uniform", mean - math.sqrt(3) * std, mean + math.sqrt(3) * std)
    return SameLaw("normal", mean, std)


def reset_law(model: nn.Module, name: str) -> SameLaw | None:
    """What `reset_parameters` of its module draws a parameter from; None if that is not one simple law."""
    law = _own_law(_module_of(model, name), name.rpartition(".")[2], constants=True)
    return None if law is None else law.same


def _module_of(model: nn.Module, name: str) -> nn.Module:
    return nn.Module.get_submodule(model, name.rpartition(".")[0])


def _present_law(tensor: Tensor) -> Law:
    return measured_law(SameLaw("normal", 0.0, tensor.detach().float().std(correction=0).item()))


def measured_law(same: SameLaw) -> Law:
    """A normal law with the standard deviation that a tensor had at attach."""
    return _independent(same, f"normal, std {same.second:.3g} (as at attach)", is_measured=True)


class _DrawRecorder(TorchDispatchMode):
    """Notes which distribution a tensor was last filled from, and whether anything else was done to it."""

    def __init__(self, tensor: Tensor | None, constants: bool) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.tensor = tensor
        self.constants = constants
        self.law: Law | None = None

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if args and args[0] is self.tensor and func._schema.is_mutable:
            self.law = None
            if func is torch.ops.aten.uniform_.default:
                low, high = _arguments(args)
                self.law = _uniform(low, high, f"uniform in [{low:.3g}, {high:.3g}]")
            elif func is torch.ops.aten.normal_.default:
                mean, std = _arguments(args)
                self.law = _normal(mean, std, f"normal, mean {mean:.3g}, std {std:.3g}")
            elif self.constants and func in (torch.ops.aten.zero_.default, torch.ops.aten.fill_.Scalar):
                self.law = _constant(0.0 if func is torch.ops.aten.zero_.default else float(args[1]))
        return func(*args, **(kwargs or {}))


def _arguments(args: tuple[Any, ...]) -> tuple[float, float]:
    """The two arguments of `uniform_` or `normal_` after the tensor, both of which default to (0, 1)."""
    return (args[1] if len(args) > 1 else 0.0, args[2] if len(args) > 2 else 1.0)


def _own_law(owner: nn.Module, name: str, constants: bool = False) -> Law | None:
    """What `reset_parameters` of a module draws a parameter from, found by running it on a shadow without data, in
    which computed weights are parameters again.
    """
    with untouched(owner):
        computed = {one: nn.Parameter(held.value()) for one, held in parametrizations(owner).items()}
    parameters = {**owner._parameters, **computed}
    if not callable(getattr(owner, "reset_parameters", None)) or name not in parameters:
        return None
    shadow: nn.Module = object.__new__(parametrize.type_before_parametrizations(owner))
    shadow.__dict__.update(owner.__dict__)
    for kind, tensors in (("_parameters", parameters), ("_buffers", owner._buffers)):
        shadow.__dict__[kind] = {
            key: value if value is None else _without_data(value) for key, value in tensors.items()
        }
    recorder = _DrawRecorder(shadow._parameters[name], constants)
    with recorder, torch.no_grad():
        shadow.reset_parameters()  # type: ignore[operator]
    return recorder.law


def _without_data(tensor: Tensor | None) -> Tensor | None:
    if tensor is None:
        return None
    # Contiguous: where memory is in another order, torch draws on meta tensors in several steps.
    empty = torch.empty_like(tensor, device="meta", memory_format=torch.contiguous_format)
    return nn.Parameter(empty, requires_grad=False) if isinstance(tensor, nn.Parameter) else empty
