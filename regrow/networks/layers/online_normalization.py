"""Online normalization: running statistics in the forward, a control process in the backward."""

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

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
      result is that of single examples up to rounding. A batch of B takes log₂ B passes over the means.
    - Statistics move in each forward in training mode, the accumulators in each backward. In evaluation mode the
      statistics are constants, and the gradient is the ordinary one.
    - The accumulators have the unit of the loss. A loss scale (GradScaler) that changes disturbs them for about
      1 / (1 - α_b) examples. Gradients that are not finite leave them as they are.
    - With one place, |y| > √(2 / (1 - α_b)) makes the control process overshoot (14 with the default). It happens when
      a feature wakes up after its variance has decayed.
    - When a unit is replaced, its statistics and accumulators start afresh.

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
        ConfigError: a decay, ε, bound or guard out of range.
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
            control, decays = (self.control_output, self.control_mean), (self.forward_decay, self.backward_decay)
            result: Tensor
            result, _, mean, var = normalize_online(wide, self.mean, self.var, *control, *decays, self.eps)
            self.mean.copy_(mean)
            self.var.copy_(var)
            if weight is not None and bias is not None:
                result = result * at_places(weight, wide) + at_places(bias, wide)
        else:
            result = F.batch_norm(wide, self.mean, self.var, weight, bias, training=False, eps=self.eps)
        if self.guard == "layer_scaling":
            result = F.rms_norm(result, result.shape[1:], eps=self.eps)
        elif self.guard == "clamp":
            result = result.clamp(-self.clamp, self.clamp)
        return result.to(value.dtype)

    def extra_repr(self) -> str:
        """Show the settings."""
        return (
            f"{self.features}, forward_decay={self.forward_decay}, backward_decay={self.backward_decay}, "
            f"guard={self.guard!r}"
        )


# An operator of its own, so that compilers and `find_units` see one call and which buffers belong to it.
@torch.library.custom_op("regrow::normalize_online", mutates_args=())
def normalize_online(
    input: Tensor,
    running_mean: Tensor,
    running_var: Tensor,
    control_output: Tensor,
    control_mean: Tensor,
    forward_decay: float,
    backward_decay: float,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Normalize each example by the statistics before it. The control is for the backward, which moves it.

    Returns:
        y, of the input's shape; what it was divided by, [batch, features]; mean and variance after the last example.
    """
    means = over_places(input)
    variances = over_places((input - at_places(means, input)).square())
    decays = torch.full_like(means, forward_decay)
    centres = recur(decays, (1 - forward_decay) * means, running_mean)
    off = (means - centres[:-1]).square()
    squares = recur(decays, (1 - forward_decay) * (variances + forward_decay * off), running_var)
    scales = (squares[:-1] + eps).sqrt()
    result = (input - at_places(centres[:-1], input)) / at_places(scales, input)
    return result, scales, centres[-1].clone(), squares[-1].clone()


@torch.library.custom_op("regrow::control_gradient", mutates_args=("control_output", "control_mean"))
def control_gradient(
    gradient: Tensor, result: Tensor, scales: Tensor, control_output: Tensor, control_mean: Tensor, decay: float
) -> Tensor:
    """Turn the gradient of y into that of x, and move the accumulators of the control process."""
    lost = 1 - decay
    # With g put in, e^y is a linear recurrence whose decay depends on the example, and e^1 one with decay α_b.
    errors = recur(1 - lost * over_places(result.square()), over_places(gradient * result), control_output)
    gradient = gradient - lost * at_places(errors[:-1], result) * result
    means = over_places(gradient) / scales
    offsets = recur(torch.full_like(means, decay), means, control_mean)
    for buffer, last in ((control_output, errors[-1]), (control_mean, offsets[-1])):
        buffer.copy_(torch.where(last.isfinite(), last, buffer))
    return gradient / at_places(scales, result) - lost * at_places(offsets[:-1], result)


@normalize_online.register_fake
def _(input: Tensor, running_mean: Tensor, running_var: Tensor, *_: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    scales = input.new_empty(input.shape[:2])
    return torch.empty_like(input), scales, torch.empty_like(running_mean), torch.empty_like(running_var)


@control_gradient.register_fake
def _(gradient: Tensor, *_: Any) -> Tensor:
    return torch.empty_like(gradient)


def _remember(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    ctx.save_for_backward(*output[:2])
    ctx.mark_non_differentiable(*output[1:])
    # Not among the saved ones: another backward may move them before this one, as in gradient accumulation.
    ctx.control, ctx.decay = inputs[3:5], inputs[6]


def _backward(ctx: Any, gradient: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
    result, scales = ctx.saved_tensors
    return control_gradient(gradient, result, scales, *ctx.control, ctx.decay), *[None] * 7


normalize_online.register_autograd(_backward, setup_context=_remember)
