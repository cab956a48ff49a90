"""Probing a network numerically, without labels: what moves when a unit is re-drawn, and which weights multiply it."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

from regrow.units.example import decomposed
from regrow.units.graph import UnitGroup

aten = torch.ops.aten
_PRODUCTS = {
    aten.mm, aten.addmm, aten.bmm, aten.baddbmm, aten.mv, aten.addmv, aten.dot, aten.convolution, aten._trilinear,
}  # fmt: skip
_ELEMENTWISE = {aten.mul, aten.div, aten.add, aten.sub, aten.rsub, aten._prelu_kernel}
_STATISTICS = {aten.mean, aten.var, aten.std, aten.linalg_vector_norm}
_KEPT = (
    _ELEMENTWISE
    | _STATISTICS
    | {aten.native_layer_norm, aten._fused_rms_norm, aten.native_group_norm, aten.native_batch_norm}
)
_NOTHING = torch.empty(0, dtype=torch.int64)


@dataclass
class Seen:
    """One call of an operator: copies of its arguments, and its result."""

    operator: Any
    args: tuple[Any, ...]
    result: Any


@dataclass
class Movement:
    """What moved between two forwards.

    Attributes:
        output: whether the output did.
        multiplied: by the number of a call, a product with a sum, elements of parameters that multiply there something
            that moved.
        met: the same for elementwise operators, of elements that meet nothing that did not move.
        passing: calls in which what moved is not in all rows of the product, as where a product over places lets it
            pass beside other units.
    """

    output: bool = False
    multiplied: dict[int, Tensor] = field(default_factory=dict)
    met: dict[int, Tensor] = field(default_factory=dict)
    passing: set[int] = field(default_factory=set)


class Probe:
    """A network whose parameters hold nothing but different numbers, so that an operand tells which elements it holds.

    Args:
        model: the network; parameters in double precision.
        example: its argument.
    """

    def __init__(self, model: nn.Module, example: Tensor) -> None:
        self.model = model
        self.example = example
        self.live = {**dict(model.named_parameters()), **dict(model.named_buffers())}
        self.original = {name: tensor.detach().clone() for name, tensor in self.live.items()}
        self.present = {name: tensor.clone() for name, tensor in self.original.items()}
        self.start: dict[str, int] = {}
        total = 0
        for name, parameter in model.named_parameters():
            self.start[name] = total
            total += parameter.numel()
        self.count = total
        values = torch.cat([parameter.detach().flatten() for parameter in model.parameters()])
        self._sorted, self._order = values.sort()
        if bool((self._sorted[1:] == self._sorted[:-1]).any()):
            raise ValueError("two elements of parameters are equal")
        self._calls = {training: self.forward(training)[1] for training in (True, False)}
        self._weights: dict[tuple[bool, int], list[Tensor | None]] = {}
        self.known = self._identified()

    def forward(self, training: bool, **how: Any) -> tuple[list[Tensor], list[Seen]]:
        """Outputs under the present weights, and all calls of operators. For the keywords see `_Recorder`."""
        with torch.no_grad(), torch.random.fork_rng([]), decomposed(self.model):
            for name, tensor in self.live.items():
                tensor.copy_(self.present[name])
            torch.default_generator.manual_seed(0)
            self.model.train(training)
            with _Recorder(**how) as recorder:
                outputs = self.model(self.example.clone())
            for name, tensor in self.live.items():
                tensor.copy_(self.original[name])
        self.model.train()
        return [output.clone() for output in outputs], recorder.seen

    def matters(self, training: bool, number: int) -> bool:
        """Whether the result of a call has an effect on the output."""
        outputs = [self.forward(training, disturbed=disturbed)[0] for disturbed in (-1, number)]
        return not all(map(torch.equal, *outputs))

    def elements(self, group: UnitGroup, unit: int, *roles: Any) -> Tensor:
        """Numbers of the elements of parameters that the graph gives to a unit in some roles."""
        found = [_NOTHING]
        for part in group.having(*roles):
            if part.parameter not in self.start:
                continue
            numbers = torch.arange(self.original[part.parameter].numel()).view(part.shape) + self.start[part.parameter]
            found.append(numbers[part.index(unit)].flatten())
        return torch.cat(found)

    def knows(self, group: UnitGroup) -> bool:
        """Whether all of a group's slices are of parameters and buffers, and not of what a parametrization computes."""
        return all(part.parameter in self.live for part in group.slices)

    def describe(self, elements: Tensor) -> str:
        """Names of the parameters that some elements are of, and where they lie in them."""
        found = []
        for name, start in self.start.items():
            inside = elements[(elements >= start) & (elements < start + self.original[name].numel())] - start
            if len(inside):
                places = torch.stack(torch.unravel_index(inside, self.original[name].shape), 1)
                found.append(f"{name}{[tuple(place) for place in places[:4].tolist()]}")
        return ", ".join(found)

    def _identified(self) -> Tensor:
        """Elements that products multiply something by unchanged, and not as computed weights."""
        found = [_NOTHING]
        for training, calls in self._calls.items():
            for number, seen in enumerate(calls):
                if seen.operator.overloadpacket in _PRODUCTS:
                    found += [one.flatten() for one in self._weights_of(training, number) if one is not None]
        return torch.cat(found).unique()

    @contextmanager
    def silenced(self, group: UnitGroup, unit: int) -> Iterator[None]:
        """Within the block, the unit's outgoing slices are 0."""
        for part in group.having("outgoing"):
            self.present[part.parameter][part.index(unit)] = 0.0
        yield
        for name, tensor in self.present.items():
            tensor.copy_(self.original[name])

    def redraw(self, group: UnitGroup, unit: int, generator: torch.Generator) -> None:
        """Give a unit other incoming weights, bias, gain and statistics, and leave its outgoing slices 0."""
        for part in group.having("incoming", "bias", "gain", "statistic"):
            here = self.present[part.parameter][part.index(unit)]
            noise = torch.randn(here.shape, generator=generator, dtype=torch.float64)
            self.present[part.parameter][part.index(unit)] = noise if part.role == "incoming" else 0.5 + noise.abs()
        for part in group.having("outgoing"):
            self.present[part.parameter][part.index(unit)] = 0.0

    def movement(
        self, group: UnitGroup, unit: int, training: bool, generator: torch.Generator, freeze: bool = False
    ) -> Movement:
        """What two different versions of a unit without outgoing slices change, statistics over units frozen or not."""
        with self.silenced(group, unit):
            self.redraw(group, unit, generator)
            outputs, before = self.forward(training, freeze=freeze)
            self.redraw(group, unit, generator)
            others, after = self.forward(training, freeze=freeze, earlier=before)
        moved = Movement(output=not all(map(torch.equal, outputs, others)))
        paths = [[seen.operator for seen in calls] for calls in (before, after, self._calls[training])]
        if paths[0] != paths[1] or paths[0] != paths[2]:
            return moved  # on another path through the network, of which the output tells
        for number, (one, other) in enumerate(zip(before, after, strict=True)):
            for operators, found in ((_PRODUCTS, moved.multiplied), (_ELEMENTWISE, moved.met)):
                if one.operator.overloadpacket in operators:
                    touched, everywhere = self._touched(self._weights_of(training, number), one, other)
                    if len(touched):
                        found[number] = touched
                    if not everywhere:
                        moved.passing.add(number)
        return moved

    def _weights_of(self, training: bool, number: int) -> list[Tensor | None]:
        """For each argument of a call, which elements of parameters it holds, if nothing else."""
        key = training, number
        if key not in self._weights:
            self._weights[key] = [self._addresses(arg) for arg in self._calls[training][number].args]
        return self._weights[key]

    def _addresses(self, value: Any) -> Tensor | None:
        if not isinstance(value, Tensor) or value.dtype != torch.float64 or not value.numel() or not value.dim():
            return None
        place = torch.searchsorted(self._sorted, value.contiguous()).clamp(max=len(self._sorted) - 1)
        return self._order[place] if torch.equal(self._sorted[place], value) else None

    def _touched(self, weights: list[Tensor | None], one: Seen, other: Seen) -> tuple[Tensor, bool]:
        """Elements of the only weight of a call that something that moved meets, and whether it is in all rows."""
        places = [place for place, found in enumerate(weights) if found is not None]
        if one.operator.overloadpacket in (aten.addmm, aten.baddbmm, aten.addmv):
            places = [place for place in places if place]  # without the bias
        if one.operator.overloadpacket is aten.convolution:
            places = [place for place in places if place < 2]
        if len(places) != 1:
            return _NOTHING, True
        place = places[0]
        masks = [
            _difference(left, right) if isinstance(left, Tensor) and number != place else left
            for number, (left, right) in enumerate(zip(one.args, other.args, strict=True))
        ]
        first = 1 if one.operator.overloadpacket in (aten.addmm, aten.baddbmm, aten.addmv) else 0
        moved = [mask for mask in masks[first:] if isinstance(mask, Tensor) and mask is not one.args[place]]
        if not any(bool(mask.any()) for mask in moved):
            return _NOTHING, True
        found = weights[place]
        assert found is not None
        if one.operator.overloadpacket in _ELEMENTWISE:
            mask = torch.stack([mask.expand(one.result.shape) for mask in moved]).any(0)
            met, rest = found.expand(one.result.shape)[mask], found.expand(one.result.shape)[~mask]
            return met[~torch.isin(met, rest)], True
        if one.operator.overloadpacket is aten._trilinear:
            masks = [mask if not isinstance(mask, Tensor) or mask.any() else torch.ones_like(mask) for mask in masks]
        weight = masks[place] = torch.ones_like(one.args[place], requires_grad=True)
        if first:
            masks[0] = torch.zeros_like(one.args[0])
        with torch.enable_grad():
            result = one.operator(*masks)
            (effect,) = torch.autograd.grad(result.sum(), weight)
        channels = 1 if one.operator.overloadpacket is aten.convolution else -1
        return found[effect != 0], bool((result != 0).any(channels).all())


class _Recorder(TorchDispatchMode):
    """Keeps all calls.

    Args:
        freeze: compute norms such that their statistics can be kept ...
        earlier: ... as they were in an earlier forward, with those of the units that are not in norms.
        disturbed: number of a call whose result is changed.
    """

    def __init__(self, freeze: bool = False, earlier: list[Seen] | None = None, disturbed: int = -1) -> None:
        super().__init__()
        self.seen: list[Seen] = []
        self._freeze = freeze
        self._earlier = earlier
        self._disturbed = disturbed

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # its wrapper takes longer than the operators

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        copies = tuple(arg.clone() if isinstance(arg, Tensor) else arg for arg in args)
        result = func(*args, **(kwargs or {}))
        number = len(self.seen)
        if self._freeze:
            earlier = self._earlier[number] if self._earlier and number < len(self._earlier) else None
            result = _frozen(func, args, result, earlier)
        if number == self._disturbed:
            result.add_(torch.arange(result.numel(), dtype=torch.float64).view(result.shape).sin())
        kept = tree_map_only(Tensor, torch.clone, result) if func.overloadpacket in _KEPT else None
        self.seen.append(Seen(func, copies, kept))
        return result


def _frozen(func: Any, args: Any, result: Any, earlier: Seen | None) -> Any:
    """The result that a statistic over units, or a norm, has with the statistics of an earlier forward, if any."""
    packet = func.overloadpacket
    old = result if earlier is None or earlier.operator.overloadpacket is not packet else earlier.result
    if packet in _STATISTICS and not any(isinstance(arg, list) and sorted(arg) == [2, 3] for arg in args):
        return old
    if packet in (aten.native_layer_norm, aten._fused_rms_norm):
        value, _, gain, bias = (*args[:3], args[3] if packet is aten.native_layer_norm else None)
        mean = old[1] if packet is aten.native_layer_norm else torch.zeros(())
        return (_affine((value - mean) * old[-1], gain, bias), *old[1:])
    if packet is aten.native_batch_norm and args[5]:
        across = [
            one if one is None or args[0].dim() < 3 else one.view(-1, *[1] * (args[0].dim() - 2))
            for one in (*old[1:], *args[1:3])
        ]
        return (_affine((args[0] - across[0]) * across[1], across[2], across[3]), *old[1:])
    if packet is aten.native_group_norm:
        value, gain, bias, groups = args[0], args[1], args[2], args[6]
        mean, scale = (one[..., None] for one in old[1:])
        normed = ((value.reshape(len(value), groups, -1) - mean) * scale).view(value.shape)
        across = [None if one is None else one[:, None, None] for one in (gain, bias)]
        return (_affine(normed, *across), *old[1:])
    return result


def _difference(one: Tensor, other: Tensor) -> Tensor:
    """1 where two tensors differ."""
    return (one != other).double() if one.shape == other.shape else torch.ones_like(one, dtype=torch.float64)


def _affine(value: Tensor, gain: Tensor | None, bias: Tensor | None) -> Tensor:
    value = value if gain is None else value * gain
    return value if bias is None else value + bias
