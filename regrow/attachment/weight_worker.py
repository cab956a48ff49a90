"""A weight method at work on the parameters of one model."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Generator, Tensor, nn
from torch.optim import Optimizer

from regrow.attachment.features import Features
from regrow.attachment.hooks import Switch
from regrow.attachment.layers import layers_from_output
from regrow.attachment.service import Request
from regrow.methods.weight_method import Moment, Role, Weight, WeightMethod
from regrow.units.graph import UnitGraph
from regrow.units.initial import draw_like_new


class WeightWorker:
    """Carries a weight method through training.

    Args:
        method: the method.
        model: the model.
        optimizer: it edits the parameters that this holds; None for all.
        request: which of them are wanted.
        generator: source of all its draws.
        switch: whether forwards count.
    """

    def __init__(
        self,
        method: WeightMethod,
        model: nn.Module,
        optimizer: Optimizer | None,
        request: Request,
        generator: Generator,
        switch: Switch,
    ) -> None:
        self.method = method
        self.generator = generator
        self._model = model
        self._optimizer = optimizer
        self._request = request
        wanted = method.feature_examples
        self.features = Features(model, wanted, switch) if wanted else None
        self._graph: UnitGraph | None = None
        self._known: dict[str, Weight] = {}
        self._changes_told = 0
        if not method.needs_units:
            method.check(self._weights())  # and what is remembered of them is remembered now

    def use(self, graph: UnitGraph) -> None:
        """Take note of the units, once they are known."""
        if self.features is not None:
            self.features.use(graph)
        if self.method.needs_units:
            self._graph = graph
            self._known.clear()
            self.method.check(self._weights())

    def before_step(self, step: int) -> None:
        """Act before an optimizer step."""
        self._act(self.method.before_step, WeightMethod.before_step, step)

    def after_step(self, step: int) -> None:
        """Act after an optimizer step."""
        self._act(self.method.after_step, WeightMethod.after_step, step)

    def change_task(self, step: int, losses: Iterable[Tensor] | None) -> None:
        """Act at a task change."""
        self._act(self.method.task_changed, WeightMethod.task_changed, step, losses)

    def _act(
        self,
        act: Callable[[Moment], None],
        nothing: Callable[..., None],
        step: int,
        losses: Iterable[Tensor] | None = None,
    ) -> None:
        if getattr(act, "__func__", act) is nothing:
            return
        buffers = dict(self._model.named_buffers())
        moment = Moment(step, self._weights(), self.generator, buffers, self.features or list, losses)
        with torch.no_grad():
            act(moment)

    @contextmanager
    def evaluated(self) -> Iterator[None]:
        """Within the block, the parameters hold what the method evaluates with."""
        entry = self.method.evaluated
        weights = [] if entry is None else self._weights()
        trained = [weight.parameter.detach().clone() for weight in weights]
        with torch.no_grad():
            for weight in weights:
                weight.parameter.copy_(weight.state[str(entry)])
        try:
            yield
        finally:
            with torch.no_grad():
                for weight, value in zip(weights, trained, strict=True):
                    weight.parameter.copy_(value)

    def state(self) -> dict[str, Tensor]:
        """Everything that `load` needs, as tensors."""
        state = {"generator": self.generator.get_state()}
        for weight in self._known.values():
            state |= {f"{weight.name}.{key}": value.clone() for key, value in weight.state.items()}
        return state

    def load(self, state: dict[str, Tensor]) -> None:
        """Go on from what `state` returned."""
        self.generator.set_state(state["generator"].cpu())
        for weight in self._weights():
            device = weight.parameter.device
            weight.state = {key: state[f"{weight.name}.{key}"].to(device, copy=True) for key in weight.state}

    def _weights(self) -> list[Weight]:
        """The parameters as they are now; new ones are taken note of."""
        found = []
        rates = self._rates()
        for name, parameter in self._model.named_parameters():
            if isinstance(parameter, nn.parameter.UninitializedParameter) or not self._request.wants_parameter(name):
                continue
            if rates is not None and id(parameter) not in rates:
                continue
            weight = self._known.get(name)
            if weight is None or weight.parameter is not parameter:
                weight = self._known[name] = self._describe(name, parameter)
            weight.learning_rate = 0.0 if rates is None else float(rates[id(parameter)])
            weight.state = {
                key: value if value.device == parameter.device else value.to(parameter.device)
                for key, value in weight.state.items()
            }
            found.append(weight)
        return found

    def _rates(self) -> dict[int, float] | None:
        if self._optimizer is None:
            return None
        return {id(held): group["lr"] for group in self._optimizer.param_groups for held in group["params"]}

    def _describe(self, name: str, parameter: nn.Parameter) -> Weight:
        owner = self._model.get_submodule(name.rpartition(".")[0])
        layers = {} if self._graph is None else layers_from_output(self._graph)
        beside = [other for other in owner.parameters(recurse=False) if other.dim() > 1]
        matrix = parameter if parameter.dim() > 1 else beside[0] if beside else None
        weight = Weight(
            name,
            parameter,
            learning_rate=0.0,
            draw=partial(draw_like_new, self._model, name),
            forget=partial(self._forget, parameter),
            role=_role(owner, parameter),
            fan_in=None if matrix is None else nn.init._calculate_fan_in_and_fan_out(matrix)[0],
            is_tied=sum(other is parameter for _, other in self._model.named_parameters(remove_duplicate=False)) > 1,
            layer=layers.get(name),
        )
        with torch.no_grad():
            weight.state = self.method.initial_state(weight)
        return weight

    def _forget(self, parameter: nn.Parameter) -> None:
        for value in {} if self._optimizer is None else self._optimizer.state.get(parameter, {}).values():
            if isinstance(value, Tensor) and value.dim():
                value.zero_()


def _role(owner: nn.Module, parameter: nn.Parameter) -> Role:
    if parameter.dim() > 1:
        return "table" if isinstance(owner, nn.Embedding | nn.EmbeddingBag) else "matrix"
    return "gain" if bool((parameter == 1).all()) else "bias"
