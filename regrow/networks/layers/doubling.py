"""Activations that make two features of each unit, and the width that the layer before them then has."""

import torch
from torch import Tensor, nn

from regrow.errors import ConfigError


class _Doubling(nn.Module):
    def __init__(self, dim: int = 1) -> None:
        super().__init__()
        self.dim = dim

    def extra_repr(self) -> str:
        return f"dim={self.dim}"


class CReLU(_Doubling):
    r"""Concatenated ReLU: $[\max(z, 0), \max(-z, 0)]$, so that one of the two always has a gradient.

    Abbas et al., CoLLAs 2023 (read in a port; the fractions below at second hand, from Kumar et al., CoLLAs 2025).
    The layer before it has half of the units (`halved`), so that the layer behind keeps its width. To keep the number
    of parameters instead, an MLP loses 9 % of its units and a convolutional network 27 to 31 %.

    Args:
        dim: along which the units lie: 1 for linear layers and convolutions, -1 for the tokens of a transformer.

    Shape:
        [batch, units, ...] to [batch, 2 · units, ...]: first the positive parts of all units, then the negative ones.
    """

    def forward(self, value: Tensor) -> Tensor:
        """Return the positive parts, then the negative ones."""
        return torch.cat([torch.relu(value), torch.relu(-value)], self.dim)


class DeepFourierFeatures(_Doubling):
    r"""Sine and cosine of each unit: $[\sin z, \cos z]$. One of the two is always close to linear.

    Lewandowski et al., ICLR 2025 (arXiv 2410.20634), who use it in every layer together with a regularizer, such as
    `regrow.methods.SpectralPenalty`. Read in a port; there is no code of the authors. The layer before it has half of
    the units (`halved`).

    Args:
        dim: along which the units lie: 1 for linear layers and convolutions, -1 for the tokens of a transformer.

    Shape:
        [batch, units, ...] to [batch, 2 · units, ...]: first the sines of all units, then the cosines.
    """

    def forward(self, value: Tensor) -> Tensor:
        """Return the sines, then the cosines."""
        return torch.cat([torch.sin(value), torch.cos(value)], self.dim)


def halved(width: int) -> int:
    """How many units a layer needs, if an activation that doubles them is to give `width` features.

    Raises:
        ConfigError: the width is odd, or less than 2.
    """
    if width < 2 or width % 2:
        raise ConfigError(
            f"A layer of width {width} cannot have half of its units, which an activation with two features of each "
            f"(CReLU, DeepFourierFeatures) needs. Take an even width, such as {max(width + width % 2, 2)}."
        )
    return width // 2
