"""What modules keep between forwards beside their parameters: seeing it, and putting it back."""

from collections import OrderedDict, defaultdict, deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import copy
from typing import Any

from torch import Tensor, nn

_OF_EVERY_MODULE = frozenset(vars(nn.Module()))
_CONTAINERS = (list, dict, set, deque, OrderedDict, defaultdict)


@contextmanager
def forgotten(model: nn.Module) -> Iterator[None]:
    """Attributes, the contents of lists and dicts among them, and buffers that the model exchanges inside come out as
    before, so that every forward starts alike; hooks that it sets are gone. What is written into a buffer in place
    stays.
    """
    before = [(module, _attributes(module), dict(module._buffers.items())) for module in model.modules()]
    hooks = [(vars(module)[name], set(vars(module)[name])) for module in model.modules() for name in _hooks_of(module)]
    values = [value for _, attributes, _ in before for value in attributes.values()]
    contents = [(value, copy(value)) for value in values if type(value) in _CONTAINERS]
    try:
        yield
    finally:
        for module, attributes, buffers in before:
            for name in _attributes(module).keys() - attributes.keys():
                del module.__dict__[name]
            module.__dict__.update(attributes)
            for name, buffer in buffers.items():
                if module._buffers[name] is not buffer:
                    module._buffers[name] = buffer
        for found, known in hooks:
            for key in found.keys() - known:
                del found[key]
        for value, content in contents:
            value.clear()
            value.extend(content) if isinstance(value, list | deque) else value.update(content)


def kept(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Every tensor that a module holds now, but for parameters, with the qualified name of the attribute it is in."""
    for path, module in model.named_modules():
        for name, value in (*module._buffers.items(), *_attributes(module).items()):
            for tensor in _tensors_in(value):
                yield f"{path}.{name}" if path else name, tensor


def _attributes(module: nn.Module) -> dict[str, Any]:
    return {name: value for name, value in vars(module).items() if name not in _OF_EVERY_MODULE}


def _hooks_of(module: nn.Module) -> list[str]:
    return [name for name in vars(module) if "_hooks" in name and name in _OF_EVERY_MODULE]


def _tensors_in(value: Any, depth: int = 4, inside_object: bool = False) -> Iterator[Tensor]:
    if isinstance(value, nn.Parameter | nn.Module | type):
        return
    if isinstance(value, Tensor):
        yield value
        return
    if isinstance(value, Mapping):
        items = list(value.values())
    elif isinstance(value, list | tuple | set | deque):
        items = list(value)
    elif not inside_object and hasattr(value, "__dict__"):  # no deeper: a trainer or an environment holds the world
        items, inside_object = list(vars(value).values()), True
    else:
        return
    for item in items if depth else ():
        yield from _tensors_in(item, depth - 1, inside_object)
