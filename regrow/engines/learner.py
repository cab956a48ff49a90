"""What learns a stream online: the plain path, or the fused loop where it can."""

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from regrow.attachment.attach import attach
from regrow.attachment.unit_worker import Event
from regrow.engines.fusible import fused_reason as fused_reason
from regrow.engines.training import Training
from regrow.errors import ConfigError, StateError, nearest
from regrow.methods import Method
from regrow.units.initial import Init

_ENGINES = ("auto", "fused", "plain")


class Learner(Protocol):
    """A network that learns example after example, with its methods.

    Attributes:
        engine: "fused" or "plain".
    """

    engine: str

    @property
    def events(self) -> list[Event]:
        """All replacements of this process so far, oldest first."""

    def learn(self, inputs: Tensor, labels: Tensor) -> Tensor:
        """Learn examples in order: inputs float32 [n, features], labels int64 [n], or float32 [n, outputs] in a
        regression.

        Returns:
            How good each prediction was just before the step with it: bool [n], whether it was right, or in a
            regression float32 [n], its squared error.
        """

    def task_changed(self, inputs: Tensor, labels: Tensor) -> None:
        """Tell the methods that wait for it that a task begins, with all of its examples: DASH looks at them."""

    def network(self) -> nn.Module:
        """The network as it is now. The same object each time."""

    def replacements(self) -> dict[str, int]:
        """How many units were replaced so far, by group."""

    def state_dict(self) -> dict[str, Any]:
        """Everything that `load_state_dict` needs for going on with the same bits: nested dicts of tensors, whole
        numbers and strings.
        """

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` of the same kind of learner returned."""


class PlainLearner:
    """An ordinary PyTorch loop: what the fused one must equal.

    Args:
        network: any network.
        learning_rate: the optimizer's step size.
        methods: as for `attach`.
        init: as for `attach`.
        seed: of everything that is drawn.
        training: loss, mini-batches and optimizer.
        example: inputs that units are found with, [n, features]; without, the first batch.
    """

    engine = "plain"

    def __init__(
        self,
        network: nn.Module,
        learning_rate: float,
        methods: Sequence[Method],
        init: Init = None,
        seed: int = 0,
        training: Training | None = None,
        example: Tensor | None = None,
    ) -> None:
        self._network = network.train()
        self._training = training or Training()
        self._optimizer = self._training.make_optimizer(network, learning_rate)
        self._plastic = attach(network, self._optimizer, methods, example=example, init=init, seed=seed)

    @property
    def events(self) -> list[Event]:
        """See `Learner`."""
        return self._plastic.events

    def learn(self, inputs: Tensor, labels: Tensor) -> Tensor:
        """See `Learner`."""
        judged = []
        for some, their in self._batches(inputs, labels):
            outputs = self._network(some)
            judged.append(self._training.judge(outputs.detach(), their))
            self._optimizer.zero_grad()
            torch.autograd.backward(self._training.loss_of(outputs, their))
            self._optimizer.step()
        return torch.cat(judged)

    def task_changed(self, inputs: Tensor, labels: Tensor) -> None:
        """See `Learner`."""
        batches = self._batches(inputs, labels)
        self._plastic.task_changed(self._training.loss_of(self._network(some), their) for some, their in batches)

    def _batches(self, inputs: Tensor, labels: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        size = self._training.batch
        for start in range(0, len(labels), size):
            yield inputs[start : start + size], labels[start : start + size]

    def network(self) -> nn.Module:
        """See `Learner`."""
        return self._network

    def replacements(self) -> dict[str, int]:
        """See `Learner`."""
        figures = self._plastic.metrics()
        return {group.name: int(figures[f"{group.name}/replacements"]) for group in self._plastic.groups}

    def state_dict(self) -> dict[str, Any]:
        """See `Learner`. Plain SGD has no state of its own."""
        network = {name: value.clone() for name, value in self._network.state_dict().items()}
        optimizer = self._optimizer.state_dict()
        own = {"optimizer": {name: optimizer[name] for name in ("state", "param_groups")}} if optimizer["state"] else {}
        return {"network": network, "attachment": self._plastic.state_dict(), **own}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """See `Learner`.

        Raises:
            StateError: it was saved by another engine, with other methods or by another network.
        """
        if "network" not in state:
            raise StateError(
                "This learner's state was saved by the fused engine, and this is the plain one. Build the learner "
                "with engine='fused', or start afresh."
            )
        self._network.load_state_dict(state["network"])
        if "optimizer" in state:
            self._optimizer.load_state_dict(state["optimizer"])
        # Empty if it was saved before the first example, when no units were known.
        if state["attachment"]:
            self._plastic.load_state_dict(state["attachment"])


def build_learner(
    network: nn.Module,
    learning_rate: float,
    methods: Sequence[Method],
    init: Init = None,
    seed: int = 0,
    engine: str = "auto",
    training: Training | None = None,
    example: Tensor | None = None,
) -> Learner:
    """Make the learner for a network and its methods.

    Args:
        network: it is trained in place.
        learning_rate: the optimizer's step size.
        methods: as for `attach`.
        init: as for `attach`.
        seed: of everything that is drawn.
        engine: "fused", "plain", or "auto": fused where it can, otherwise plain.
        training: loss, mini-batches and optimizer; if None, one example a step, cross-entropy and SGD.
        example: inputs that units are found with, [n, features]; without, the first batch. Needed for a learner that is
            told of a task change before its first step.

    Raises:
        ConfigError: an unknown engine, or engine="fused" where that cannot be.
    """
    if engine not in _ENGINES:
        raise ConfigError(f"There is no engine {engine!r}; {nearest(engine, _ENGINES)}")
    reason = fused_reason(network, methods, init, training)
    if engine == "plain" or (engine == "auto" and reason is not None):
        return PlainLearner(network, learning_rate, methods, init, seed, training, example)
    if reason is not None:
        raise ConfigError(f"engine='fused' cannot train this network, because {reason}. Use engine='auto' or 'plain'.")
    # Only now: numba is an extra.
    from regrow.engines.fused_learner import FusedLearner

    return FusedLearner(network, learning_rate, methods, init, seed, training)


class Alone:
    """A learner as the only one of its row: what the batched learner is for many.

    Args:
        learner: the one.
    """

    def __init__(self, learner: Learner) -> None:
        self._learner = learner
        self.state_dict = learner.state_dict
        self.load_state_dict = learner.load_state_dict

    def learn(self, inputs: Tensor, labels: Tensor) -> Tensor:
        """Learn examples in order: inputs [1, n, features] and labels [1, n, …]; the judgements are [1, n]."""
        return self._learner.learn(inputs[0], labels[0])[None]

    def task_changed(self, inputs: Tensor, labels: Tensor) -> None:
        """Tell the methods that wait for it that a task begins, with all of its examples."""
        self._learner.task_changed(inputs[0], labels[0])

    def networks(self) -> list[nn.Module]:
        """The network as it is now."""
        return [self._learner.network()]

    def replacements(self) -> list[dict[str, int]]:
        """How many units were replaced so far, by group."""
        return [self._learner.replacements()]
