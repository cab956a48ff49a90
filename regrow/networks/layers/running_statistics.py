"""What layers with running statistics have in common: precision, the dimension of features, and the recurrence."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from regrow.errors import ConfigError, ModelError


class RunningStatistics(nn.Module):
    """A layer with one running mean and one running variance for each feature, in float32 or more.

    `model.bfloat16()` leaves the buffers in float32: a running mean with decay .999 cannot move in bfloat16, which
    has 8 bits.

    Args:
        features: how many; they lie along dimension 1.

    Attributes:
        mean: [features], at first 0.
        var: [features], at first 1.
    """

    mean: Tensor
    var: Tensor

    def __init__(self, features: int) -> None:
        super().__init__()
        if features < 1:
            raise ConfigError(f"{type(self).__name__} needs at least 1 feature, but got {features!r}.")
        self.features = features
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("var", torch.ones(features))

    def checked(self, value: Tensor) -> Tensor:
        """The value in the precision of the statistics."""
        if value.dim() < 2 or value.size(1) != self.features:
            raise ModelError(
                f"{type(self).__name__} has {self.features} features and needs a value of shape "
                f"[batch, {self.features}, ...], but got {list(value.shape)}. A single example is a batch of 1."
            )
        return value.to(self.mean.dtype)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "RunningStatistics":
        before = dict(self._buffers)
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for name, old in before.items():
            new = self._buffers[name]
            if old is not None and new is not None and new.dtype in (torch.bfloat16, torch.float16):
                self._buffers[name] = old.to(new.device)
        return self


def over_places(value: Tensor) -> Tensor:
    """The mean of [batch, features, *places] over places, of shape [batch, features]."""
    return value.flatten(2).mean(2) if value.dim() > 2 else value


def at_places(statistic: Tensor, value: Tensor) -> Tensor:
    """A statistic of shape [batch, features] or [features], to be met by [batch, features, *places]."""
    return statistic.reshape(-1, statistic.size(-1), *[1] * (value.dim() - 2))


def recur(decay: Tensor, added: Tensor, start: Tensor) -> Tensor:
    r"""All values of $v_t = d_t v_{t-1} + a_t$ for t = 1 … T, after $v_0$.

    Steps that lie 1, 2, 4, … apart are combined, so that T of them take log₂ T operations on all. Equal to one step
    after the other up to rounding; for T = 1 to the bit.

    Args:
        decay: d, [T, features].
        added: a, [T, features].
        start: v_0, [features].

    Returns:
        [T + 1, features].
    """
    apart = 1
    while apart < len(added):
        added = torch.cat([added[:apart], added[apart:] + decay[apart:] * added[:-apart]])
        decay = torch.cat([decay[:apart], decay[apart:] * decay[:-apart]])
        apart *= 2
    return torch.cat([start[None], decay * start + added])
