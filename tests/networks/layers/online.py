"""Online normalization of one example after the other, written from the paper's equations."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass
class Online:
    """Examples are [features, places]; layer scaling and clamping are not in it."""

    features: int
    forward_decay: float
    backward_decay: float
    eps: float
    mean: Array = field(init=False)
    var: Array = field(init=False)
    error_y: Array = field(init=False)
    error_1: Array = field(init=False)

    def __post_init__(self) -> None:
        self.mean, self.var = np.zeros(self.features), np.ones(self.features)
        self.error_y, self.error_1 = np.zeros(self.features), np.zeros(self.features)

    def forward(self, x: Array) -> tuple[Array, Array]:
        """y and the deviation that it was divided by."""
        deviation = np.sqrt(self.var + self.eps)
        y = (x - self.mean[:, None]) / deviation[:, None]
        decay, m = self.forward_decay, x.mean(1)
        self.var = decay * self.var + (1 - decay) * x.var(1) + decay * (1 - decay) * (m - self.mean) ** 2
        self.mean = decay * self.mean + (1 - decay) * m
        return y, deviation

    def backward(self, gradient: Array, y: Array, deviation: Array) -> Array:
        """The gradient of x from that of y."""
        g = gradient - (1 - self.backward_decay) * self.error_y[:, None] * y
        self.error_y = self.error_y + (g * y).mean(1)
        result = g / deviation[:, None] - (1 - self.backward_decay) * self.error_1[:, None]
        self.error_1 = self.error_1 + result.mean(1)
        return result
