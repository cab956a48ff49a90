"""What learns a stream online, example by example: the plain path, or the fused loop where it can."""

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from regrow.attachment.attach import attach
from regrow.attachment.unit_worker import Event
from regrow.errors import ConfigError, StateError, nearest
from regrow.experiments.fusible import fused_reason as fused_reason
from regrow.methods import Method
from regrow.units.initial import Init

ENGINES = ("auto", "fused", "plain")


class Learner(Protocol):
    """A network that learns one example per step, with its methods.

    Attributes:
        engine: "fused" or "plain".
    """

    engine: str

    @property
    def events(self) -> list[Event]:
        """All replacements of this process so far, oldest first."""

    def learn(self, inputs: Tensor, labels: Tensor) -> Tensor:
        """Learn examples in order: inputs float32 [n, features], labels int64 [n].

        Returns:
            Bool [n]: whether the prediction just before each step was right.
        """

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
        network: any classifier.
        learning_rate: SGD's step size.
        methods: as for `attach`.
        init: as for `attach`.
        seed: of everything that is drawn.
    """

    engine = "plain"

    def __init__(
        self,
        network: nn.Module,
        learning_rate: float,
        methods: Sequence[Method],
        init: Init = None,
        seed: int = 0,
    ) -> None:
        self._network = network.train()
        self._optimizer = torch.optim.SGD(network.parameters(), lr=learning_rate)
        self._plastic = attach(network, self._optimizer, methods, init=init, seed=seed)

    @property
    def events(self) -> list[Event]:
        """See `Learner`."""
        return self._plastic.events

    def learn(self, inputs: Tensor, labels: Tensor) -> Tensor:
        """See `Learner`."""
        correct = torch.zeros(len(labels), dtype=torch.bool)
        for step in range(len(labels)):
            label = labels[step : step + 1]
            logits = self._network(inputs[step : step + 1])
            correct[step] = logits.detach().argmax() == label
            self._optimizer.zero_grad()
            torch.autograd.backward(nn.functional.cross_entropy(logits, label))
            self._optimizer.step()
        return correct

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
        return {"network": network, "attachment": self._plastic.state_dict()}

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
) -> Learner:
    """Make the learner for a network and its methods.

    Args:
        network: a classifier; it is trained in place.
        learning_rate: SGD's step size.
        methods: as for `attach`.
        init: as for `attach`.
        seed: of everything that is drawn.
        engine: "fused", "plain", or "auto": fused where it can, otherwise plain.

    Raises:
        ConfigError: an unknown engine, or engine="fused" where that cannot be.
    """
    if engine not in ENGINES:
        raise ConfigError(f"There is no engine {engine!r}; {nearest(engine, ENGINES)}")
    reason = fused_reason(network, methods, init)
    if engine == "plain" or (engine == "auto" and reason is not None):
        return PlainLearner(network, learning_rate, methods, init, seed)
    if reason is not None:
        raise ConfigError(f"engine='fused' cannot train this network, because {reason}. Use engine='auto' or 'plain'.")
    # Only now: numba is an extra.
    from regrow.experiments.fused_learner import FusedLearner

    return FusedLearner(network, learning_rate, methods, init, seed)
