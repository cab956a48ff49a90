"""One unit group as a unit method sees and serves it."""

import warnings
from collections.abc import Iterable
from functools import reduce

import torch
from torch import Generator, Tensor, nn
from torch.optim import Optimizer

from regrow.attachment.clock import Clock, Time
from regrow.attachment.hooks import Switch, TapReader
from regrow.errors import ConfigError, StateError
from regrow.methods.picks import Picks
from regrow.methods.unit_method import Choice, UnitMethod
from regrow.units import host
from regrow.units.graph import Tap, UnitGroup
from regrow.units.initial import Init, SameLaw, law_for, measured_law
from regrow.units.parametrized import behind, parameters_behind
from regrow.units.surgery import Region


class Site:
    """Readings, state and surgery of a group. Implements `Readings`.

    Args:
        group: the group.
        model: the model whose parameters the group's slices name.
        method: the method, as `method_for` the group.
        init: law of new incoming weights, as for `attach`.
        switch: whether forwards count.
        time: what counts as a step, as for `attach`.
    """

    def __init__(
        self, group: UnitGroup, model: nn.Module, method: UnitMethod, init: Init, switch: Switch, time: Time
    ) -> None:
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
        self._reading = Switch()  # off while the method does not want to know
        self.readers = [TapReader(model, tap, method.needs, (switch, self._reading)) for tap in taps]
        self._read_by = list(taps.values())
        self._of_gradients: Tensor | None = None

        self._clock = Clock(self._incoming[0].parameters[0]) if time == "step_sizes" else None
        self.schedule = method.schedule(self.size)
        self.state = method.initial_state(len(self.readers), self.size)
        self.picks = Picks(self.size)
        # The step after which each unit was drawn: age without a write at every step.
        self.born = host.zeros(self.size, dtype=torch.int64)
        self._not_finite = host.zeros(self.size, dtype=torch.bool)
        self._warned = False

    @property
    def step(self) -> int:
        """See `Readings`."""
        return self.schedule.step

    def follow_device(self) -> None:
        """Keep the state where the parameters are."""
        device = self._incoming[0].parameters[0].device
        if self.born.device != device:
            self.state = {key: value.to(device) for key, value in self.state.items()}
            self.born, self._not_finite = self.born.to(device), self._not_finite.to(device)

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

    def check_optimizer(self, optimizer: Optimizer) -> None:
        """Raise if what the optimizer remembers of these units could not be cleared."""
        for region in (*self._incoming, *self._outgoing, *self._resting):
            region.check_state(optimizer)

    def frozen(self) -> str | None:
        """Name of a parameter of the group that is not trained at present; None if there is none."""
        for region in (*self._incoming, *self._outgoing, *self._resting):
            if region.part.role != "statistic" and not all(tensor.requires_grad for tensor in region.parameters):
                return region.part.parameter
        return None

    def time_passes(self, optimizer: Optimizer | None) -> bool:
        """Whether the optimizer's step is one for the group."""
        return self._clock is None or optimizer is None or self._clock.ticks(optimizer)

    def has_gradient(self) -> bool:
        """Whether the last backward pass reached the group's incoming weights."""
        return any(tensor.grad is not None for region in self._incoming for tensor in region.parameters)

    def age(self) -> Tensor:
        """Optimizer steps since each unit was drawn, int64 of shape (units,), without those in which it was frozen."""
        return self.schedule.step - self.born

    def utility_now(self) -> dict[str, Tensor]:
        """By what the units are ranked at the moment; nothing if there is no such thing."""
        utility = self.method.utility_now(self, self.state, self.age())
        return {} if utility is None else {"utility": utility}

    def copy_of_state(self) -> dict[str, Tensor]:
        """What the method remembers, by name."""
        return {key: value.clone() for key, value in self.state.items()}

    def expect_next(self) -> None:
        """Read during the next step only if the method wants to know."""
        self._reading.on = self.method.reads_every_step or self.schedule.next_may_be_due()

    def read_gradients(self, scale: Tensor | None) -> None:
        """Take the reading of gradients, if the method needs one now and a backward pass reached the group.

        Args:
            scale: what the gradients are to be divided by; None for 1.
        """
        if not self._reading.on:
            return
        found: list[Tensor] = []
        if self.method.needs == "first_order":
            found = [sums for region in self._outgoing if (sums := region.first_order()) is not None]
        elif self.method.needs == "incoming_gradient":
            found = [sums for region in self._incoming if (sums := region.abs_gradient_sums()) is not None]
        if found:
            self._of_gradients = _total(found) if scale is None else _total(found) / scale

    def observe(self) -> None:
        """Let the method take in what was read since the last step, and forget it."""
        if self._of_gradients is not None or any(reader.seen for reader in self.readers):
            self.method.observe(self, self.state, self.age())
        self.clear()

    def clear(self) -> None:
        """Forget what was read since the last step."""
        self._of_gradients = None
        for reader in self.readers:
            reader.clear()

    def own_state(self) -> dict[str, Tensor]:
        """What must be known for going on, beside what the method remembers: when units were drawn, how new ones begin
        where that was read off the values at attach, and what taps that are not reached at each step saw last.
        """
        state = {"schedule": self.schedule.state(), "born": self.born.clone()}
        if self._clock is not None:
            state["clock"] = self._clock.state()
        for number, law in enumerate(self.laws):
            measured = law.same if law.is_measured else None
            state[f"law.{number}"] = host.empty(0) if measured is None else measured.as_tensor()
        for number, region in enumerate(self._resting):
            if region.initial is not None:
                state[f"initial.{number}"] = region.initial.clone()
        for number, reader in enumerate(self.readers if len(self.readers) > 1 else ()):
            state[f"last.{number}"] = host.empty(0) if reader.last is None else reader.last.clone()
        return state

    def load_own_state(self, state: dict[str, Tensor]) -> None:
        """Go on from what `own_state` returned."""
        device = self.born.device
        self.schedule.load(state["schedule"])
        self.born = state["born"].to(device, copy=True)
        if self._clock is not None:
            self._clock.load(state["clock"])
        for number, law in enumerate(self.laws):
            if law.is_measured and state[f"law.{number}"].numel():
                self.laws[number] = measured_law(SameLaw.from_tensor(state[f"law.{number}"]))
        for number, region in enumerate(self._resting):
            if region.initial is not None:
                region.initial = state[f"initial.{number}"].to(region.initial, copy=True)
        for number, reader in enumerate(self.readers if len(self.readers) > 1 else ()):
            last = state[f"last.{number}"]
            reader.last = last.to(device, copy=True) if last.numel() else None
        self.clear()
        self.expect_next()

    def mean_abs(self) -> list[Tensor]:
        """See `Readings`."""
        return [reader.mean_abs(self.born.device) for reader in self.readers]

    def activations(self) -> list[Tensor]:
        """See `Readings`."""
        return [reader.activations(self.born.device) for reader in self.readers]

    def fired(self) -> Tensor:
        """See `Readings`."""
        return torch.stack([reader.fired(self.born.device) for reader in self.readers]).any(dim=0)

    def examples(self) -> int | Tensor:
        """See `Readings`.

        Raises:
            ConfigError: there is no dimension to count examples along.
        """
        counts = [reader.examples for reader in self.readers if isinstance(reader.examples, Tensor) or reader.examples]
        if not counts:
            raise ConfigError(
                f"{type(self.method).__name__} counts examples along the first dimension, but the activation of group "
                f"{self.group.name!r} has none before that of its units. Give the model batches, if of one: x[None]."
            )
        return reduce(_larger, counts)

    def first_order(self) -> Tensor:
        """See `Readings`."""
        return self._gradient_reading()

    def incoming_gradient(self) -> Tensor:
        """See `Readings`."""
        return self._gradient_reading() / sum(region.unit_numel for region in self._incoming)

    def _gradient_reading(self) -> Tensor:
        return torch.zeros_like(self.born, dtype=torch.float32) if self._of_gradients is None else self._of_gradients

    def outgoing(self) -> list[Tensor]:
        """See `Readings`."""
        return [_total(region.abs_sums() for region in regions) for regions in self._read_by]

    def incoming(self) -> Tensor:
        """See `Readings`."""
        return _total(region.abs_sums() for region in self._incoming)

    def distrust(self, units: Tensor) -> None:
        """See `Readings`."""
        self._not_finite |= units

    def silence(self, choice: Choice, optimizer: Optimizer | None) -> None:
        """Zero the outgoing slices of some units, or shrink them by the units' shares."""
        for region in self._outgoing:
            if choice.share is not None:
                region.shrink(choice.units, choice.share)
                continue
            region.fill(choice.units, 0.0)
            if optimizer is not None:
                region.clear_state(optimizer, choice.units)

    def redraw(self, choice: Choice, optimizer: Optimizer | None, generator: Generator) -> None:
        """Draw the incoming slices of some units anew and bring all else about them back to its beginning; or go there
        by the units' shares.
        """
        units, share = choice.units, choice.share
        for region, law in zip(self._incoming, self.laws, strict=True):
            shape = (len(units), *region.unit_shape)
            drawn = law.draw(self.group, units, shape, generator)
            if not isinstance(drawn, Tensor) or tuple(drawn.shape) != shape:
                got = tuple(drawn.shape) if isinstance(drawn, Tensor) else type(drawn).__name__
                raise ConfigError(
                    f"init={law.description} must return a tensor of shape {shape} for {region.part.parameter} of "
                    f"group {self.group.name!r}, but returned {got}."
                )
            region.write(units, drawn, share)
        if share is not None:
            for region in self._resting:
                region.restore(units, share)
            return
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
        if not self._warned and bool(self._not_finite.any()):
            self._warned = True
            count = int(self._not_finite.sum())
            warnings.warn(
                f"NaN or infinity in the activations or weights of {count} of {self.size} units of group "
                f"{self.group.name!r} at step {self.schedule.step}: such readings do not count towards utility. "
                "Look at the loss and the step size; this is said once per group.",
                RuntimeWarning,
                stacklevel=2,
            )


def _larger(first: int | Tensor, second: int | Tensor) -> int | Tensor:
    if isinstance(first, int) and isinstance(second, int):
        return max(first, second)
    # Without fetching them.
    return torch.maximum(*(each if isinstance(each, Tensor) else host.tensor(each) for each in (first, second)))


def _total(sums: Iterable[Tensor]) -> Tensor:
    first, *rest = sums
    for other in rest:
        first = first + other
    return first
