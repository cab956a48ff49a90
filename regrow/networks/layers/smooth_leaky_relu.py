"""Leaky activations without a kink."""

import torch
from torch import Tensor, nn

from regrow.errors import ConfigError


class SmoothLeakyReLU(nn.Module):
    r"""A leaky ReLU without a kink: $f(x) = \alpha x + (1 - \alpha)\, x\, \sigma(c x / p)$.

    Lillo & Cheney, ICLR 2026 (arXiv 2509.22562); rule and defaults (their Fig. 5) at second hand, not compared with
    their code. Far from 0 the slope is α on the left and 1 on the right. They report that any leaky family does best
    with a mean negative slope of .6 to .9, far above the default.

    Args:
        alpha: α, slope on the negative side.
        p: > 0; the larger, the wider the bend.
        c: > 0; the larger, the narrower the bend. Only c / p counts.

    Shape:
        Any, and the same comes out.
    """

    def __init__(self, alpha: float = 0.1, p: float = 3.0, c: float = 5.0) -> None:
        super().__init__()
        _check_bend(self, p, c)
        self.alpha, self.p, self.c = alpha, p, c

    def forward(self, value: Tensor) -> Tensor:
        """Apply it to each element."""
        return self.alpha * value + (1 - self.alpha) * value * torch.sigmoid(self.c / self.p * value)

    def extra_repr(self) -> str:
        """Show the settings."""
        return f"alpha={self.alpha}, p={self.p}, c={self.c}"


class RandomizedSmoothLeakyReLU(nn.Module):
    r"""A smooth leaky ReLU with a random slope: $f(x) = r x + (1 - r)\, x\, \sigma(c x / p)$.

    In training $r \sim U(l, u)$, anew for each element and forward as in PyTorch's RReLU; in evaluation
    $r = (l + u) / 2$. Source as for `SmoothLeakyReLU`, at second hand too. No default for l and u is known; the best
    mean slope reported is .6 to .9.

    Args:
        lower: l.
        upper: u ≥ l.
        p: > 0; the larger, the wider the bend.
        c: > 0; the larger, the narrower the bend.

    Shape:
        Any, and the same comes out.
    """

    def __init__(self, lower: float, upper: float, p: float = 3.0, c: float = 5.0) -> None:
        super().__init__()
        if not lower <= upper:
            raise ConfigError(f"RandomizedSmoothLeakyReLU needs lower <= upper, but got {lower!r} and {upper!r}.")
        _check_bend(self, p, c)
        self.lower, self.upper, self.p, self.c = lower, upper, p, c

    def forward(self, value: Tensor) -> Tensor:
        """Apply it to each element."""
        smooth = value * torch.sigmoid(self.c / self.p * value)
        if not self.training:
            slope = (self.lower + self.upper) / 2
            return slope * value + (1 - slope) * smooth
        slopes = torch.empty_like(value).uniform_(self.lower, self.upper)
        return slopes * value + (1 - slopes) * smooth

    def extra_repr(self) -> str:
        """Show the settings."""
        return f"lower={self.lower}, upper={self.upper}, p={self.p}, c={self.c}"


def _check_bend(module: nn.Module, p: float, c: float) -> None:
    for name, given in (("p", p), ("c", c)):
        if not given > 0:
            raise ConfigError(f"{type(module).__name__} needs {name} > 0, but got {given!r}.")
