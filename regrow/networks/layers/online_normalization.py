"""Online normalization: running statistics in the forward, a control process in the backward."""

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from regrow.errors import ConfigError
from regrow.networks.layers.running_statistics import RunningStatistics, at_places, over_places, recur


class OnlineNormalization(RunningStatistics):
    r"""Normalizes each feature by statistics of the examples before, one example after the other.

    Chiley et al., NeurIPS 2019 (arXiv 1905.05894); the equations were compared with the authors' code
    (Cerebras/online-normalization). Example t with the mean m and variance s² over its places (m = x, s = 0 in a
    linear layer), for each feature:

    $$y_t = (x_t - \mu_{t-1}) / \sqrt{\sigma^2_{t-1} + \epsilon}$$
    $$\sigma^2_t = \alpha_f \sigma^2_{t-1} + (1 - \alpha_f) s_t^2 + \alpha_f (1 - \alpha_f)(m_t - \mu_{t-1})^2$$
    $$\mu_t = \alpha_f \mu_{t-1} + (1 - \alpha_f) m_t$$

    The gradient y′ of y becomes that of x by a control process, which keeps it orthogonal to 1 and to y over time, as
    the gradient of a normalization is. Its two accumulators are errors that have not been made good for; ⟨·⟩ is the
    mean over places:

    $$g_t = y'_t - (1 - \alpha_b)\, e^y_{t-1}\, y_t \qquad e^y_t = e^y_{t-1} + \langle g_t\, y_t\rangle$$
    $$x'_t = g_t / \sqrt{\sigma^2_{t-1} + \epsilon} - (1 - \alpha_b)\, e^1_{t-1}
      \qquad e^1_t = e^1_{t-1} + \langle x'_t\rangle$$

    Then come gain and bias, z = γy + β, and a guard against estimates that lag behind: layer scaling,
    $z / \sqrt{\mathrm{mean}(z^2) + \epsilon}$ with the mean over all features and places of the example. It is the
    paper's and the default here. In March 2020 the authors' code changed its default to clamping z at ±5
    (`guard="clamp"`), which, unlike layer scaling, leaves units independent of each other: they are free, not coupled.

    - The article's use (Dohare et al., 2024, Extended Data Fig. 4) is batches of one example. Its decays are not
      known here.
    - A batch is so many examples in order: what comes out of example t depends on all before it in the batch, and the
      result is that of single examples up to rounding. In memory and time it is as cheap as batch normalization.
    - Statistics move in each forward in training mode, the accumulators in each backward. In evaluation mode the
      statistics are constants, and the gradient is the ordinary one.
    - The accumulators have the unit of the loss. A loss scale (GradScaler) that changes disturbs them for about
      1 / (1 - α_b) examples. Gradients that are not finite leave them as they are.
    - With one place, |y| > √(2 / (1 - α_b)) makes the control process overshoot (14 with the default). It happens when
      a feature wakes up after its variance has decayed.
    - When a unit is replaced, its statistics start afresh, as those of a batch norm do. Its accumulators, which no
      output shows, fade by themselves in about 1 / (1 - α_b) examples.

    Args:
        features: how many; units of a linear layer, channels of a convolution.
        forward_decay: α_f in [0, 1). The authors' default.
        backward_decay: α_b in [0, 1). The authors' default.
        eps: ε > 0, here and in layer scaling.
        affine: whether there are a gain γ, at first 1, and a bias β, at first 0.
        guard: layer_scaling, clamp, or None.
        clamp: bound of |z| with `guard="clamp"`.

    Attributes:
        control_output: e^y, [features].
        control_mean: e^1, [features].

    Shape:
        [batch, features, *places], and the same comes out, of the same dtype. Computed in float32 at least.

    Raises:
        ConfigError: a decay, ε, bound or guard that is none.
        ModelError: a value of another shape, in the forward.
    """

    control_output: Tensor
    control_mean: Tensor
    weight: nn.Parameter | None
    bias: nn.Parameter | None

    def __init__(
        self,
        features: int,
        forward_decay: float = 0.999,
        backward_decay: float = 0.99,
        eps: float = 1e-5,
        affine: bool = True,
        guard: Literal["layer_scaling", "clamp"] | None = "layer_scaling",
        clamp: float = 5.0,
    ) -> None:
        super().__init__(features)
        for name, decay in (("forward_decay", forward_decay), ("backward_decay", backward_decay)):
            if not 0 <= decay < 1:
                raise ConfigError(f"OnlineNormalization needs 0 <= {name} < 1, but got {decay!r}.")
        for name, amount in (("eps", eps), ("clamp", clamp)):
            if not amount > 0:
                raise ConfigError(f"OnlineNormalization needs {name} > 0, but got {amount!r}.")
        if guard not in ("layer_scaling", "clamp", None):
            raise ConfigError(f"OnlineNormalization knows no guard {guard!r}. Known: 'layer_scaling', 'clamp', None.")
        self.forward_decay, self.backward_decay, self.eps = forward_decay, backward_decay, eps
        self.guard, self.clamp = guard, clamp
        self.register_buffer("control_output", torch.zeros(features))
        self.register_buffer("control_mean", torch.zeros(features))
        self.weight = nn.Parameter(torch.ones(features)) if affine else None
        self.bias = nn.Parameter(torch.zeros(features)) if affine else None

    def forward(self, value: Tensor) -> Tensor:
        """Normalize, and in training take the examples into the statistics."""
        wide = self.checked(value)
        weight, bias = (None if one is None else one.to(wide.dtype) for one in (self.weight, self.bias))
        if self.training:
            centre, scale = self._take_in(wide.detach())
            control = self.control_output, self.control_mean
            result: Tensor = _Controlled.apply(wide, centre, scale, control, self.backward_decay)  # type: ignore[no-untyped-call]
            if weight is not None and bias is not None:
                result = result * at_places(weight, wide) + at_places(bias, wide)
        else:
            result = F.batch_norm(wide, self.mean, self.var, weight, bias, training=False, eps=self.eps)
        if self.guard == "layer_scaling":
            result = F.rms_norm(result, result.shape[1:], eps=self.eps)
        elif self.guard == "clamp":
            result = result.clamp(-self.clamp, self.clamp)
        return result.to(value.dtype)

    def _take_in(self, value: Tensor) -> tuple[Tensor, Tensor]:
        """Update the statistics; return centre and scale of each example, as they were before it."""
        decay = self.forward_decay
        means = over_places(value)
        variances = over_places((value - at_places(means, value)).square())
        decays = torch.full_like(means, decay)
        centres = recur(decays, (1 - decay) * means, self.mean)
        off = (means - centres[:-1]).square()
        squares = recur(decays, (1 - decay) * (variances + decay * off), self.var)
        self.mean.copy_(centres[-1])
        self.var.copy_(squares[-1])
        return at_places(centres[:-1], value), at_places((squares[:-1] + self.eps).sqrt(), value)

    def extra_repr(self) -> str:
        """Show the settings."""
        return (
            f"{self.features}, forward_decay={self.forward_decay}, backward_decay={self.backward_decay}, "
            f"guard={self.guard!r}"
        )


class _Controlled(torch.autograd.Function):
    """(x - centre) / scale, whose gradient passes the control process and moves its accumulators."""

    @staticmethod
    def forward(
        ctx: Any, value: Tensor, centre: Tensor, scale: Tensor, control: tuple[Tensor, Tensor], decay: float
    ) -> Tensor:
        result = (value - centre) / scale
        ctx.save_for_backward(result, scale)
        # Not among the saved ones: another backward may move them before this one, as in gradient accumulation.
        ctx.control, ctx.decay = control, decay
        return result

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        result, scale = ctx.saved_tensors
        control_output, control_mean = ctx.control
        lost = 1 - ctx.decay
        scales = scale.flatten(1)
        # With g put in, e^y is a linear recurrence whose decay depends on the example, and e^1 one with decay α_b.
        errors = recur(1 - lost * over_places(result.square()), over_places(gradient * result), control_output)
        gradient = gradient - lost * at_places(errors[:-1], result) * result
        means = over_places(gradient) / scales
        offsets = recur(torch.full_like(means, ctx.decay), means, control_mean)
        for buffer, last in ((control_output, errors[-1]), (control_mean, offsets[-1])):
            buffer.copy_(torch.where(last.isfinite(), last, buffer))
        return gradient / scale - lost * at_places(offsets[:-1], result), None, None, None, None
