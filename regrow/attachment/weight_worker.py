"""A weight method at work on the parameters of one model."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import get_args

import torch
from torch import Generator, Tensor, nn
from torch.nn.utils.parametrize import ParametrizationList
from torch.optim import Optimizer

from regrow.attachment.features import Features
from regrow.attachment.hooks import Switch
from regrow.attachment.layers import layers_from_output
from regrow.attachment.ranks import Ranks
from regrow.attachment.service import Request
from regrow.errors import ConfigError, ModelError, StateError
from regrow.methods.picks import Picks
from regrow.methods.weight_method import Moment, Role, Weight, WeightMethod
from regrow.units import host
from regrow.units.graph import UnitGraph
from regrow.units.initial import SameLaw, reset_law, starting_law
from regrow.units.optimizer_state import forget_path, remembered, state_of
from regrow.units.table import format_reasons


class WeightWorker:
    """Carries a weight method through training.

    Args:
        method: the method.
        model: the model.
        optimizer: it edits the parameters that this holds; None for all.
        request: which of them are wanted.
        generator: source of all its draws.
        switch: whether forwards count.
        ranks: the ranks of a data-parallel run.
    """

    def __init__(
        self,
        method: WeightMethod,
        model: nn.Module,
        optimizer: Optimizer | None,
        request: Request,
        generator: Generator,
        switch: Switch,
        ranks: Ranks,
    ) -> None:
        self.method = method
        self.generator = generator
        self._model = model
        self._optimizer = optimizer
        self._request = request
        self._ranks = ranks
        wanted = method.feature_examples
        self.features = Features(model, wanted, switch) if wanted else None
        self._graph: UnitGraph | None = None
        self._known: dict[str, Weight] = {}
        self._laws: dict[str, SameLaw] = {}
        self._changes_told = 0
        if not method.needs_units:
            self._check()  # and what is remembered of them is remembered now

    def use(self, graph: UnitGraph) -> None:
        """Take note of the units, once they are known.

        Raises:
            ModelError: the method looks at activations, and there are none to look at.
        """
        if self.features is not None and not self.features.use(graph):
            listed = format_reasons({group.name: "; ".join(group.reasons) or group.status for group in graph})
            raise ModelError(
                f"{type(self.method).__name__} works on the activations of hidden units, but no module of "
                f"{type(self._model).__name__} sees any of units that are trained:\n{listed or '  it has no units'}"
            )
        if self.method.needs_units:
            self._graph = graph
            self._known.clear()
            self._check()

    def before_step(self, step: int) -> None:
        """Act before an optimizer step."""
        if type(self.method).before_step is not WeightMethod.before_step:
            self._unscale()
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
        weights = [weight for weight in self._weights() if weight.parameter.requires_grad]
        buffers = self._buffers(weights) if self.method.edits_buffers else {}
        over_ranks = partial(self._ranks.mean, like=[weight.parameter for weight in weights])
        moment = Moment(step, weights, self.generator, buffers, self.features or list, losses, over_ranks)
        with torch.no_grad():
            act(moment)

    def _buffers(self, weights: list[Weight]) -> dict[str, Tensor]:
        """Buffers of modules with weights to edit; of those without any parameter where there are some around them."""
        edited = [f".{weight.name}" for weight in weights]
        found = {}
        for name, buffer in self._model.named_buffers():
            path = name.rpartition(".")[0]
            while path and next(self._model.get_submodule(path).parameters(), None) is None:
                path = path.rpartition(".")[0]
            if any(weight.startswith(f".{path}.".replace("..", ".")) for weight in edited):
                found[name] = buffer
        return found

    def _unscale(self) -> None:
        """Divide gradients by the scale that a fused optimizer was to divide them by: what is added has none."""
        scale = getattr(self._optimizer, "grad_scale", None)
        if self._optimizer is None or scale is None:
            return
        for group in self._optimizer.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    parameter.grad.div_(scale.to(parameter.grad.device))
        self._optimizer.grad_scale = None  # type: ignore[attr-defined]

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

    def picks(self) -> list[Picks]:
        """What the method noted of what it drew anew, for each parameter."""
        return [weight.picks for weight in self._known.values()]

    def state(self) -> dict[str, Tensor]:
        """Everything that `load` needs, as tensors."""
        state = {"generator": self.generator.get_state()}
        for weight in self._known.values():
            state |= {f"{weight.name}.{key}": value.clone() for key, value in weight.state.items()}
            # What it is is told by its values where there is no other way, and those change.
            state[f"{weight.name}.role"] = host.tensor(get_args(Role).index(weight.role))
        for name, law in self._laws.items():
            state[f"{name}.law"] = law.as_tensor()
        if self.features is not None:
            state["inputs"] = self.features.state()
        return state

    def load(self, state: dict[str, Tensor]) -> None:
        """Go on from what `state` returned."""
        self.generator.set_state(state["generator"].cpu())
        for weight in self._weights():
            device = weight.parameter.device
            for key, present in weight.state.items():
                value = state[f"{weight.name}.{key}"]
                if value.shape != present.shape:
                    raise StateError(
                        f"This regrow state was saved from another model: what {type(self.method).__name__} remembers "
                        f"of {weight.name} has shape {tuple(value.shape)} there and {tuple(present.shape)} here. "
                        "Attach to the model that was saved, or delete the key 'regrow' from the optimizer's state "
                        "dict to start regrow afresh."
                    )
                weight.state[key] = value.to(device, copy=True)
            weight.role = get_args(Role)[int(state[f"{weight.name}.role"])]
            if weight.name in self._laws:
                self._laws[weight.name] = SameLaw.from_tensor(state[f"{weight.name}.law"])
        if self.features is not None:
            self.features.load(state["inputs"])

    def _check(self) -> None:
        weights = self._weights()
        for weight in weights if self.method.takes_whole else ():
            if isinstance(self._model.get_submodule(weight.name.rpartition(".")[0]), ParametrizationList):
                raise ConfigError(
                    f"{type(self.method).__name__} is about weights as a whole, and {weight.name} is what a "
                    "parametrization computes one from. Leave its module out (exclude=), or remove the parametrization."
                )
        self.method.check(weights)

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
        if self.method.draws and name not in self._laws:
            self._laws[name] = starting_law(self._model, name)
        beside = [other for other in owner.parameters(recurse=False) if other.dim() > 1]
        matrix = parameter if parameter.dim() > 1 else beside[0] if beside else None
        weight = Weight(
            name,
            parameter,
            learning_rate=0.0,
            draw=partial(self._draw, name, tuple(parameter.shape)),
            forget=partial(self._forget, name, parameter),
            role=_role(self._model, name, parameter),
            fan_in=None if matrix is None else nn.init._calculate_fan_in_and_fan_out(matrix)[0],
            inputs_first=bool(getattr(owner, "transposed", False)),
            is_tied=sum(other is parameter for _, other in self._model.named_parameters(remove_duplicate=False)) > 1,
            layer=layers.get(name),
        )
        with torch.no_grad():
            weight.state = self.method.initial_state(weight)
        return weight

    def _draw(self, name: str, shape: tuple[int, ...], generator: Generator) -> Tensor:
        return self._laws[name].sample(shape, generator)

    def _forget(self, name: str, parameter: nn.Parameter) -> None:
        if self._optimizer is None:
            return
        forget_path(self._optimizer)
        beginnings = {id(value): begin for value, begin in remembered(self._optimizer, parameter, name)}
        state = state_of(self._optimizer, parameter)
        for key, value in state.items():
            if id(value) in beginnings:
                begin = beginnings[id(value)]
                value.copy_(parameter) if begin is None else value.fill_(begin)
            elif isinstance(value, Tensor) and (value.dim() or key == "step"):
                value.zero_()
            elif key == "step":
                state[key] = 0


def _role(model: nn.Module, name: str, parameter: nn.Parameter) -> Role:
    names = [other for other, found in model.named_parameters(remove_duplicate=False) if found is parameter]
    owners = [model.get_submodule(other.rpartition(".")[0]) for other in names]
    if parameter.dim() > 1:
        return "table" if any(isinstance(owner, nn.Embedding | nn.EmbeddingBag) for owner in owners) else "matrix"
    law = reset_law(model, name)
    if law == SameLaw("constant", 1.0) or (law is None and bool((parameter == 1).all())):
        return "gain"
    is_zero = law == SameLaw("constant", 0.0) or (law is None and bool((parameter == 0).all()))
    has_matrix = any(other.dim() > 1 for owner in owners for other in owner.parameters(recurse=False))
    return "bias" if is_zero or has_matrix else "other"
