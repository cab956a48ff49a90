"""Continuous continual backpropagation: all units move a little towards new ones, the least useful the most."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Generator, Tensor

from regrow.errors import ConfigError
from regrow.methods.method import check_amount, check_share
from regrow.methods.unit_method import Choice, PeriodicMethod, Readings, Statistic, relative
from regrow.units import host


@dataclass(frozen=True)
class ContinuousContinualBackprop(PeriodicMethod, name="ccbp"):
    r"""Moves all units a little towards new ones, those that learn least the most.

    Every `period` steps $w_{in} \leftarrow (1-r)\,w_{in} + r\varphi$ and $w_{out} \leftarrow (1-r)\,w_{out}$, where
    $\varphi$ is a fresh draw, $r = \rho\,\min(2\,\sigma(-k(u-1)),\,1)$, and u the running mean of
    $\overline{|\nabla_{w_{in}}L|}$ over the mean of its group. There is no maturity, and the optimizer's state stays:
    the paper finds that clearing it is not needed. Biases and entries of norms go towards their fresh values by r too.
    Also called CPR. Rule as in the authors' code; defaults and what the paper finds second-hand.

    Args:
        rate: ρ in [0, 1]. Published .015.
        sharpness: k ≥ 0. Published 16.
        decay_rate: of the running mean, in [0, 1). Published .99.
    """

    reference: ClassVar[str] = "McCutcheon et al., RLC workshop 2026"
    cost: ClassVar[str] = "gradients and weights of all units"
    off: ClassVar[Mapping[str, Any]] = {"rate": 0.0}
    brisk: ClassVar[Mapping[str, Any]] = {"period": 4}

    rate: float = 0.015
    sharpness: float = 16.0
    decay_rate: float = 0.99

    def __post_init__(self) -> None:
        """Check the settings once, at the boundary."""
        super().__post_init__()
        check_share(self, "rate")
        check_amount(self, "sharpness")
        check_share(self, "decay_rate")
        if self.decay_rate == 1:
            raise ConfigError(
                "ContinuousContinualBackprop.decay_rate must be less than 1: with 1 no mean would ever move."
            )

    @property
    def needs(self) -> Statistic:
        """Mean |∂L/∂w_in|."""
        return "incoming_gradient"

    @property
    def keeps_moments(self) -> bool:
        """Yes, for units go a part of the way only."""
        return True

    def initial_state(self, taps: int, size: int) -> dict[str, Tensor]:
        """The running mean."""
        return {"gradient": host.zeros(size)}

    def observe(self, readings: Readings, state: dict[str, Tensor], age: Tensor) -> None:
        """One step of the running mean; a gradient that is not finite is left out."""
        gradient = readings.incoming_gradient()
        finite = gradient.isfinite()
        state["gradient"].lerp_(torch.where(finite, gradient, state["gradient"]), 1 - self.decay_rate)
        readings.distrust(~finite)

    def choose(
        self, readings: Readings, state: dict[str, Tensor], age: Tensor, due: int, generator: Generator
    ) -> Choice:
        """All units, by their share."""
        share = self.rate * (2 * torch.sigmoid(-self.sharpness * (self._relative(state) - 1))).clamp(max=1.0)
        return Choice(
            torch.arange(readings.size if self.rate else 0, device=share.device), share if self.rate else None
        )

    def utility_now(self, readings: Readings, state: dict[str, Tensor], age: Tensor) -> Tensor:
        """The running mean over that of the group."""
        return self._relative(state)

    def _relative(self, state: dict[str, Tensor]) -> Tensor:
        # All units have seen the same number of steps, so the running mean needs no correction.
        return relative(state["gradient"], torch.finfo(torch.float32).tiny)
