"""Resets: layers, or all of the network, begin anew."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from regrow.errors import ConfigError
from regrow.methods.method import check_choice, check_count
from regrow.methods.weight_method import Moment, Weight, WeightMethod

Memory = Literal["cleared", "kept"]


def begin_anew(weight: Weight, moment: Moment, memory: Memory = "cleared") -> None:
    """Draw a parameter from its first law and, unless it is kept, clear what the optimizer remembers of it."""
    weight.parameter.copy_(weight.draw(moment.generator), non_blocking=True)
    if memory == "cleared":
        weight.forget()


@dataclass(frozen=True)
class HardReset(WeightMethod, name="hard-reset"):
    """The last layers begin anew at every task change, and every `period` steps if that is not 0.

    What the optimizer remembers of them is cleared, the number of its steps too, unless `memory` says otherwise. Layers
    are counted from the output along the network's units; biases and the affine entries of norms count with the layer
    whose units they belong to.

    Args:
        layers: how many, from the output; 0 for none. Published: the last one to three.
        period: in optimizer steps; 0 for task changes only. Published: 2e5 environment steps (SAC).
        memory: what the optimizer remembers of them is "cleared", or "kept" as in the published code for
            class-incremental CIFAR (Dohare et al. 2024).
    """

    reference: ClassVar[str] = "Nikishin et al., ICML 2022"
    cost: ClassVar[str] = "a draw of the last layers, once"
    forgets: ClassVar[bool] = True
    off: ClassVar[Mapping[str, Any]] = {"layers": 0}
    brisk: ClassVar[Mapping[str, Any]] = {"period": 7}
    needs_units: ClassVar[bool] = True
    draws: ClassVar[bool] = True

    layers: int = 1
    period: int = 0
    memory: Memory = "cleared"

    def __post_init__(self) -> None:
        """Check the settings once, at the boundary."""
        check_count(self, "layers")
        check_count(self, "period")
        check_choice(self, "memory", ("cleared", "kept"))

    @property
    def acts_at_steps(self) -> bool:
        """Only with a period; else it waits to be told of task changes."""
        return self.period > 0

    def after_step(self, moment: Moment) -> None:
        """Reset, if this is a step to do so."""
        if self.period and moment.step % self.period == 0:
            self.task_changed(moment)

    def task_changed(self, moment: Moment) -> None:
        """Reset."""
        for weight in moment.weights:
            if weight.layer is not None and weight.layer < self.layers:
                begin_anew(weight, moment, self.memory)


@dataclass(frozen=True)
class FullReset(WeightMethod, name="full-reset"):
    """All of the network begins anew at every task change: a fresh network for each task, the oracle of every table.

    Running means and variances go back to 0 and 1. Only what the optimizer trains is reset: the rest of the network
    stays as it is, with its statistics.

    Args:
        strength: 1 for the method, 0 for none.
        memory: what the optimizer remembers is "cleared", and running statistics begin anew; or both are "kept", as in
            the published code for class-incremental CIFAR (Dohare et al. 2024).
    """

    reference: ClassVar[str] = "a fresh network for each task"
    cost: ClassVar[str] = "a draw of all weights, once"
    forgets: ClassVar[bool] = True
    off: ClassVar[Mapping[str, Any]] = {"strength": 0}
    draws: ClassVar[bool] = True
    edits_buffers: ClassVar[bool] = True

    strength: int = 1
    memory: Memory = "cleared"

    def __post_init__(self) -> None:
        """Check the settings once, at the boundary."""
        check_choice(self, "memory", ("cleared", "kept"))
        check_count(self, "strength")
        if self.strength > 1:
            raise ConfigError(f"FullReset.strength is 1 for the method or 0 for none, but is {self.strength!r}.")

    def task_changed(self, moment: Moment) -> None:
        """Reset."""
        for weight in moment.weights if self.strength else ():
            begin_anew(weight, moment, self.memory)
        for name, buffer in moment.buffers.items() if self.strength and self.memory == "cleared" else ():
            kind = name.rpartition(".")[2]
            if kind in ("running_mean", "running_var", "num_batches_tracked"):
                buffer.fill_(1 if kind == "running_var" else 0)
