"""Where modules see values, so that a unit's activation can be read by a hook later."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from threading import get_ident
from typing import Any, Literal

from torch import Tensor, nn
from torch._C import DisableTorchFunction
from torch._C._functorch import is_functorch_wrapped_tensor
from torch.jit._script import RecursiveScriptModule
from torch.utils._python_dispatch import _disable_current_modes
from torch.utils.hooks import RemovableHandle

from regrow.errors import ModelError
from regrow.units.labels import core, has_units, varying
from regrow.units.memory import Memory, has_memory

Place = tuple[str, Literal["input", "output"], int | str]


@dataclass(frozen=True, eq=False)
class Sighting:
    """A module saw a value.

    Attributes:
        place: module, side and position.
        value: number of the value.
        size: number of its elements.
        dim: dimension of the units, from the end; None if they do not lie along a single one.
        labels: unit at each position along that dimension.
    """

    place: Place
    value: int
    size: int
    dim: int | None
    labels: Tensor


class Watch:
    """Follows which module is running and what all modules see, for as long as it is on."""

    def __init__(self, model: nn.Module) -> None:
        self._names = {module: name for name, module in model.named_modules()}
        self._running: list[tuple[str, list[Sighting]]] = []
        self._memory: Memory | None = None
        self._recent: dict[int, list[Sighting]] = {}  # by value
        self._thread = get_ident()
        self.sightings: list[Sighting] = []

    def begin_pass(self, memory: Memory) -> None:
        """Start a forward; values of earlier ones are not seen again."""
        self._memory, self._recent = memory, {}

    @property
    def module(self) -> str:
        """Name of the module that is running, "" for the model itself."""
        return self._running[-1][0] if self._running else ""

    def places_of(self, value: int, size: int) -> list[Sighting]:
        """Where this value, or more of it, has been seen, best first: inputs of the running modules from the inside
        out, then outputs and inputs of others.
        """
        inputs = [found for _, seen in reversed(self._running) for found in seen]
        recent = self._recent.get(value, [])
        outputs = [found for found in recent if found.place[1] == "output"]
        found = [seen for seen in (*inputs, *outputs, *recent) if seen.value == value and seen.size >= size]
        return list(dict.fromkeys(found))

    def inputs(self) -> list[Sighting]:
        """What the running modules got, from the inside out."""
        return [found for _, seen in reversed(self._running) for found in seen]

    @contextmanager
    def on(self) -> Iterator[None]:
        """Hook every module, and unhook it at the end."""
        handles: list[RemovableHandle] = []
        try:
            for module in self._names:
                if isinstance(module, RecursiveScriptModule):
                    continue  # takes no hooks
                handles.append(module.register_forward_pre_hook(self._enter, with_kwargs=True))
                handles.append(module.register_forward_hook(self._leave, always_call=True))
            yield
        finally:
            for handle in handles:
                handle.remove()
            self._running.clear()

    def _enter(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        name = self._names[module]
        if get_ident() != self._thread:
            raise ModelError(
                f"{name or 'The model'} ({type(module).__name__}) runs in another thread than the one that looks for "
                "units, where what it computes cannot be followed. Run it in the same thread while units are found."
            )
        self._running.append((name, self._note(name, "input", [*enumerate(args), *kwargs.items()])))

    def _leave(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        if self._running:
            self._running.pop()
        if isinstance(output, dict):
            items: list[tuple[Any, Any]] = list(output.items())
        else:
            items = list(enumerate(output)) if isinstance(output, tuple | list) else [(0, output)]
        self._note(self._names[module], "output", items)

    def _note(
        self, name: str, side: Literal["input", "output"], items: Sequence[tuple[int | str, Any]]
    ) -> list[Sighting]:
        with _disable_current_modes(), DisableTorchFunction():  # what is done here is not part of the forward
            seen = [found for position, value in items if (found := self._sighting((name, side, position), value))]
        for found in seen:
            self._recent.setdefault(found.value, []).append(found)
        self.sightings.extend(seen)
        return seen

    def _sighting(self, place: Place, value: Any) -> Sighting | None:
        if self._memory is None or not isinstance(value, Tensor):
            return None
        if not has_memory(value) or is_functorch_wrapped_tensor(value):
            return None
        plane = self._memory.labels(value)
        if not has_units(plane):
            return None
        dim = _unit_dim(plane)
        if dim is None:
            return Sighting(place, self._memory.value(value), value.numel(), None, plane)
        line = core(plane).expand([size if axis == dim else 1 for axis, size in enumerate(plane.shape)])
        return Sighting(place, self._memory.value(value), value.numel(), dim - plane.dim(), line.flatten())


def _unit_dim(plane: Tensor) -> int | None:
    dims = varying(plane)
    if len(dims) == 1:
        return dims[0]
    if dims or not plane.dim():
        return None
    # One unit everywhere: a dimension made for it, or any.
    single = [dim for dim in range(1, plane.dim()) if plane.size(dim) == 1]
    return single[0] if single else plane.dim() - 1
