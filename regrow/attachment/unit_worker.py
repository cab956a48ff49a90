"""A unit method at work on the groups of one model."""

import warnings
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Generator, Tensor, nn
from torch.optim import Optimizer

from regrow.attachment.hooks import Switch, TapReader
from regrow.errors import ConfigError, StateError
from regrow.methods.method import UnitMethod
from regrow.units.graph import Tap, UnitGroup
from regrow.units.initial import Init, law_for
from regrow.units.parametrized import behind, parameters_behind
from regrow.units.surgery import Region


@dataclass(frozen=True)
class Event:
    """One replacement.

    Attributes:
        step: the optimizer step after which it happened, from 1.
        group: name of the unit group.
        unit: index of the unit in its group.
    """

    step: int
    group: str
    unit: int


class Site:
    """One group as a unit method sees and serves it: readings, state, surgery. Implements `Readings`.

    Args:
        group: the group.
        model: the model whose parameters the group's slices name.
        method: the method, as `method_for` the group.
        init: law of new incoming weights, as for `attach`.
        switch: whether forwards count.
    """

    def __init__(self, group: UnitGroup, model: nn.Module, method: UnitMethod, init: Init, switch: Switch) -> None:
        self.group = group
        self.size = group.size
        self.method = method
        self._model = model
        regions = [Region(part, behind(model, part.parameter)) for part in group.slices]
        self._incoming = [region for region in regions if region.part.role == "incoming"]
        self._outgoing = [region for region in regions if region.part.role == "outgoing"]
        self._resting = [region for region in regions if region.part.role in ("bias", "gain", "statistic")]
        self.laws = [law_for(model, region, init) for region in self._incoming]
        # A recurrent weight makes and reads the same units: there the zero of the outgoing slice wins.
        names = {region.part.parameter for region in self._incoming}
        self._recurrent = [region for region in self._outgoing if region.part.parameter in names]

        taps: dict[Tap, list[Region]] = {}
        if method.reads_activations:
            for region in self._outgoing:
                assert region.part.tap is not None  # else there is another method in its place
                taps.setdefault(region.part.tap, []).append(region)
        self.readers = [TapReader(model, tap, method.needs == "activations", switch) for tap in taps]
        self._read_by = list(taps.values())
        self._first_order: Tensor | None = None

        self.schedule = method.schedule(self.size)
        self.state = method.initial_state(len(self.readers), self.size)
        # The step after which each unit was drawn: age without a write at every step.
        self.born = torch.zeros(self.size, dtype=torch.int64)
        self.not_finite = torch.zeros(self.size, dtype=torch.bool)
        self.warned = False

    def follow_device(self) -> None:
        """Keep the state where the parameters are."""
        device = self._incoming[0].parameters[0].device
        if self.born.device != device:
            self.state = {key: value.to(device) for key, value in self.state.items()}
            self.born, self.not_finite = self.born.to(device), self.not_finite.to(device)

    def follow_model(self) -> None:
        """Take the buffers that the model has now: moving it puts new ones in the place of the old.

        Raises:
            StateError: another parameter has been put in the place of one.
        """
        for region in (*self._incoming, *self._outgoing, *self._resting):
            present = parameters_behind(self._model, region.part.parameter).values()
            if region.part.role != "statistic" and list(map(id, present)) != list(map(id, region.parameters)):
                raise StateError(
                    f"{region.part.parameter} is not the parameter that it was at attach(), so group "
                    f"{self.group.name!r} cannot be replaced. After exchanging a layer, detach() and attach() anew."
                )
            region.held = behind(self._model, region.part.parameter)

    def has_gradient(self) -> bool:
        """Whether the last backward pass reached the group's incoming weights."""
        return any(tensor.grad is not None for region in self._incoming for tensor in region.parameters)

    def age(self) -> Tensor:
        """Optimizer steps since each unit was drawn, int64 of shape (units,)."""
        return self.schedule.step - self.born

    def copy_of_state(self) -> dict[str, Tensor]:
        """What the method remembers, by name."""
        return {key: value.clone() for key, value in self.state.items()}

    def seen(self) -> bool:
        """Whether there is something to observe since the last step."""
        return self._first_order is not None or any(reader.seen for reader in self.readers)

    def read_gradients(self, scale: Tensor | None) -> None:
        """Take the reading of `first_order`, if the method needs it and a backward pass reached the group.

        Args:
            scale: what the gradients are to be divided by; None for 1.
        """
        if self.method.needs == "first_order":
            found = [sums for region in self._outgoing if (sums := region.first_order()) is not None]
            self._first_order = (_total(found) if scale is None else _total(found) / scale) if found else None

    def clear(self) -> None:
        """Forget what was read since the last step."""
        self._first_order = None
        for reader in self.readers:
            reader.clear()

    def mean_abs(self) -> list[Tensor]:
        """See `Readings`."""
        return [reader.mean_abs() for reader in self.readers]

    def activations(self) -> list[Tensor]:
        """See `Readings`."""
        return [reader.activations() for reader in self.readers]

    def first_order(self) -> Tensor:
        """See `Readings`."""
        return torch.zeros_like(self.born, dtype=torch.float32) if self._first_order is None else self._first_order

    def outgoing(self) -> list[Tensor]:
        """See `Readings`."""
        return [_total(region.abs_sums() for region in regions) for regions in self._read_by]

    def incoming(self) -> Tensor:
        """See `Readings`."""
        return _total(region.abs_sums() for region in self._incoming)

    def silence(self, units: Tensor, optimizer: Optimizer | None) -> None:
        """Zero the outgoing slices of some units."""
        for region in self._outgoing:
            region.fill(units, 0.0)
            if optimizer is not None:
                region.clear_state(optimizer, units)

    def redraw(self, units: Tensor, optimizer: Optimizer | None, generator: Generator) -> None:
        """Draw the incoming slices of some units anew and bring all else about them back to its beginning."""
        for region, law in zip(self._incoming, self.laws, strict=True):
            shape = (len(units), *region.unit_shape)
            drawn = law.draw(self.group, units, shape, generator)
            if not isinstance(drawn, Tensor) or tuple(drawn.shape) != shape:
                got = tuple(drawn.shape) if isinstance(drawn, Tensor) else type(drawn).__name__
                raise ConfigError(
                    f"init={law.description} must return a tensor of shape {shape} for {region.part.parameter} of "
                    f"group {self.group.name!r}, but returned {got}."
                )
            region.write(units, drawn)
        for region in self._recurrent:
            region.fill(units, 0.0)
        for region in self._resting:
            region.restore(units)
        if optimizer is not None:
            for region in (*self._incoming, *self._resting):
                region.clear_state(optimizer, units)
        for value in self.state.values():
            value[..., units] = 0
        self.born[units] = self.schedule.step

    def warn_if_not_finite(self) -> None:
        """Warn once if NaN or infinity was met in this group's activations or weights."""
        if not self.warned and bool(self.not_finite.any()):
            self.warned = True
            count = int(self.not_finite.sum())
            warnings.warn(
                f"NaN or infinity in the activations or weights of {count} of {self.size} units of group "
                f"{self.group.name!r} at step {self.schedule.step}: such readings do not count towards utility. "
                "Look at the loss and the step size; this is said once per group.",
                RuntimeWarning,
                stacklevel=2,
            )


class UnitWorker:
    """Carries a unit method through training: one call of `step` per optimizer step.

    Args:
        method: the method.
        sites: the groups that it serves, front to back.
        generator: source of all its draws.
    """

    def __init__(self, method: UnitMethod, sites: list[Site], generator: Generator) -> None:
        self.method = method
        self.sites = sites
        self.generator = generator

    def before_step(self, optimizer: Optimizer | None) -> None:
        """Read what the step will change."""
        # A fused optimizer gets gradients as GradScaler left them, and unscales them itself.
        scale = getattr(optimizer, "grad_scale", None)
        for site in self.sites:
            site.read_gradients(scale)

    def step(self, optimizer: Optimizer | None) -> list[Event]:
        """Observe, choose among the eligible, replace. Returns what was replaced."""
        chosen: list[tuple[Site, Tensor]] = []
        for site in self.sites:
            due = site.schedule.advance(self.generator)
            site.follow_device()
            self._observe(site)
            if due:
                site.follow_model()
                chosen.append((site, self._choose(site, due)))
        # All outgoing weights first: where one is also the incoming weight of another newborn, the re-draw wins.
        for site, units in chosen:
            site.silence(units, optimizer)
        for site, units in chosen:
            site.redraw(units, optimizer, self.generator)
        return [Event(site.schedule.step, site.group.name, unit) for site, units in chosen for unit in units.tolist()]

    def utility_of(self, site: Site) -> dict[str, Tensor]:
        """The utility of a site's units at the moment; nothing if the method remembers nothing."""
        if not site.state:
            return {}
        age = site.age()
        utility = site.method.utility(site, site.state, age.clamp(min=1), Generator())
        return {"utility": torch.where(age > 0, utility, 0.0)}

    def _observe(self, site: Site) -> None:
        if site.seen():
            not_finite = site.method.observe(site, site.state, site.age())
            if not_finite is not None:
                site.not_finite |= not_finite
        site.clear()

    def _choose(self, site: Site, due: int) -> Tensor:
        age = site.age()
        utility = site.method.utility(site, site.state, age, self.generator)
        finite = utility.isfinite()
        site.not_finite |= ~finite
        site.warn_if_not_finite()
        eligible = (age > site.method.maturity_threshold).nonzero().flatten()
        # A utility that is not finite is no reason to replace a unit: such units come last.
        ranked = torch.where(finite, utility, float("inf"))[eligible].argsort(stable=True)
        return eligible[ranked[:due]]


def _total(sums: Iterable[Tensor]) -> Tensor:
    first, *rest = sums
    for other in rest:
        first = first + other
    return first
