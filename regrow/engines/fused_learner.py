"""Online learning in the fused loop of `regrow.kernels`."""

import math
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Generator, Tensor, nn

from regrow.attachment.unit_worker import Event
from regrow.engines.fusible import activations, dropouts, hidden_groups, linear_layers, steps_of
from regrow.engines.machine_code import provide
from regrow.engines.replacement_plan import Planner
from regrow.engines.training import Training
from regrow.errors import DataError, StateError
from regrow.kernels.activations import ELU, LEAKY_RELU, RELU, SIGMOID, SWISH, TANH
from regrow.kernels.adam import Adam
from regrow.kernels.compiled import Floats
from regrow.kernels.losses import CROSS_ENTROPY, SQUARED_ERROR
from regrow.kernels.network import empty_network, refresh_hidden
from regrow.kernels.online_mlp import Decay, Descent, Examples, learn, scratch_for
from regrow.kernels.replacement import EACH_STEP, NONE, RANDOM, WHEN_DUE, Plan, Rule, Units
from regrow.methods import L2, ContinualBackprop, Method, QuotaMethod, ShrinkAndPerturb
from regrow.methods.generator import seeded_generator
from regrow.networks.layers.dropout import Dropout
from regrow.units.initial import Init, law_for
from regrow.units.surgery import Region

# Noise is drawn for many steps at once, but for no more than fits easily into memory (32 MiB).
_MOST_NOISE = 1 << 23
# A table of the corrections of running means is no longer than this (256 KiB); beyond, they are computed.
_MOST_CORRECTIONS = 1 << 16
_ACTIVATIONS: dict[type[nn.Module], int] = {
    nn.ReLU: RELU,
    nn.LeakyReLU: LEAKY_RELU,
    nn.Tanh: TANH,
    nn.Sigmoid: SIGMOID,
    nn.ELU: ELU,
    nn.SiLU: SWISH,
}


class FusedLearner:
    """Learns one example after another.

    The same draws, replacements and, within float32 rounding, weights as `PlainLearner`. Where weights become
    infinite or NaN, the two part: an input that is exactly zero never meets its weights here.

    Args:
        network: a network for which `fused_reason` is None.
        learning_rate: the optimizer's step size.
        methods: as for `attach`.
        init: as for `attach`.
        seed: of everything that is drawn.
        training: loss and optimizer, of batches of one example; if None, the cross-entropy and SGD.
        chunk: how many examples go into one call of the loop; changes no bit of the result.
    """

    engine = "fused"

    def __init__(
        self,
        network: nn.Module,
        learning_rate: float,
        methods: Sequence[Method],
        init: Init = None,
        seed: int = 0,
        training: Training | None = None,
        chunk: int = 4096,
    ) -> None:
        provide()
        self.events: list[Event] = []
        self._module = network.train()
        self._layers = linear_layers(network)
        self._training = training or Training()
        self._identity = f"{list(methods)!r} on {steps_of(network)!r}, {self._training!r}"
        self._chunk = chunk
        self._dropouts = dropouts(network)
        self._steps = 0
        self._learning_rate = learning_rate
        bends = activations(network)
        self._network = empty_network(
            self._widths(), [_ACTIVATIONS[type(bend)] for bend in bends], [_shape(bend) for bend in bends]
        )
        self._scratch = scratch_for(self._network)
        self._theta = torch.from_numpy(self._network.theta)
        self._read_module()
        self._descent = _descent(self._training, learning_rate, len(self._theta))

        unit_method = next((method for method in methods if isinstance(method, QuotaMethod)), None)
        perturbation = next((method for method in methods if isinstance(method, ShrinkAndPerturb)), None)
        generators: dict[Method | None, Generator] = {
            method: seeded_generator(seed, index) for index, method in enumerate(methods)
        }
        self._groups = hidden_groups(self._layers)
        regions = [Region(group.slices[0], self._layers[group.name].weight) for group in self._groups]
        self._planner = Planner(
            unit_method,
            self._groups,
            [region.fan_in for region in regions],
            [law_for(network, region, init) for region in regions],
            generators.get(unit_method, Generator()),
        )
        self._rule = _rule(unit_method)
        hidden = sum(group.size for group in self._groups)
        self._units = Units(
            np.zeros(hidden, np.float32),
            np.zeros(hidden, np.float32),
            np.zeros(hidden, np.int64),
            np.zeros(hidden, np.bool_),
        )
        self._warned: set[str] = set()

        l2 = next((method for method in methods if isinstance(method, L2)), L2(0.0))
        self._keep = np.float32(1 - learning_rate * l2.strength)
        self._perturbation = perturbation
        self._noise_generator = generators.get(perturbation, Generator())
        if perturbation is not None and perturbation.noise_std:
            most = max(1, _MOST_NOISE // len(self._theta)) * perturbation.period
            self._chunk = min(self._chunk, most)
        if any(self._dropouts):
            self._chunk = min(self._chunk, max(1, _MOST_NOISE // hidden))

    def learn(self, inputs: Tensor, labels: Tensor) -> Tensor:
        """Learn examples in order.

        Args:
            inputs: float32 [n, features].
            labels: int64 [n], classes from 0; for the squared error float32 [n, outputs].

        Returns:
            Bool [n]: whether the prediction just before each step was right; for the squared error that, float32 [n].

        Raises:
            DataError: inputs or labels do not fit the network.
        """
        self._check(inputs, labels)
        judged = torch.zeros(len(inputs))
        for start in range(0, len(inputs), self._chunk):
            part = slice(start, start + self._chunk)
            self._learn_chunk(inputs[part], labels[part], judged[part])
        self._warn_if_not_finite()
        return judged.bool() if self._training.loss == "cross_entropy" else judged

    def task_changed(self, inputs: Tensor, labels: Tensor) -> None:
        """Nothing: none of the methods that it knows acts at task changes."""

    def network(self) -> nn.Module:
        """The network that was given, brought up to date."""
        for number, layer in enumerate(self._layers.values()):
            weights, bias = self._views(number)
            with torch.no_grad():
                layer.weight.copy_(weights.t())
                layer.bias.copy_(bias)
        return self._module

    def replacements(self) -> dict[str, int]:
        """How many units were replaced so far, by group."""
        schedules = self._planner.schedules
        return {group.name: each.replaced for group, each in zip(self._groups, schedules, strict=bool(schedules))}

    def state_dict(self) -> dict[str, Any]:
        """Everything that `load_state_dict` needs for going on with the same bits."""
        return {
            "identity": self._identity,
            "steps": self._steps,
            "parameters": self._theta.clone(),
            **{name: torch.from_numpy(values.copy()) for name, values in self._arrays().items()},
            "schedules": {
                group.name: each.state() for group, each in zip(self._groups, self._planner.schedules, strict=False)
            },
            "unit_generator": self._planner.generator.get_state(),
            "noise_generator": self._noise_generator.get_state(),
            "dropout": {name: dropout.get_extra_state() for name, dropout in self._drawing().items()},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` returned.

        Raises:
            StateError: it was saved by another engine, with other methods or by another network.
        """
        if state.get("identity") != self._identity:
            raise StateError(
                "This learner's state was saved by another one.\n"
                f"  saved:   {state.get('identity', 'not by the fused engine')}\n  present: {self._identity}\n"
                "Build the learner as it was then, engine included, or start afresh."
            )
        self._steps = int(state["steps"])
        self._theta.copy_(state["parameters"])
        for name, values in self._arrays().items():
            values[:] = state[name].numpy()
        for group, each in zip(self._groups, self._planner.schedules, strict=False):
            each.load(state["schedules"][group.name])
        self._planner.generator.set_state(state["unit_generator"])
        self._noise_generator.set_state(state["noise_generator"])
        for name, dropout in self._drawing().items():
            dropout.set_extra_state(state["dropout"][name])

    def _drawing(self) -> dict[str, Dropout]:
        """Dropout by the group that it stands behind."""
        behind = zip(self._groups, self._dropouts, strict=True)
        return {group.name: dropout for group, dropout in behind if dropout is not None}

    def _arrays(self) -> dict[str, npt.NDArray[Any]]:
        """What is remembered beside the parameters, by name, as far as there is any of it."""
        adam = self._descent.adam
        arrays: dict[str, npt.NDArray[Any]] = {
            # Not summed anew when loaded, since the order of a sum changes its last bits.
            "outgoing": self._network.outgoing,
            "incoming": self._network.incoming,
            "running": self._units.running,
            "mean_activation": self._units.mean,
            "born": self._units.born,
            "gradient_mean": adam.mean,
            "gradient_square": adam.square,
        }
        return {name: values for name, values in arrays.items() if len(values)}

    def _learn_chunk(self, inputs: Tensor, labels: Tensor, judged: Tensor) -> None:
        plan = self._planner.plan(len(inputs))
        is_class = self._training.loss == "cross_entropy"
        examples = Examples(
            # Copied if they must be: the loop is compiled for one layout.
            inputs.detach().contiguous().numpy(),
            labels.contiguous().numpy() if is_class else np.zeros(0, np.int64),
            np.zeros((0, 0), np.float32) if is_class else labels.contiguous().numpy(),
            self._masks(len(inputs)),
            judged.numpy(),
        )
        decay = self._decay(len(inputs))
        learn(self._network, self._units, examples, self._steps, self._descent, decay, self._rule, plan, self._scratch)
        self._note_events(plan)
        self._steps += len(inputs)

    def _masks(self, steps: int) -> Floats:
        """What dropout multiplies the hidden units by, [steps, units]; nothing if there is none."""
        if not any(self._dropouts):
            return np.zeros((0, 0), np.float32)
        masks: Floats = torch.cat(
            [
                torch.ones(steps, group.size) if dropout is None or not dropout.p else dropout.mask((steps, group.size))
                for group, dropout in zip(self._groups, self._dropouts, strict=True)
            ],
            dim=1,
        ).numpy()
        return masks

    def _note_events(self, plan: Plan) -> None:
        units = iter(plan.chosen.tolist())
        for at, group, due in zip(plan.at.tolist(), plan.group.tolist(), plan.due.tolist(), strict=True):
            name = self._groups[group].name
            self.events += [Event(self._steps + at + 1, name, next(units)) for _ in range(due)]

    def _decay(self, steps: int) -> Decay:
        method = self._perturbation
        if method is None or not (method.weight_decay or method.noise_std):
            return Decay(self._keep, np.float32(1), np.float32(0), 0, np.zeros((0, 0), np.float32))
        period = method.period
        times = (self._steps + steps) // period - self._steps // period if method.noise_std else 0
        shrink = (1 - self._learning_rate * method.weight_decay) ** period
        noise_std = method.noise_std * math.sqrt(period)
        return Decay(self._keep, np.float32(shrink), np.float32(noise_std), period, self._noise(times))

    def _noise(self, times: int) -> Floats:
        """Draws for every parameter: in torch's order and shapes, so that they are those of the plain path."""
        rows = torch.empty(times, len(self._theta))
        for row in rows:
            for number, layer in enumerate(self._layers.values()):
                weights, bias = self._views(number, row)
                weights.copy_(torch.randn(layer.weight.shape, generator=self._noise_generator).t())
                bias.copy_(torch.randn(layer.bias.shape, generator=self._noise_generator))
        noise: Floats = rows.numpy()
        return noise

    def _views(self, number: int, theta: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Weights [in, out] and bias of a layer within an array laid out as the parameters."""
        widths = self._network.widths
        start, stop = self._network.offsets[number : number + 2].tolist()
        values = (self._theta if theta is None else theta)[start:stop]
        fan_in, size = int(widths[number]), int(widths[number + 1])
        return values[: fan_in * size].view(fan_in, size), values[fan_in * size :]

    def _read_module(self) -> None:
        for number, layer in enumerate(self._layers.values()):
            weights, bias = self._views(number)
            weights.copy_(layer.weight.detach().t())
            bias.copy_(layer.bias.detach())
        refresh_hidden(self._network)

    def _widths(self) -> list[int]:
        layers = list(self._layers.values())
        return [layers[0].in_features, *(layer.out_features for layer in layers)]

    def _check(self, inputs: Tensor, labels: Tensor) -> None:
        features, classes = self._widths()[0], self._widths()[-1]
        if inputs.dtype != torch.float32 or inputs.dim() != 2 or inputs.shape[1] != features:
            raise DataError(
                f"inputs is {inputs.dtype} {list(inputs.shape)}, but the network takes float32 [n, {features}]."
            )
        if self._training.loss == "squared_error":
            if labels.dtype != torch.float32 or labels.shape != (len(inputs), classes):
                raise DataError(
                    f"labels is {labels.dtype} {list(labels.shape)}, but must be float32 [{len(inputs)}, {classes}]."
                )
            return
        if labels.dtype != torch.int64 or labels.shape != inputs.shape[:1]:
            raise DataError(f"labels is {labels.dtype} {list(labels.shape)}, but must be int64 [{len(inputs)}].")
        if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < classes:
            raise DataError(
                f"labels go from {int(labels.min())} to {int(labels.max())}, but the network has {classes} outputs: "
                "classes count from 0."
            )

    def _warn_if_not_finite(self) -> None:
        start = 0
        for group in self._groups:
            count = int(self._units.not_finite[start : start + group.size].sum())
            start += group.size
            if count and group.name not in self._warned:
                self._warned.add(group.name)
                warnings.warn(
                    f"NaN or infinity in the activations or weights of {count} of {group.size} units of group "
                    f"{group.name!r} by step {self._steps}: such readings do not count towards utility. "
                    "Look at the loss and the step size; this is said once per group.",
                    RuntimeWarning,
                    stacklevel=3,
                )


def _rule(method: QuotaMethod | None) -> Rule:
    none, nothing = np.float32(0), np.zeros(1, np.float32)
    if method is None:
        return Rule(NONE, False, none, none, nothing, 0)
    if not isinstance(method, ContinualBackprop):
        return Rule(RANDOM, False, none, none, nothing, method.maturity_threshold)
    return Rule(
        EACH_STEP if method.weight_sums == "each_step" else WHEN_DUE,
        method.utility_rule == "adaptable_contribution",
        np.float32(method.decay_rate),
        np.float32(1 - method.decay_rate),
        _corrections(method.decay_rate),
        method.maturity_threshold,
    )


def _corrections(decay_rate: float) -> Floats:
    """1 - η^age by age, as the plain path computes it, up to where it is 1 or the table ends."""
    ages = torch.arange(_MOST_CORRECTIONS)
    corrections = 1 - decay_rate ** ages.float()
    unsettled = int((corrections < 1).sum())
    table: Floats = corrections[: unsettled + 1].numpy()
    return table


def _shape(activation: nn.Module) -> float:
    """The number that an activation takes; 0 if it takes none."""
    if isinstance(activation, nn.LeakyReLU):
        return activation.negative_slope
    return activation.alpha if isinstance(activation, nn.ELU) else 0.0


def _descent(training: Training, learning_rate: float, parameters: int) -> Descent:
    remembered = parameters if training.optimizer == "adam" else 0
    # Numbers as torch.optim.Adam has them by default.
    adam = Adam(0.9, 0.999, np.float32(1e-8), np.zeros(remembered, np.float32), np.zeros(remembered, np.float32))
    loss = CROSS_ENTROPY if training.loss == "cross_entropy" else SQUARED_ERROR
    return Descent(loss, learning_rate, adam)
