"""One hook for all that is read at one place of a model, so that nothing is summed twice."""

from typing import Protocol
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from regrow.units.blocks import sums_along
from regrow.units.graph import Tap
from regrow.units.taps import TapHook


class Reader(Protocol):
    """Who reads at a place.

    Attributes:
        statistic: what it reads: "mean_abs", "activations" or "fired".
    """

    statistic: str | None

    def wants(self, module: nn.Module, value: Tensor) -> bool:
        """Whether it reads this forward."""

    def take(self, value: Tensor, reduced: Tensor) -> None:
        """Take in the value and what the statistic makes of it."""


class Place:
    """Where a model is read, by any number of readers.

    Several groups are read at one place where they meet the same weights side by side, as after a concatenation, be it
    by one method or by those of several attachments. Each statistic of a forward is worked out once for all of them.

    Args:
        model: the model.
        tap: a tap of it; of its rows nothing is used.
    """

    def __init__(self, model: nn.Module, tap: Tap) -> None:
        self._dim = tap.dim
        self.readers: list[Reader] = []
        self.handle = TapHook(model, tap, self._receive).handle

    def _receive(self, module: nn.Module, value: Tensor) -> None:
        reduced: dict[str | None, Tensor] = {}
        for reader in self.readers:
            if reader.wants(module, value):
                if reader.statistic not in reduced:
                    reduced[reader.statistic] = _reduce(reader.statistic, value, self._dim)
                reader.take(value, reduced[reader.statistic])


class Seat:
    """A reader at a place: the hook is there as long as anyone is.

    Args:
        model: the model.
        tap: where to read.
        reader: who reads.
    """

    def __init__(self, model: nn.Module, tap: Tap, reader: Reader) -> None:
        self._reader = reader
        self._places = _places.setdefault(model.get_submodule(tap.module), {})
        self._key = (tap.where, tap.position, tap.dim)
        if self._key not in self._places:
            self._places[self._key] = Place(model, tap)
        self._places[self._key].readers.append(reader)

    def remove(self) -> None:
        """Read no longer. Calling it again does nothing."""
        place = self._places.get(self._key)
        if place is not None and self._reader in place.readers:
            place.readers.remove(self._reader)
            if not place.readers:
                place.handle.remove()
                del self._places[self._key]


_Key = tuple[str, int | str, int]
# By module, so that they go when it goes.
_places: "WeakKeyDictionary[nn.Module, dict[_Key, Place]]" = WeakKeyDictionary()


def _reduce(statistic: str | None, value: Tensor, dim: int) -> Tensor:
    """Σ|h| or the largest h of each position along a dimension; h itself for its activations."""
    if statistic == "activations":
        return value
    if statistic == "fired":
        others = [other for other in range(value.dim()) if other != value.dim() + dim]
        return value.amax(dim=others) if others else value
    return sums_along(dim, torch.abs, value)
