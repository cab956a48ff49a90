"""Dropout whose draws have an order of their own."""

import torch
from torch import Generator, Tensor, nn

from regrow.errors import ConfigError


class Dropout(nn.Module):
    r"""In training, sets each value to 0 with probability p and multiplies the others by $1 / (1 - p)$.

    Srivastava et al., JMLR 15, 2014, in the form that leaves evaluation alone. Unlike `torch.nn.Dropout` it draws from
    a generator of its own, on the host: one uniform number for each value, in order, that is kept if the number is at
    least p. What it drops thus depends on the seed and on how many values it has seen, and on no other draw; the state
    of the generator is saved with the network's, as its extra state.

    Args:
        p: probability of dropping a value, in [0, 1); 0 draws nothing.
        seed: of the generator.

    Attributes:
        generator: source of all draws.

    Shape:
        Any, and the same comes out.

    Raises:
        ConfigError: a probability out of range.
    """

    def __init__(self, p: float = 0.5, seed: int = 0) -> None:
        super().__init__()
        if not 0 <= p < 1:
            raise ConfigError(f"Dropout needs 0 <= p < 1, but got {p!r}.")
        self.p = p
        self.generator = Generator().manual_seed(seed)

    def forward(self, value: Tensor) -> Tensor:
        """Drop values, in training."""
        if not self.training or not self.p:
            return value
        return value * self.mask(value.shape).to(value)

    def mask(self, shape: tuple[int, ...]) -> Tensor:
        """Draw what values of a shape are multiplied by: 0 or 1 / (1 - p), in float32 on the host."""
        return (torch.rand(shape, generator=self.generator, device="cpu") >= self.p) * (1 / (1 - self.p))

    def get_extra_state(self) -> Tensor:
        """State of the generator."""
        return self.generator.get_state()

    def set_extra_state(self, state: Tensor) -> None:
        """Go on from what `get_extra_state` returned."""
        self.generator.set_state(state.cpu())

    def extra_repr(self) -> str:
        """Show the settings."""
        return f"p={self.p}"
