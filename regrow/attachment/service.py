"""Which groups are served, and why the others are not."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from torch import nn
from torch.optim import Optimizer

from regrow.attachment.clock import Time
from regrow.errors import ConfigError, nearest
from regrow.methods.unit_method import UnitMethod
from regrow.units.graph import UnitGroup
from regrow.units.initial import Init
from regrow.units.parametrized import Parametrized, behind, parameters_behind

Choice = str | Callable[[UnitGroup], bool]


@dataclass(frozen=True)
class Request:
    """What the user asked `attach` for, beyond the methods.

    Module names choose units by producer and parameters by owner; predicates choose units only.
    """

    include: tuple[Choice, ...] | None
    exclude: tuple[Choice, ...]
    init: Init
    strict: bool
    include_coupled: bool
    time: Time

    def check_names(self, model: nn.Module) -> None:
        """Raise if a name is not a module of the model."""
        known = [name for name, _ in model.named_modules() if name]
        for setting, choices in (("include", self.include or ()), ("exclude", self.exclude)):
            for choice in choices:
                if isinstance(choice, str) and choice not in known:
                    raise ConfigError(
                        f"{setting}= names {choice!r}, which is not a module of {type(model).__name__}; "
                        f"{nearest(choice, known)}"
                    )

    def wants_group(self, group: UnitGroup) -> bool:
        """Whether a group is chosen by include and not excluded."""
        included = self.include is None or any(_chooses(choice, group) for choice in self.include)
        return included and not any(_chooses(choice, group) for choice in self.exclude)

    def wants_parameter(self, name: str) -> bool:
        """Whether a parameter is chosen by the module names."""
        includes = [choice for choice in self.include or () if isinstance(choice, str)]
        # Predicates alone say nothing about parameters; an empty list leaves all out.
        included = (not includes and self.include != ()) or any(_is_within(name, choice) for choice in includes)
        return included and not any(isinstance(choice, str) and _is_within(name, choice) for choice in self.exclude)


def method_for(group: UnitGroup, method: UnitMethod) -> UnitMethod | None:
    """The method that serves a group: itself, or the one in its place where no module sees the activation."""
    return method.without_taps() if method.reads_activations and unseen_by(group) else method


def unseen_by(group: UnitGroup) -> tuple[str, ...]:
    """Names of the parameters that meet the units where no module sees their activation."""
    return tuple(part.parameter for part in group.having("outgoing") if part.tap is None)


def why_not_served(
    group: UnitGroup, method: UnitMethod, model: nn.Module, optimizer: Optimizer | None, request: Request
) -> str | None:
    """The reason why a method does not serve a group, or None if it does."""
    if group.status not in ("free", "shared", "coupled"):
        return "; ".join(group.reasons) or group.status
    if not request.wants_group(group):
        return "left out by include= or exclude="
    if group.status == "coupled" and len(group.producers) > 1 and not request.include_coupled:
        return "; ".join((*group.reasons, "made by several layers and coupled: include_coupled=True serves it"))
    if optimizer is not None:
        held = {id(parameter) for parameters in optimizer.param_groups for parameter in parameters["params"]}
        for part in group.having("incoming", "bias", "gain", "outgoing"):
            for name, parameter in parameters_behind(model, part.parameter).items():
                if id(parameter) not in held:
                    return f"the optimizer does not hold {name}"
    serving = method_for(group, method)
    if serving is not None and serving.needs in ("first_order", "incoming_gradient"):
        for part in group.having("outgoing" if serving.needs == "first_order" else "incoming"):
            if isinstance(behind(model, part.parameter), Parametrized):
                return f"{part.parameter} is computed by a parametrization, so it has no gradient to rank by"
    if serving is None:
        return f"no module sees the activation that meets {unseen_by(group)[0]}, and {type(method).__name__} needs it"
    return None


def served_text(group: UnitGroup, methods: Iterable[UnitMethod], frozen: str | None) -> str:
    """What the table says of a group that these methods serve: how it is read, and what a replacement disturbs; and
    what of it is frozen.
    """
    said = ["served" if frozen is None else f"waits, since {frozen} does not require grad at present"]
    serving = [(method, chosen) for method in methods if (chosen := method_for(group, method)) is not None]
    if any(method is not chosen for method, chosen in serving):
        said.append(f"ranked by gradients, as no module sees the activation that meets {', '.join(unseen_by(group))}")
    if any(chosen.reads_activations for _, chosen in serving) and (near := _read_nearly(group)):
        said.append(f"activation read nearly, at {' and '.join(near)}")
    return "; ".join((*said, *group.reasons))


def _read_nearly(group: UnitGroup) -> list[str]:
    """Where the activation is read, if the value seen there is not the very one that meets the outgoing weights."""
    taps = [part.tap for part in group.having("outgoing") if part.tap is not None and not part.tap.exact]
    return list(dict.fromkeys(f"the {tap.where} of {tap.module or 'the model'}" for tap in taps))


def _chooses(choice: Choice, group: UnitGroup) -> bool:
    if callable(choice):
        return choice(group)
    return any(_is_within(producer, choice) for producer in group.producers)


def _is_within(name: str, module: str) -> bool:
    return name == module or name.startswith(f"{module}.")
