"""One call of an operator, arguments by name."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from regrow.units.memory import has_memory


class Call:
    """One call of an ATen operator.

    Args:
        operator: the overload that was called.
        args: positional arguments.
        kwargs: keyword arguments.

    Attributes:
        out: what it returned, once it has run.
    """

    def __init__(self, operator: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.operator = operator
        self.args = args
        self.kwargs = kwargs
        self.out: Any = None
        declared = operator._schema.arguments
        self._values = {argument.name: argument.default_value for argument in declared if argument.has_default_value()}
        self._values |= {argument.name: value for argument, value in zip(declared, args, strict=False)} | kwargs
        self._written = [
            argument.name for argument in declared if argument.alias_info is not None and argument.alias_info.is_write
        ]

    def __getitem__(self, name: str) -> Any:
        return self._values[name]

    def get(self, name: str, default: Any = None) -> Any:
        """The argument of that name, if the operator has it."""
        return self._values.get(name, default)

    @property
    def name(self) -> str:
        """The operator's name without its namespace and overload."""
        return str(self.operator._schema.name.rpartition("::")[2])

    @property
    def title(self) -> str:
        """The operator's name for people: with its namespace, unless it is one of torch's own."""
        return str(self.operator._schema.name).removeprefix("aten::")

    @property
    def packed(self) -> bool:
        """Whether an argument holds weights in a form of its own, as quantised layers have them."""
        return any(isinstance(value, torch.ScriptObject) for value in self._values.values())

    @property
    def inputs(self) -> list[Tensor]:
        """All tensors among the arguments, but for sparse ones, which are constants (see `hides`)."""
        return [tensor for tensor in tensors_in((self.args, self.kwargs)) if has_memory(tensor)]

    @property
    def outputs(self) -> list[Tensor]:
        """All tensors that it returned."""
        return list(tensors_in(self.out))

    @property
    def hides(self) -> bool:
        """Whether a result has no memory of its own to follow, as a sparse tensor has not."""
        return not all(has_memory(tensor) for tensor in self.outputs)

    @property
    def written(self) -> list[Tensor]:
        """Arguments that it wrote in place."""
        return list(tensors_in([self._values[name] for name in self._written]))


def tensors_in(value: Any) -> Iterator[Tensor]:
    """All tensors in nested lists, tuples and dicts."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for item in value:
            yield from tensors_in(item)
    elif isinstance(value, dict):
        for item in value.values():
            yield from tensors_in(item)
