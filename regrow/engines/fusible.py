"""What the fused loop can take on, and why it cannot take on the rest."""

import importlib.util
from collections import Counter
from collections.abc import Iterator, Sequence

import torch
from torch import nn

from regrow.engines.training import Training
from regrow.methods import L2, Backprop, ContinualBackprop, Method, RandomReplacement, ShrinkAndPerturb, UnitMethod
from regrow.networks.layers.dropout import Dropout
from regrow.units.graph import Slice, UnitGroup
from regrow.units.initial import Init

ACTIVATIONS = (nn.ReLU, nn.LeakyReLU, nn.Tanh, nn.Sigmoid, nn.ELU, nn.SiLU)


def fused_reason(
    network: nn.Module, methods: Sequence[Method], init: Init = None, training: Training | None = None
) -> str | None:
    """Why the fused loop cannot train a network with these methods: a clause to put after "because". None if it can.

    Args:
        network: any network.
        methods: as for `attach`.
        init: as for `attach`.
        training: loss, mini-batches and optimizer; if None, one example a step, cross-entropy and SGD.
    """
    if importlib.util.find_spec("numba") is None:
        return "numba is not installed (pip install 'regrow[studies]')"
    reason = _training_reason(training or Training()) or _network_reason(network) or _methods_reason(methods, init)
    if reason is None and not activations(network) and any(isinstance(method, UnitMethod) for method in methods):
        return "the network has no hidden units to replace"
    return reason


def linear_layers(network: nn.Module) -> dict[str, nn.Linear]:
    """The linear layers of a network by name, front to back."""
    return {name: module for name, module in network.named_modules() if isinstance(module, nn.Linear)}


def steps_of(network: nn.Module) -> list[nn.Module]:
    """What a network that can be fused computes with, front to back."""
    return [module for _, module in _in_order(network)]


def activations(network: nn.Module) -> list[nn.Module]:
    """The activations of a network that can be fused, front to back."""
    return [module for module in steps_of(network) if type(module) in ACTIVATIONS]


def dropouts(network: nn.Module) -> list[Dropout | None]:
    """The dropout behind each activation of a network that can be fused, front to back."""
    steps = steps_of(network)
    behind = zip(steps, steps[1:], strict=False)
    return [after if isinstance(after, Dropout) else None for step, after in behind if type(step) in ACTIVATIONS]


def hidden_groups(layers: dict[str, nn.Linear]) -> list[UnitGroup]:
    """The hidden units of a network that can be fused, named as by `find_units`, each with its incoming slice."""
    groups = []
    for name, layer in list(layers.items())[:-1]:
        units = torch.arange(layer.out_features)[:, None]
        part = Slice(f"{name}.weight", "incoming", tuple(layer.weight.shape), {0: units})
        groups.append(UnitGroup(name, layer.out_features, "free", slices=(part,)))
    return groups


def _training_reason(training: Training) -> str | None:
    if training.batch != 1:
        return f"it learns one example a step, and batch is {training.batch}"
    for name, value in (("momentum", training.momentum), ("weight_decay", training.weight_decay)):
        if value:
            return f"it knows SGD and Adam without {name}, which is {value:g}"
    return None


def _network_reason(network: nn.Module) -> str | None:
    leaves = list(_in_order(network))
    known = (nn.Linear, *ACTIVATIONS, Dropout)
    for name, module in leaves:
        if type(module) is nn.Dropout:
            return (
                f"module {name!r} is torch's Dropout, whose draws depend on all others (regrow.networks.layers has one)"
            )
        if type(module) not in known:
            names = ", ".join(kind.__name__ for kind in known)
            return f"module {name!r} is a {type(module).__name__}, and it knows only {names}"
    steps = [module for _, module in leaves]
    chain = [step for before, step in zip([None, *steps], steps, strict=False) if not _is_dropout_of(before, step)]
    is_linear = [type(step) is nn.Linear for step in chain]
    if is_linear != [place % 2 == 0 for place in range(len(chain))] or not is_linear or not is_linear[-1]:
        return "its layers are not Linear and an activation (with Dropout or not) in turn, from a Linear to a Linear"
    if any(steps.count(step) > 1 for step in steps if type(step) not in ACTIVATIONS):
        return "a layer is used twice"
    for name, module in network.named_modules():
        if module._forward_hooks or module._forward_pre_hooks or module._backward_hooks:
            return f"module {name!r} has hooks, which it would not call"
    layers = linear_layers(network)
    if len({id(layer.weight) for layer in layers.values()}) != len(layers):
        return "a layer is used twice"
    for name, layer in layers.items():
        if layer.bias is None:
            return f"layer {name!r} has no bias"
        for parameter in layer.parameters():
            if parameter.dtype != torch.float32 or parameter.device.type != "cpu" or not parameter.requires_grad:
                return f"the parameters of layer {name!r} are not trainable float32 on the CPU"
    return None


def _is_dropout_of(before: nn.Module | None, step: nn.Module) -> bool:
    return type(step) is Dropout and type(before) in ACTIVATIONS


def _in_order(module: nn.Module, name: str = "") -> Iterator[tuple[str, nn.Module]]:
    """The modules that compute, in the order in which a Sequential of Sequentials calls them; one that is none
    comes out as it is.
    """
    if isinstance(module, nn.Sequential) and type(module).forward is nn.Sequential.forward:
        for key, child in module._modules.items():
            assert child is not None
            yield from _in_order(child, f"{name}.{key}" if name else key)
    else:
        yield name, module


def _methods_reason(methods: Sequence[Method], init: Init) -> str | None:
    known = (Backprop, ContinualBackprop, L2, RandomReplacement, ShrinkAndPerturb)
    for method in methods:
        if type(method) not in known:
            return f"it does not know {type(method).__name__}"
        if isinstance(method, ContinualBackprop) and method.needs == "first_order":
            return f"it does not know utility_rule={method.utility_rule!r}"
        if isinstance(method, ContinualBackprop | RandomReplacement) and method.budget == "carried_of_all":
            return "it does not know budget='carried_of_all'"
        if isinstance(method, UnitMethod) and method.keeps_moments:
            return "it does not know moments='kept'"
        if isinstance(method, ShrinkAndPerturb) and method.noise == "shared":
            return "it does not know noise='shared'"
        if isinstance(method, L2) and method.coupled:
            return "it decays weights decoupled only (with plain SGD, L2(coupled=False) is the same step)"
    for kind, count in Counter(type(method) for method in methods if not isinstance(method, Backprop)).items():
        if count > 1:
            return f"there are {count} methods of kind {kind.__name__}"
    unit_methods = [method for method in methods if isinstance(method, UnitMethod)]
    if len(unit_methods) > 1:
        return "there is more than one method that replaces units"
    if unit_methods and callable(init):
        return "init= is a callable, which may look at the units that it draws for"
    return None
