"""The law that new incoming weights are drawn from."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Generator, Tensor, nn
from torch.nn.utils import parametrize
from torch.utils._python_dispatch import TorchDispatchMode

from regrow.errors import ConfigError, nearest
from regrow.units.example import untouched
from regrow.units.graph import UnitGroup
from regrow.units.parametrized import parametrizations
from regrow.units.surgery import Region

Draw = Callable[[UnitGroup, Tensor, tuple[int, ...], Generator], Tensor]
Sample = Callable[[tuple[int, ...], Generator], Tensor]
Init = str | Draw | None


@dataclass(frozen=True)
class Law:
    """How to draw the incoming weights of new units.

    Attributes:
        description: what the table shows.
        draw: called with group, units (n,), shape (n, *one unit's incoming slice) and a host generator.
        sample: the same from shape and generator alone; None if it may look at the units.
    """

    description: str
    draw: Draw
    sample: Sample | None = None


def _independent(sample: Sample, description: str) -> Law:
    def draw(group: UnitGroup, units: Tensor, shape: tuple[int, ...], generator: Generator) -> Tensor:
        return sample(shape, generator)

    return Law(description, draw, sample)


def _uniform(low: float, high: float, description: str) -> Law:
    return _independent(lambda shape, draws: torch.empty(shape).uniform_(low, high, generator=draws), description)


def _normal(mean: float, std: float, description: str) -> Law:
    return _independent(lambda shape, draws: torch.empty(shape).normal_(mean, std, generator=draws), description)


def _constant(value: float) -> Law:
    return _independent(lambda shape, draws: torch.full(shape, value), f"constant {value:g}")


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


def draw_like_new(model: nn.Module, name: str, generator: Generator) -> Tensor:
    """New values for a whole parameter, float32 on the host: from the law that its module starts with, a constant too,
    else normal with the mean and standard deviation that it has now.
    """
    owner, _, attribute = name.rpartition(".")
    module = nn.Module.get_submodule(model, owner)
    parameter = module.get_parameter(attribute)
    law = _own_law(module, attribute, constants=True)
    if law is None or law.sample is None:
        present = parameter.detach().float()
        law = _normal(present.mean().item(), present.std(correction=0).item(), "as now")
    assert law.sample is not None
    return law.sample(tuple(parameter.shape), generator)


def _present_law(tensor: Tensor) -> Law:
    std = tensor.detach().float().std(correction=0).item()
    return _normal(0.0, std, f"normal, std {std:.3g} (as at attach)")


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
    empty = torch.empty_like(tensor, device="meta")
    return nn.Parameter(empty, requires_grad=False) if isinstance(tensor, nn.Parameter) else empty
