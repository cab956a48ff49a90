"""One step of many networks of the same shape side by side, as tensor code that a CUDA graph can record.

Nothing here looks at a value from Python, makes a shape depend on one, or puts a new tensor in the place of one that
lasts: the same function is called as it is on a CPU and recorded on a GPU. S is the number of networks, B of examples
in a mini-batch.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from regrow.engines.training import Loss
from regrow.methods import ContinualBackprop

# As torch.optim.Adam has them by default.
_FIRST_DECAY, _SECOND_DECAY, _EPS = 0.9, 0.999, 1e-8


@dataclass(frozen=True)
class Rule:
    """What is alike for all networks and at all steps.

    Attributes:
        loss: cross-entropy or squared error.
        activations: behind each hidden layer.
        learning_rate: step size.
        adam: whether Adam takes the steps; else plain SGD.
        keep: what L2 multiplies parameters by before each step.
        shrink: what a perturbed step multiplies parameters by after it.
        noise_std: standard deviation of the noise that it adds then.
        method: continual backprop, if units are observed.
    """

    loss: Loss
    activations: tuple[nn.Module, ...]
    learning_rate: float
    adam: bool
    keep: float
    shrink: float
    noise_std: float
    method: ContinualBackprop | None


class Layered:
    """Numbers for every parameter of S networks in one flat tensor, with views of them as those of layers.

    Args:
        count: S.
        widths: of the networks, input and output included.
        device: where.

    Attributes:
        flat: all of them.
        weights: [S, out, in] by layer.
        biases: [S, out] by layer.
    """

    def __init__(self, count: int, widths: Sequence[int], device: torch.device) -> None:
        shapes = [shape for low, high in pairwise(widths) for shape in ((count, high, low), (count, high))]
        sizes = [torch.Size(shape).numel() for shape in shapes]
        self.flat = torch.zeros(sum(sizes), device=device)
        views = [part.view(shape) for part, shape in zip(self.flat.split(sizes), shapes, strict=True)]
        self.weights, self.biases = views[::2], views[1::2]


class Networks:
    """Everything that steps change, in tensors that stay where they are.

    Args:
        rule: as for `step`.
        count: S.
        widths: of the networks, input and output included.
        device: where.

    Attributes:
        theta: the parameters.
        gradient: with Adam, of the present step; else None.
        mean: Adam's running mean of the gradient.
        square: that of its square.
        steps: how many were taken, int64 without dimensions.
        born: the step after which each unit was drawn, int64 [S, units] by hidden layer.
        running: means of the utility or the activation, by hidden layer.
        mean_activation: those of the activation for the adaptable contribution.
        not_finite: whether a reading was NaN or infinite, bool.
    """

    def __init__(self, rule: Rule, count: int, widths: Sequence[int], device: torch.device) -> None:
        self.theta = Layered(count, widths, device)
        self.gradient, self.mean, self.square = (
            Layered(count, widths, device) if rule.adam else None for _ in range(3)
        )
        self.steps = torch.zeros((), dtype=torch.int64, device=device)
        hidden = widths[1:-1]
        self.born = [torch.zeros(count, size, dtype=torch.int64, device=device) for size in hidden]
        self.running = [torch.zeros(count, size, device=device) for size in hidden]
        self.mean_activation = [torch.zeros(count, size, device=device) for size in hidden]
        self.not_finite = [torch.zeros(count, size, dtype=torch.bool, device=device) for size in hidden]

    def tensors(self) -> dict[str, Tensor]:
        """All that must be known for going on, by name."""
        named = {"parameters": self.theta.flat, "steps": self.steps}
        if self.mean is not None and self.square is not None:
            named |= {"gradient_mean": self.mean.flat, "gradient_square": self.square.flat}
        for name in ("born", "running", "mean_activation", "not_finite"):
            named |= {f"{name}.{number}": value for number, value in enumerate(getattr(self, name))}
        return named


def step(rule: Rule, networks: Networks, inputs: Tensor, labels: Tensor, noise: Tensor | None) -> Tensor:
    """Let every network take a step with its own mini-batch.

    Args:
        rule: what is alike for all.
        networks: changed in place.
        inputs: float32 [S, B, features].
        labels: int64 [S, B], or float32 [S, B, outputs] for the squared error.
        noise: at a step that is perturbed, standard normal numbers laid out as `Layered.flat`, or empty if the rule has
            no noise; None at all others.

    Returns:
        How good each prediction was just before the step, [S, B]: bool, or float32 squared errors.
    """
    theta = networks.theta
    values, bends = [inputs], []
    for weights, bias, activation in zip(theta.weights, theta.biases, rule.activations, strict=False):
        value, bend = _activate(activation, _affine(values[-1], weights, bias))
        values.append(value)
        bends.append(bend)
    outputs = _affine(values[-1], theta.weights[-1], theta.biases[-1])
    judged, slopes = _judge(rule.loss, outputs, labels)
    networks.steps.add_(1)
    _descend(rule, networks, values, bends, slopes)
    if noise is not None:
        theta.flat.mul_(rule.shrink)
        if rule.noise_std:
            theta.flat.add_(noise, alpha=rule.noise_std)
    if rule.method is not None:
        for number, activation_of_layer in enumerate(values[1:]):
            _observe(rule.method, networks, number, activation_of_layer)
    return judged


def weigh(method: ContinualBackprop, networks: Networks, number: int, activity: Tensor) -> Tensor:
    """Activity [S, units] of a hidden layer times Σ|w_out|, over Σ|w_in| for the adaptable contribution."""
    weights = networks.theta.weights
    utility: Tensor = activity * weights[number + 1].abs().sum(dim=1)
    if method.utility_rule == "adaptable_contribution":
        utility = utility / weights[number].abs().sum(dim=2)
    return utility


def correction(method: ContinualBackprop, networks: Networks, number: int) -> Tensor:
    """1 - η^age of the units of a hidden layer."""
    age = networks.steps - networks.born[number]
    corrections: Tensor = 1 - method.decay_rate ** age.float()
    return corrections


def _affine(values: Tensor, weights: Tensor, bias: Tensor) -> Tensor:
    return torch.baddbmm(bias[:, None], values, weights.transpose(1, 2))


def _activate(activation: nn.Module, z: Tensor) -> tuple[Tensor, Tensor]:
    """Activations and their derivatives; at a kink the derivative is torch's."""
    if isinstance(activation, nn.ReLU):
        value = z.relu()
        return value, (value > 0).to(z)
    if isinstance(activation, nn.LeakyReLU):
        slope = activation.negative_slope
        return nn.functional.leaky_relu(z, slope), torch.full_like(z, slope).masked_fill_(z > 0, 1.0)
    if isinstance(activation, nn.Tanh):
        value = z.tanh()
        return value, 1 - value * value
    gate = z.sigmoid()
    if isinstance(activation, nn.Sigmoid):
        return gate, gate * (1 - gate)
    if isinstance(activation, nn.SiLU):
        return z * gate, gate * (1 + z * (1 - gate))
    assert isinstance(activation, nn.ELU)
    # Not from the activation, which has lost the digits of a small derivative.
    bend = (activation.alpha * z.exp()).masked_fill_(z > 0, 1.0)
    return nn.functional.elu(z, activation.alpha), bend


def _judge(loss: Loss, outputs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """How good predictions are, and the derivative of each network's mean loss by its outputs."""
    if loss == "cross_entropy":
        slopes = outputs.softmax(dim=2)
        slopes.scatter_add_(2, labels[..., None], slopes.new_full((), -1.0).expand(*labels.shape, 1))
        return outputs.argmax(dim=2) == labels, slopes / labels.shape[1]
    error = outputs - labels
    return error.square().mean(dim=2), error * (2 / (error.shape[1] * error.shape[2]))


def _descend(rule: Rule, networks: Networks, values: Sequence[Tensor], bends: Sequence[Tensor], slopes: Tensor) -> None:
    """Take the step, back to front. With SGD a layer moves as soon as nothing below needs its old weights."""
    theta, gradient = networks.theta, networks.gradient
    for number in reversed(range(len(values))):
        weights, bias = theta.weights[number], theta.biases[number]
        below = torch.bmm(slopes, weights) * bends[number - 1] if number else None
        across, total = slopes.transpose(1, 2), slopes.sum(dim=1)
        if gradient is None:
            weights.baddbmm_(across, values[number], beta=rule.keep, alpha=-rule.learning_rate)
            bias.mul_(rule.keep).add_(total, alpha=-rule.learning_rate)
        else:
            torch.bmm(across, values[number], out=gradient.weights[number])
            gradient.biases[number].copy_(total)
        if below is not None:
            slopes = below
    if gradient is not None:
        _adam(rule, networks, gradient.flat)


def _adam(rule: Rule, networks: Networks, gradient: Tensor) -> None:
    assert networks.mean is not None and networks.square is not None
    theta, mean, square = networks.theta.flat, networks.mean.flat, networks.square.flat
    steps = networks.steps.double()
    mean.lerp_(gradient, 1 - _FIRST_DECAY)
    square.mul_(_SECOND_DECAY).addcmul_(gradient, gradient, value=1 - _SECOND_DECAY)
    size = (rule.learning_rate / (1 - _FIRST_DECAY**steps)).float()
    root = (1 - _SECOND_DECAY**steps).sqrt().float()
    theta.mul_(rule.keep).sub_(size * mean / (square.sqrt() / root + _EPS))


def _observe(method: ContinualBackprop, networks: Networks, number: int, values: Tensor) -> None:
    """One step of the running means of a hidden layer, given its activations [S, B, units]; a reading that is not
    finite is left out.
    """
    share = 1 - method.decay_rate
    if method.utility_rule == "adaptable_contribution":
        usual = networks.mean_activation[number]
        means = values.mean(dim=1)
        usual.lerp_(torch.where(means.isfinite(), means, usual), share)
        values = values - (usual / correction(method, networks, number))[:, None]
    new = values.abs().mean(dim=1)
    if method.weight_sums == "each_step":
        new = weigh(method, networks, number, new)
    finite, running = new.isfinite(), networks.running[number]
    running.lerp_(torch.where(finite, new, running), share)
    networks.not_finite[number].logical_or_(~finite)
