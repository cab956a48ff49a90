"""Proving a unit graph on the real network."""

import math
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor, nn

from regrow.errors import ConfigError, ModelError
from regrow.units import host
from regrow.units.example import run, tensors_of, untouched
from regrow.units.graph import Slice, UnitGraph, UnitGroup
from regrow.units.parametrized import Parametrized, behind
from regrow.units.state import forgotten
from regrow.units.trace import find_units
from regrow.units.wrappers import without_wrapper


@dataclass(frozen=True)
class Check:
    """What was found out about one group.

    Attributes:
        group: its name.
        status: its status, which is what was put to the test.
        units: how many units were tried.
        moved: names of units and modes in which the output moved although all outgoing slices were zero.
        leak: largest such movement, relative to what the units move with their outgoing slices in place.
        idle: outgoing slices through which no effect on the output could be shown.
    """

    group: str
    status: str
    units: int
    moved: tuple[str, ...]
    leak: float
    idle: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether the group is what its status says. A coupled group is allowed to leak."""
        return (not self.moved or self.status == "coupled") and not self.idle

    def __str__(self) -> str:
        if self.status == "coupled":
            found = f"leaks {self.leak:.2g} of its effect"
        elif self.moved:
            found = f"not silent: {', '.join(self.moved)} (leaks {self.leak:.2g} of its effect)"
        else:
            found = "silent without its outgoing slices"
        if self.idle:
            found += f"; no effect shown through {', '.join(self.idle)}"
        return f"{'ok' if self.ok else 'WRONG':5}  {self.group}  {self.status}  {self.units} units: {found}"


@dataclass(frozen=True)
class Verification:
    """What `verify` found.

    Attributes:
        checks: one for each group that is free, shared or coupled.
        modes: modes of the model that were tried.
    """

    checks: tuple[Check, ...]
    modes: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether every group is what its status says."""
        return all(check.ok for check in self.checks)

    def __str__(self) -> str:
        wrong = sum(not check.ok for check in self.checks)
        verdict = "all as the graph says" if not wrong else f"{wrong} not as the graph says"
        return "\n".join(
            [*map(str, self.checks), f"{len(self.checks)} groups in {' and '.join(self.modes)}: {verdict}"]
        )


def verify(
    model: nn.Module, example: Any, graph: UnitGraph | None = None, *, units_per_group: int = 4, seed: int = 0
) -> Verification:
    """Prove a unit graph on the network itself, in training and in evaluation mode.

    For units of every free, shared and coupled group: with all outgoing slices zeroed, the output must be
    bit-identical whatever the incoming slices, bias, gain and statistics are; with any one outgoing slice back in
    place, it must depend on them. Only where a parametrization computes one of these slices, outputs that differ by
    no more than rounding (16 ε of their norm, 2e-6 in float32) count as identical. Where the present weights hide an
    effect, as behind dead units, it is looked for under random weights. Afterwards the model is exactly as before.

    Args:
        model: any network, as for `find_units`.
        example: as for `find_units`. Elements that are all zero hide effects.
        graph: what to prove; by default what `find_units` returns.
        units_per_group: how many units of each group to try, spread evenly.
        seed: of the random weights.

    Raises:
        ConfigError: fewer than one unit of each group to try.
        ModelError: the model cannot take the example, or does not return the same twice.
    """
    if units_per_group < 1:
        raise ConfigError(f"verify() needs at least 1 as units_per_group=, but got {units_per_group!r}.")
    graph = find_units(model, example) if graph is None else graph
    model = without_wrapper(model)
    for name, parameter in model.named_parameters():
        if parameter.is_meta:
            raise ModelError(
                f"{name} is on the meta device and has no values, so nothing can be proved. Give it some first."
            )
    tried = [group for group in graph if group.status in ("free", "shared", "coupled")]
    with untouched(model), torch.no_grad():
        prover = _Prover(model, example, tried, torch.Generator().manual_seed(seed))
        try:
            prover.find_modes()
            checks = tuple(prover.check(group, units_per_group) for group in tried)
        finally:
            prover.restore()
    return Verification(checks, tuple(prover.modes))


class _Prover:
    """Changes weights and looks at the outputs.

    Everything is changed in `present`, copies that go into the model before it runs: running a model may change its
    buffers.
    """

    def __init__(self, model: nn.Module, example: Any, tried: Sequence[UnitGroup], generator: Generator) -> None:
        self.model = model
        self.example = example
        self.generator = generator
        self.modes = {"training": True, "evaluation": False}
        self.live = {**dict(model.named_parameters()), **dict(model.named_buffers())}
        self.computed = {
            part.parameter: held
            for group in tried
            for part in group.slices
            if isinstance(held := behind(model, part.parameter), Parametrized)
        }
        self.original = {name: tensor.detach().clone() for name, tensor in self.live.items()}
        self.original |= {name: held.value().clone() for name, held in self.computed.items()}
        self.present = {name: tensor.clone() for name, tensor in self.original.items()}

    def find_modes(self) -> None:
        """Leave out evaluation if only training works, as `find_units` does."""
        started_in_training = self.model.training
        for mode, training in list(self.modes.items()):
            try:
                first, second = self.outputs(training), self.outputs(training)
            except ModelError:
                if training or not started_in_training:
                    raise
                del self.modes[mode]
                continue
            kind = type(self.model).__name__
            if any(bool(output.isnan().any()) for output in first):
                raise ModelError(f"{kind} returns NaN in {mode} mode, so nothing can be proved. Take another example.")
            if not _equal(first, second):
                raise ModelError(
                    f"{kind} returns different values when it is run twice on the same example with the same random "
                    f"seed, in {mode} mode, so nothing can be proved. It remembers something outside of modules, or "
                    "draws from a generator of its own: give as example= a callable that sets this back and then runs "
                    "the model."
                )

    def restore(self) -> None:
        for name, tensor in self.live.items():
            tensor.copy_(self.original[name])

    def outputs(self, training: bool) -> list[Tensor]:
        for name, tensor in self.live.items():
            tensor.copy_(self.present[name])
        for name, held in self.computed.items():
            if not torch.equal(self.present[name], self.original[name]):
                held.set(self.present[name])
        torch.manual_seed(0)
        np.random.seed(0)
        random.seed(0)
        self.model.train(training)
        with forgotten(self.model):
            return [tensor.clone() for tensor in tensors_of(run(self.model, self.example))]

    def check(self, group: UnitGroup, count: int) -> Check:
        spread = host.linspace(0, group.size - 1, min(count, group.size))
        chosen = sorted({round(place) for place in spread.tolist()})
        moved, leak = [], 0.0
        sought = list(group.having("outgoing"))
        for unit in chosen:
            for mode, training in self.modes.items():
                movement = self.movement(group, unit, training)
                if movement:
                    moved.append(f"unit {unit} in {mode}")
                    leak = max(leak, movement)
            sought = [part for part in sought if not self.has_effect(group, unit, part)]
        idle = tuple(part.parameter for part in sought if self.matters(part.parameter))
        return Check(group.name, group.status, len(chosen), tuple(moved), leak, idle)

    def movement(self, group: UnitGroup, unit: int, training: bool) -> float:
        """How much a unit without outgoing slices moves the output, relative to one that has them."""
        with self.undone():
            self.redraw(group, unit)
            whole = self.outputs(training)
            self.silence(group, unit)
            before = self.outputs(training)
            self.redraw(group, unit)
            self.silence(group, unit)  # again, since an element may be incoming as well
            after = self.outputs(training)
        if self.equal(before, after, group):
            return 0.0
        return _distance(before, after) / max(_distance(whole, before), 1e-30)

    def has_effect(self, group: UnitGroup, unit: int, part: Slice) -> bool:
        """Whether the output depends on a unit through one outgoing slice alone."""
        for all_random in (False, False, True, True, True):
            for training in self.modes.values():
                with self.undone():
                    if all_random:
                        self.randomise_all()
                    kept = self.present[part.parameter][part.index(unit)].clone()
                    if not bool(kept.any()):  # as after a reset of the layer
                        kept = host.randn(kept.shape, generator=self.generator).to(kept)
                    results = []
                    for _ in range(2):
                        self.redraw(group, unit)
                        self.silence(group, unit)
                        self.present[part.parameter][part.index(unit)] = kept
                        results.append(self.outputs(training))
                if not self.equal(results[0], results[1], group):
                    return True
        return False

    def equal(self, one: Sequence[Tensor], other: Sequence[Tensor], group: UnitGroup) -> bool:
        """Whether outputs are bit-identical; behind a parametrization of the group's weights, up to rounding."""
        if _equal(one, other) or not any(part.parameter in self.computed for part in group.slices):
            return _equal(one, other)
        rounding = max(torch.finfo(tensor.dtype).eps for tensor in one if tensor.is_floating_point())
        return _distance(one, other) <= 16 * rounding * _distance(one, [torch.zeros_like(tensor) for tensor in one])

    def matters(self, name: str) -> bool:
        """Whether any of a parameter has an effect on the output, under random weights."""
        for training in self.modes.values():
            with self.undone():
                self.randomise_all()
                before = self.outputs(training)
                self.present[name].add_(
                    host.randn(self.present[name].shape, generator=self.generator).to(self.present[name])
                )
                if not _equal(before, self.outputs(training)):
                    return True
        return False

    def redraw(self, group: UnitGroup, unit: int) -> None:
        """Give a unit other incoming weights, statistics, bias and gain, such that ReLU lets it through."""
        for part in group.having("incoming", "bias", "gain", "statistic"):
            tensor, place = self.present[part.parameter], part.index(unit)
            noise = host.randn(tensor[place].shape, generator=self.generator).to(tensor)
            if part.role == "incoming":
                wide = tensor if tensor.is_complex() else tensor.float()
                tensor[place] = noise * wide.std(correction=0).clamp(min=0.01).to(tensor)
            else:
                tensor[place] = (0.5 + noise.abs()).to(tensor)

    def silence(self, group: UnitGroup, unit: int) -> None:
        for part in group.having("outgoing"):
            self.present[part.parameter][part.index(unit)] = 0.0

    def randomise_all(self) -> None:
        names = [name for name, _ in self.model.named_parameters()]
        for name in (*names, *self.computed):
            tensor = self.present[name]
            noise = host.randn(tensor.shape, generator=self.generator).to(tensor)
            tensor.copy_(noise * (2 / tensor[0].numel()) ** 0.5 if tensor.dim() > 1 else 0.5 + noise.abs())

    @contextmanager
    def undone(self) -> Iterator[None]:
        try:
            yield
        finally:
            for name, tensor in self.present.items():
                tensor.copy_(self.original[name])


def _equal(one: Sequence[Tensor], other: Sequence[Tensor]) -> bool:
    return len(one) == len(other) and all(torch.equal(left, right) for left, right in zip(one, other, strict=True))


def _distance(one: Sequence[Tensor], other: Sequence[Tensor]) -> float:
    pairs = zip(one, other, strict=True)
    return math.sqrt(sum(float((left.double() - right.double()).square().sum()) for left, right in pairs))
