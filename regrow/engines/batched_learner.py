"""Online learning of many networks at once: one process for all seeds of an arm, made for a GPU."""

import math
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Generator, Tensor, nn

from regrow.attachment.unit_worker import Event
from regrow.engines.batched_replacement import Due, joined, replace_units
from regrow.engines.batched_step import Layered, Networks, Rule, step
from regrow.engines.fusible import activations, dropouts, fused_reason, hidden_groups, linear_layers, steps_of
from regrow.engines.replacement_plan import Planner
from regrow.engines.step_graphs import StepGraphs, run_eagerly
from regrow.engines.training import Training
from regrow.errors import ConfigError, DataError, StateError
from regrow.methods import L2, ContinualBackprop, Method, QuotaMethod, ShrinkAndPerturb
from regrow.methods.generator import seeded_generator
from regrow.units.initial import Init, law_for
from regrow.units.surgery import Region

# Noise is drawn for many steps at once, but for no more than fits easily into memory (128 MiB).
_MOST_NOISE = 1 << 25


def batched_reason(
    networks: Sequence[nn.Module], methods: Sequence[Method], init: Init = None, training: Training | None = None
) -> str | None:
    """Why networks cannot be trained side by side: a clause to put after "because". None if they can.

    Args:
        networks: one for each seed.
        methods: as for `attach`, the same for all.
        init: as for `attach`.
        training: loss, mini-batches and optimizer; if None, one example a step, cross-entropy and SGD.
    """
    if not networks:
        return "there is none"
    for network in networks:
        # What it knows is what the fused loop knows, but for the size of mini-batches.
        reason = fused_reason(network, methods, init, replace(training or Training(), batch=1))
        if reason is not None:
            return reason
        if any(dropouts(network)):
            return "it does not know Dropout"
        if repr(steps_of(network)) != repr(steps_of(networks[0])):
            return "they do not all have the same layers"
    for method in methods:
        if isinstance(method, QuotaMethod) and method.budget == "carried_of_all":
            return "it does not know budget='carried_of_all'"
    return None


@dataclass(frozen=True)
class _Chunk:
    """Steps that go together, with the data, draws and results where the networks are.

    Attributes:
        batches: inputs [steps, S, B, features] and labels.
        judged: output, [steps, S, B].
        perturbed: whether each step is.
        noise: of those that are, one after the other, laid out as `Layered.flat`.
        dues: what is due, by index of the step.
    """

    batches: tuple[Tensor, Tensor]
    judged: Tensor
    perturbed: list[bool]
    noise: Tensor
    dues: dict[int, list[Due]]


class BatchedLearner:
    """Learns one mini-batch after another with many networks of the same shape, each with its own seed and stream.

    Each gets the draws, replacements and, within float32 rounding, weights that `PlainLearner` gives it alone. On a GPU
    the steps between two replacements are launched as CUDA graphs, and the host never waits for the device before the
    results of a call are fetched. On a CPU it is the same code called step by step.

    Args:
        networks: one for each seed, of the same layers, for which `batched_reason` is None. They stay as they are
            until `networks` is called.
        learning_rate: the optimizer's step size.
        methods: as for `attach`, the same for all.
        init: as for `attach`.
        seeds: of everything that is drawn, one for each network.
        training: loss, mini-batches and optimizer; if None, one example a step, the cross-entropy and SGD.
        device: where to learn.
        unroll: how many steps go into a CUDA graph; 0 for none, which is all that a CPU can do.
        chunk: for how many steps data and draws are sent to the device at once; changes no bit of the result.

    Raises:
        ConfigError: these networks cannot be trained side by side, or there are not as many seeds as networks.
    """

    engine = "batched"
    events: list[list[Event]]
    """All replacements of this process so far, oldest first, by network."""

    def __init__(
        self,
        networks: Sequence[nn.Module],
        learning_rate: float,
        methods: Sequence[Method],
        init: Init = None,
        seeds: Sequence[int] = (0,),
        training: Training | None = None,
        device: str | torch.device = "cpu",
        unroll: int = 32,
        chunk: int = 1024,
    ) -> None:
        reason = batched_reason(networks, methods, init, training)
        if reason is not None:
            raise ConfigError(
                f"These networks cannot be trained side by side, because {reason}. Give each a learner of its own: "
                "build_learner."
            )
        if len(seeds) != len(networks):
            raise ConfigError(
                f"There are {len(seeds)} seeds for {len(networks)} networks: {list(seeds)}. Give one seed for each."
            )
        self.events: list[list[Event]] = [[] for _ in networks]
        self._modules = [network.train() for network in networks]
        self._layers = [linear_layers(network) for network in networks]
        self._training = training or Training()
        self._identity = f"{list(methods)!r} on {steps_of(networks[0])!r}, {self._training!r}, seeds {list(seeds)}"
        self._device = torch.device(device)
        self._steps = 0
        first = list(self._layers[0].values())
        self._widths = [first[0].in_features, *(layer.out_features for layer in first)]

        self._method = next((method for method in methods if isinstance(method, QuotaMethod)), None)
        l2 = next((method for method in methods if isinstance(method, L2)), L2(0.0))
        perturbation = next((method for method in methods if isinstance(method, ShrinkAndPerturb)), None)
        acts = perturbation is not None and (perturbation.weight_decay or perturbation.noise_std)
        given = perturbation if perturbation is not None and acts else ShrinkAndPerturb(0.0, 0.0)
        self._period = given.period if acts else 0
        self._rule = Rule(
            self._training.loss,
            tuple(activations(networks[0])),
            learning_rate,
            self._training.optimizer == "adam",
            1 - learning_rate * l2.strength,
            (1 - learning_rate * given.weight_decay) ** given.period,
            given.noise_std * math.sqrt(given.period),
            self._method if isinstance(self._method, ContinualBackprop) else None,
        )
        self._held = Networks(self._rule, len(networks), self._widths, self._device)
        self._read_modules()

        places = {method: index for index, method in enumerate(methods)}
        self._noise_generators = [_generator(seed, places, perturbation) for seed in seeds]
        self._groups = hidden_groups(self._layers[0])
        self._planners = [
            self._planner(network, layers, init, _generator(seed, places, self._method))
            for network, layers, seed in zip(networks, self._layers, seeds, strict=True)
        ]
        self._chosen: list[tuple[int, Due, Tensor]] = []
        self._warned: set[tuple[int, str]] = set()

        self._chunk = chunk
        if self._rule.noise_std:
            self._chunk = min(chunk, max(1, _MOST_NOISE // len(self._held.theta.flat)) * self._period)
        graphed = unroll > 0 and self._device.type == "cuda"
        state = list(self._held.tensors().values())
        self._graphs = StepGraphs(self._step, state, unroll) if graphed else None

    def learn(self, inputs: Tensor, labels: Tensor) -> Tensor:
        """Learn examples in order, every network its own.

        Args:
            inputs: float32 [S, n, features].
            labels: int64 [S, n], classes from 0; for the squared error float32 [S, n, outputs].

        Returns:
            Bool [S, n], on the host: whether the prediction just before each step was right; for the squared error
            that, float32 [S, n].

        Raises:
            DataError: inputs or labels do not fit the networks.
        """
        self._check(inputs, labels)
        judged = [torch.empty(len(self._modules), 0, dtype=self._judged_type)]
        for part, batch in self._parts(inputs.shape[1]):
            chunk = self._staged(inputs[:, part], labels[:, part], batch)
            self._advance(chunk)
            judged.append(chunk.judged.transpose(0, 1).flatten(1).cpu())
            self._note_events()
        self._warn_if_not_finite()
        return torch.cat(judged, dim=1)

    def task_changed(self, inputs: Tensor, labels: Tensor) -> None:
        """Nothing: none of the methods that it knows acts at task changes."""

    def networks(self) -> list[nn.Module]:
        """The networks that were given, brought up to date."""
        for number, layers in enumerate(self._layers):
            for layer, weights, bias in self._with_views(layers, self._held.theta):
                with torch.no_grad():
                    layer.weight.copy_(weights[number])
                    layer.bias.copy_(bias[number])
        return self._modules

    def replacements(self) -> list[dict[str, int]]:
        """How many units were replaced so far, by group, for each network."""
        return [
            {group.name: each.replaced for group, each in zip(self._groups, schedules, strict=bool(schedules))}
            for schedules in (planner.schedules for planner in self._planners)
        ]

    def state_dict(self) -> dict[str, Any]:
        """Everything that `load_state_dict` needs for going on with the same bits, on the host."""
        schedules = {
            f"{number}.{group.name}": each.state()
            for number, planner in enumerate(self._planners)
            for group, each in zip(self._groups, planner.schedules, strict=False)
        }
        return {
            "identity": self._identity,
            "steps": self._steps,
            **{name: value.to("cpu", copy=True) for name, value in self._held.tensors().items()},
            "schedules": schedules,
            "unit_generators": torch.stack([planner.generator.get_state() for planner in self._planners]),
            "noise_generators": torch.stack([generator.get_state() for generator in self._noise_generators]),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` returned.

        Raises:
            StateError: it was saved by another engine, with other methods, networks or seeds.
        """
        if state.get("identity") != self._identity:
            raise StateError(
                "This learner's state was saved by another one.\n"
                f"  saved:   {state.get('identity', 'not by the batched engine')}\n  present: {self._identity}\n"
                "Build the learner as it was then, engine and seeds included, or start afresh."
            )
        self._steps = int(state["steps"])
        for name, value in self._held.tensors().items():
            value.copy_(state[name])
        for number, planner in enumerate(self._planners):
            for group, each in zip(self._groups, planner.schedules, strict=False):
                each.load(state["schedules"][f"{number}.{group.name}"])
            # Copied: torch reads past the end of a state that starts in the middle of another tensor.
            planner.generator.set_state(state["unit_generators"][number].clone())
            self._noise_generators[number].set_state(state["noise_generators"][number].clone())

    @property
    def _judged_type(self) -> torch.dtype:
        return torch.bool if self._training.loss == "cross_entropy" else torch.float32

    def _parts(self, examples: int) -> Iterator[tuple[slice, int]]:
        """Which examples go into a chunk, with the size of its mini-batches; the last of all may be smaller."""
        batch = self._training.batch
        whole = examples - examples % batch
        for start in range(0, whole, self._chunk * batch):
            yield slice(start, min(start + self._chunk * batch, whole)), batch
        if whole < examples:
            yield slice(whole, examples), examples - whole

    def _staged(self, inputs: Tensor, labels: Tensor, batch: int) -> _Chunk:
        """Draw and send all that the steps of a chunk take."""
        steps = inputs.shape[1] // batch
        given = [value.unflatten(1, (steps, batch)).transpose(0, 1) for value in (inputs.detach(), labels)]
        batches = [value.to(self._device, non_blocking=True) for value in given]
        judged = torch.empty(steps, len(inputs), batch, dtype=self._judged_type, device=self._device)
        perturbed = [bool(self._period) and number % self._period == 0 for number in self._numbers(steps)]
        noise = self._noise(sum(perturbed)).to(self._device, non_blocking=True)
        dues = joined([planner.plan(steps) for planner in self._planners], self._widths, self._device)
        chunk = _Chunk((batches[0], batches[1]), judged, perturbed, noise, dues)
        if self._graphs is not None:
            if not all(perturbed):
                self._graphs.prepare((*chunk.batches, None), judged)
            if any(perturbed):
                self._graphs.prepare((*chunk.batches, noise), judged)
        return chunk

    def _numbers(self, steps: int) -> range:
        """Numbers of the next steps, from 1 for the first of all."""
        return range(self._steps + 1, self._steps + steps + 1)

    def _noise(self, times: int) -> Tensor:
        """Draws for every parameter: in torch's order and shapes, so that they are those of the plain path."""
        held = Layered(len(self._modules), self._widths, torch.device("cpu"))
        rows = torch.empty(times, len(held.flat) if self._rule.noise_std else 0)
        for row in rows if self._rule.noise_std else ():
            for number, generator in enumerate(self._noise_generators):
                for weights, bias in zip(held.weights, held.biases, strict=True):
                    weights[number] = torch.randn(weights.shape[1:], generator=generator)
                    bias[number] = torch.randn(bias.shape[1:], generator=generator)
            row.copy_(held.flat)
        return rows

    def _advance(self, chunk: _Chunk) -> None:
        """Take the steps of a chunk without waiting for the device."""
        inputs, labels = chunk.batches
        noised = 0
        for start, stop in _runs(chunk.perturbed, chunk.dues):
            noise = None
            if chunk.perturbed[start]:
                noise = chunk.noise[noised : noised + stop - start]
                noised += stop - start
            batches = (inputs[start:stop], labels[start:stop], noise)
            if self._graphs is None:
                run_eagerly(self._step, batches, chunk.judged[start:stop])
            else:
                self._graphs.run(batches, chunk.judged[start:stop])
            self._steps += stop - start
            dues = chunk.dues.get(stop - 1)
            if dues:
                assert self._method is not None  # else nothing is due
                units = replace_units(self._method, self._held, dues)
                self._chosen += [(self._steps, due, chosen) for due, chosen in zip(dues, units, strict=True)]

    def _step(self, inputs: Tensor, labels: Tensor, noise: Tensor | None) -> Tensor:
        return step(self._rule, self._held, inputs, labels, noise)

    def _note_events(self) -> None:
        """Fetch which units were chosen, all at once."""
        if not self._chosen:
            return
        units = torch.cat([chosen for _, _, chosen in self._chosen], dim=1).tolist()
        start = 0
        for number, due, chosen in self._chosen:
            name = self._groups[due.group].name
            for events, mine, count in zip(self.events, units, due.counts, strict=True):
                events += [Event(number, name, unit) for unit in mine[start : start + count]]
            start += chosen.shape[1]
        self._chosen.clear()

    def _read_modules(self) -> None:
        for number, layers in enumerate(self._layers):
            for layer, weights, bias in self._with_views(layers, self._held.theta):
                weights[number] = layer.weight.detach()
                bias[number] = layer.bias.detach()

    @staticmethod
    def _with_views(layers: dict[str, nn.Linear], held: Layered) -> Iterator[tuple[nn.Linear, Tensor, Tensor]]:
        return zip(layers.values(), held.weights, held.biases, strict=True)

    def _planner(self, network: nn.Module, layers: dict[str, nn.Linear], init: Init, generator: Generator) -> Planner:
        regions = [Region(group.slices[0], layers[group.name].weight) for group in self._groups]
        laws = [law_for(network, region, init) for region in regions]
        return Planner(self._method, self._groups, [region.fan_in for region in regions], laws, generator)

    def _check(self, inputs: Tensor, labels: Tensor) -> None:
        count, features, classes = len(self._modules), self._widths[0], self._widths[-1]
        if inputs.dtype != torch.float32 or inputs.dim() != 3 or inputs.shape[::2] != (count, features):
            raise DataError(
                f"inputs is {inputs.dtype} {list(inputs.shape)}, but the {count} networks take float32 "
                f"[{count}, n, {features}]."
            )
        is_class = self._training.loss == "cross_entropy"
        kind, last = (torch.int64, []) if is_class else (torch.float32, [classes])
        shape = [count, inputs.shape[1], *last]
        if labels.dtype != kind or list(labels.shape) != shape:
            name = "int64" if is_class else "float32"
            raise DataError(f"labels is {labels.dtype} {list(labels.shape)}, but must be {name} {shape}.")
        if is_class and labels.numel() and not 0 <= int(labels.min()) <= int(labels.max()) < classes:
            raise DataError(
                f"labels go from {int(labels.min())} to {int(labels.max())}, but the networks have {classes} outputs: "
                "classes count from 0."
            )

    def _warn_if_not_finite(self) -> None:
        for group, found in zip(self._groups, self._held.not_finite, strict=True):
            for number, count in enumerate(found.sum(dim=1).tolist()):
                if count and (number, group.name) not in self._warned:
                    self._warned.add((number, group.name))
                    warnings.warn(
                        f"NaN or infinity in the activations or weights of {count} of {group.size} units of group "
                        f"{group.name!r} of network {number} by step {self._steps}: such readings do not count towards "
                        "utility. Look at the loss and the step size; this is said once per group and network.",
                        RuntimeWarning,
                        stacklevel=3,
                    )


def _runs(perturbed: Sequence[bool], dues: dict[int, list[Due]]) -> Iterator[tuple[int, int]]:
    """From where to where steps are of one kind and nothing is due but after the last."""
    start = 0
    for stop in range(1, len(perturbed) + 1):
        if stop == len(perturbed) or perturbed[stop] != perturbed[start] or stop - 1 in dues:
            yield start, stop
            start = stop


def _generator(seed: int, places: dict[Method, int], method: Method | None) -> Generator:
    return Generator() if method is None else seeded_generator(seed, places[method])
