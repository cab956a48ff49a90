"""Continual backpropagation in plain NumPy, written from the equations alone.

Nothing here is shared with the package: the tests compare the two. Sources are Dohare et al., "Loss of plasticity in
deep continual learning", Nature 632 (2024), Eq. 1 and the algorithm after it, and arXiv 2108.06325 for
`adaptable_contribution`. Hidden layer l (from 0) has incoming weights `weights[l]` and outgoing `weights[l + 1]`;
weights are [out, in]. Steps are counted from 1.
"""

from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Draw = Callable[[int, Array, tuple[int, int]], Array]
"""(layer, units in ascending order, (number of units, fan-in)) -> new incoming weights, one row a unit."""


class Event(NamedTuple):
    """Unit `unit` of hidden layer `layer` was replaced right after optimizer step `step`."""

    step: int
    layer: int
    unit: int


class Recorded(NamedTuple):
    """What one call of `draw` was asked for and what it answered."""

    layer: int
    units: Array
    rows: Array


class Sgd:
    """One tensor's SGD, with torch.optim.SGD's momentum (no dampening); the first buffer is the first gradient."""

    def __init__(self, param: Array, lr: float, momentum: float = 0.0) -> None:
        self.lr, self.momentum = lr, momentum
        self.buffer = np.zeros_like(param)
        self.moments = [self.buffer]

    def update(self, param: Array, grad: Array) -> None:
        self.buffer *= self.momentum
        self.buffer += grad
        param -= self.lr * self.buffer


class Adam:
    """One tensor's Adam, with torch.optim.Adam's formula: one scalar step, eps outside the root."""

    def __init__(self, param: Array, lr: float, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8) -> None:
        self.lr, self.betas, self.eps, self.step = lr, betas, eps, 0
        self.first, self.second = np.zeros_like(param), np.zeros_like(param)
        self.moments = [self.first, self.second]

    def update(self, param: Array, grad: Array) -> None:
        beta1, beta2 = self.betas
        self.step += 1
        self.first += (1 - beta1) * (grad - self.first)
        self.second *= beta2
        self.second += (1 - beta2) * grad * grad
        root = np.sqrt(self.second) / (1 - beta2**self.step) ** 0.5
        param -= self.lr / (1 - beta1**self.step) * (self.first / (root + self.eps))


class ReferenceCBP:
    """A multilayer perceptron with a linear output, trained step by step and kept plastic by replacing hidden units.

    The loss is the mean over the batch of the squared error summed over outputs ("squared", targets [batch, out],
    gradient 2e) or of the cross-entropy ("cross_entropy", targets [batch], class indices). `make_optimizer` builds
    the optimizer of one tensor, e.g. `lambda p: Adam(p, lr=1e-3)`. `rate` is read as the decimal it prints as, so
    that the number of replacements is exact; 0 switches them off and leaves ages and utilities running.
    """

    def __init__(
        self,
        weights: Sequence[Array],
        biases: Sequence[Array],
        *,
        make_optimizer: Callable[[Array], Sgd | Adam],
        draw: Draw,
        hidden: str = "relu",
        loss: str = "squared",
        utility: str = "contribution",
        rate: float = 1e-4,
        maturity: int = 100,
        decay: float = 0.99,
        dtype: type[np.floating[Any]] = np.float64,
    ) -> None:
        for name, value, known in (
            ("hidden", hidden, ("relu", "tanh")),
            ("loss", loss, ("squared", "cross_entropy")),
            ("utility", utility, ("contribution", "adaptable_contribution")),
        ):
            if value not in known:
                raise ValueError(f"{name} is {value!r}; use one of {known}")
        self.hidden, self.loss_name, self.utility_name = hidden, loss, utility
        self.rate, self.maturity, self.decay, self.dtype = Fraction(str(rate)), maturity, decay, dtype
        if not 0 <= self.rate <= 1:
            raise ValueError(f"rate is {rate}; use a share between 0 and 1")
        self.weights = [np.array(w, dtype=dtype) for w in weights]
        self.biases = [np.array(b, dtype=dtype) for b in biases]
        self.weight_optimizers = [make_optimizer(w) for w in self.weights]
        self.bias_optimizers = [make_optimizer(b) for b in self.biases]
        self.draw = draw

        widths = [len(b) for b in self.biases[:-1]]
        self.age = [np.zeros(n, dtype=np.int64) for n in widths]
        self.utility = [np.zeros(n, dtype=dtype) for n in widths]  # u, without bias correction
        self.mean = [np.zeros(n, dtype=dtype) for n in widths]  # f, without bias correction
        self.eligible_sum = [0] * len(widths)  # S, over all steps so far
        self.replaced = [0] * len(widths)
        self.steps = 0
        self.events: list[Event] = []
        self.draws: list[Recorded] = []

    def forward(self, x: Array) -> tuple[Array, list[Array]]:
        """The outputs [batch, out] and each hidden layer's post-activation [batch, width]."""
        h, hiddens = np.asarray(x, dtype=self.dtype), []
        for w, b in zip(self.weights[:-1], self.biases[:-1], strict=True):
            z = h @ w.T + b
            h = np.maximum(z, 0) if self.hidden == "relu" else np.tanh(z)
            hiddens.append(h)
        return h @ self.weights[-1].T + self.biases[-1], hiddens

    def gradients(self, x: Array, y: Array) -> tuple[float, list[Array], list[Array], list[Array]]:
        """The loss, its gradients for weights and for biases, and the post-activations of this very forward."""
        x = np.asarray(x, dtype=self.dtype)
        out, hiddens = self.forward(x)
        n = len(x)
        if self.loss_name == "squared":
            error = out - np.asarray(y, dtype=self.dtype).reshape(out.shape)
            loss, delta = float((error**2).sum() / n), 2 * error / n
        else:
            shifted = out - out.max(axis=1, keepdims=True)
            log_p = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
            loss, delta = float(-log_p[np.arange(n), y].mean()), np.exp(log_p)
            delta[np.arange(n), y] -= 1
            delta /= n
        inputs = [x, *hiddens]
        weight_grads, bias_grads = [np.empty(0)] * len(inputs), [np.empty(0)] * len(inputs)
        for i in reversed(range(len(inputs))):
            weight_grads[i], bias_grads[i] = delta.T @ inputs[i], delta.sum(axis=0)
            if i:
                h = inputs[i]
                slope = (h > 0).astype(self.dtype) if self.hidden == "relu" else 1 - h * h
                delta = (delta @ self.weights[i]) * slope
        return loss, weight_grads, bias_grads, hiddens

    def step(self, x: Array, y: Array) -> float:
        """One training step on a batch x [batch, in], then continual backpropagation; the loss before the step."""
        loss, weight_grads, bias_grads, hiddens = self.gradients(x, y)
        for params, grads, optimizers in (
            (self.weights, weight_grads, self.weight_optimizers),
            (self.biases, bias_grads, self.bias_optimizers),
        ):
            for param, grad, optimizer in zip(params, grads, optimizers, strict=True):
                optimizer.update(param, grad)
        self.steps += 1
        # Every layer's choice is made on the weights the optimizer left, before any layer is changed.
        chosen = []
        for layer, h in enumerate(hiddens):
            self._observe(layer, h)
            chosen.append(self._choose(layer))
        self._replace(chosen)
        return loss

    def corrected(self, layer: int) -> Array:
        """What units are ranked by: u / (1 - eta^age), and 0 for a unit of age 0."""
        return self._unbiased(layer, self.utility[layer])

    def _unbiased(self, layer: int, running: Array) -> Array:
        correction = 1 - self.decay ** self.age[layer].astype(np.float64)
        return running / np.where(self.age[layer] > 0, correction, 1).astype(self.dtype)

    def _observe(self, layer: int, h: Array) -> None:
        eta = self.decay
        w_in, w_out = self.weights[layer], self.weights[layer + 1]
        self.age[layer] += 1
        self.mean[layer] = eta * self.mean[layer] + (1 - eta) * h.mean(axis=0)
        outgoing = np.abs(w_out).sum(axis=0)
        if self.utility_name == "contribution":
            new = outgoing * np.abs(h).mean(axis=0)
        else:
            centred = np.abs(h - self._unbiased(layer, self.mean[layer])).mean(axis=0)
            new = outgoing * centred / np.abs(w_in).sum(axis=1)
        self.utility[layer] = eta * self.utility[layer] + (1 - eta) * new

    def _choose(self, layer: int) -> Array:
        eligible = np.flatnonzero(self.age[layer] > self.maturity)
        self.eligible_sum[layer] += len(eligible)
        due = self.rate.numerator * self.eligible_sum[layer] // self.rate.denominator - self.replaced[layer]
        order = np.argsort(self.corrected(layer)[eligible], kind="stable")  # stable: the lower index wins a tie
        units = np.sort(eligible[order[:due]])
        self.replaced[layer] += len(units)
        return units

    def _replace(self, chosen: list[Array]) -> None:
        # All outgoing weights first: an entry that joins two newborns keeps the second one's new incoming weight.
        for layer, units in enumerate(chosen):
            self.weights[layer + 1][:, units] = 0
            for moment in self.weight_optimizers[layer + 1].moments:
                moment[:, units] = 0
        for layer, units in enumerate(chosen):
            if not len(units):
                continue
            rows = np.array(self.draw(layer, units, (len(units), self.weights[layer].shape[1])), dtype=self.dtype)
            self.draws.append(Recorded(layer, units, rows))
            self.weights[layer][units] = rows
            self.biases[layer][units] = 0
            for moment in (*self.weight_optimizers[layer].moments, *self.bias_optimizers[layer].moments):
                moment[units] = 0
            self.age[layer][units] = 0
            self.utility[layer][units] = 0
            self.mean[layer][units] = 0
            self.events += [Event(self.steps, layer, int(unit)) for unit in units]


def uniform_draw(seed: int, gain: float = 2**0.5) -> Draw:
    """Kaiming-uniform incoming weights, U(-b, b) with b = gain * sqrt(3 / fan_in)."""
    rng = np.random.default_rng(seed)

    def draw(layer: int, units: Array, shape: tuple[int, int]) -> Array:
        bound = gain * (3 / shape[1]) ** 0.5
        return rng.uniform(-bound, bound, shape)

    return draw


def replay(draws: Iterable[Recorded]) -> Draw:
    """Answer with draws recorded elsewhere, in their order; ValueError when asked for other units than recorded."""
    rest = iter(draws)

    def draw(layer: int, units: Array, shape: tuple[int, int]) -> Array:
        recorded = next(rest, None)
        if recorded is None:
            raise ValueError(f"layer {layer} asks for units {units.tolist()}, but no recorded draw is left")
        if (recorded.layer, list(recorded.units), recorded.rows.shape) != (layer, list(units), shape):
            raise ValueError(
                f"layer {layer} asks for units {units.tolist()} of shape {shape}, but the next recorded draw is for "
                f"layer {recorded.layer}, units {list(recorded.units)}, shape {recorded.rows.shape}"
            )
        return recorded.rows

    return draw


def initial_mlp(widths: Sequence[int], seed: int, gain: float = 2**0.5) -> tuple[list[Array], list[Array]]:
    """Kaiming-uniform weights (output layer: gain 1) and zero biases for widths (in, hidden..., out)."""
    rng = np.random.default_rng(seed)
    weights = []
    for i, (fan_in, fan_out) in enumerate(zip(widths[:-1], widths[1:], strict=True)):
        bound = (gain if i < len(widths) - 2 else 1.0) * (3 / fan_in) ** 0.5
        weights.append(rng.uniform(-bound, bound, (fan_out, fan_in)))
    return weights, [np.zeros(n) for n in widths[1:]]


def reference_bit_flipping(
    seed: int, steps: int, *, period: int = 10_000, authors_threshold: bool = False
) -> tuple[Array, Array]:
    """The article's bit-flipping regression: inputs [steps, 20] of 0 and 1, targets [steps].

    The 15 first bits are constant but for one of them, drawn at random, that flips after every `period` examples; the
    5 last are fair coins. The target is 100 threshold units on 20 bits and a constant 1, all weights and biases -1 or
    1, with thresholds 21 * 0.7 - S, where S counts a unit's negative weights, its bias among them, and a linear output
    with a bias. The authors' code has S = (20 - sum of the 20 weights + bias) / 2 instead (`authors_threshold`), which
    makes units of bias -1 rarer and the targets smaller.
    """
    rng = np.random.default_rng(seed)
    w = rng.choice([-1.0, 1.0], (100, 21))  # the last column belongs to the constant input
    v = rng.choice([-1.0, 1.0], 101)
    negatives = (20 - w[:, :20].sum(axis=1) + w[:, 20]) / 2 if authors_threshold else (w < 0).sum(axis=1)
    threshold = 21 * 0.7 - negatives
    slow = rng.integers(0, 2, 15)
    x, y = np.empty((steps, 20)), np.empty(steps)
    for start in range(0, steps, period):
        if start:
            slow[rng.integers(15)] ^= 1
        part = x[start : start + period]
        part[:, :15] = slow
        part[:, 15:] = rng.integers(0, 2, (len(part), 5))
        on = part @ w[:, :20].T + w[:, 20] > threshold
        y[start : start + period] = on @ v[:100] + v[100]
    return x, y
