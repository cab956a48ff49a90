"""What is known about the contents of memory during one forward: a shadow of every storage.

Knowledge hangs on storages and not on tensors, so that views, aliases and in-place writes need no care elsewhere.
"""

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count

import torch
from torch import Tensor

from regrow.units import host
from regrow.units.labels import NONE, Units, compress, constant, core, units_in

Geometry = tuple[int, tuple[int, ...], tuple[int, ...]]


def geometry(tensor: Tensor) -> Geometry:
    """Where in its storage a tensor lies: offset, shape and strides, in elements."""
    return int(tensor.storage_offset()), tuple(tensor.shape), tuple(tensor.stride())


def overlaps(place: Geometry) -> bool:
    """Whether a view may hold one element in several places."""
    reach = 0
    _, shape, strides = place
    for stride, size in sorted((stride, size) for size, stride in zip(shape, strides, strict=True) if size > 1):
        if stride <= reach:
            return True
        reach += (size - 1) * stride
    return False


def apart(addresses: Tensor) -> list[Tensor]:
    """Addresses, of which some may be the same, as several tensors in each of which no two are, -1 elsewhere."""
    flat = addresses.flatten()
    found = flat[flat >= 0]
    if not len(found):
        return [addresses]
    present = host.zeros(int(found.max() - found.min()) + 1, dtype=torch.bool)
    present[found - found.min()] = True
    if int(present.sum()) == len(found):
        return [addresses]
    order = flat.argsort(stable=True)
    _, counts = flat[order].unique_consecutive(return_counts=True)
    starts = (counts.cumsum(0) - counts).repeat_interleave(counts)
    turn = torch.empty_like(flat)
    turn[order] = host.arange(len(flat)) - starts
    turn = turn.view(addresses.shape)
    last = int(turn[addresses >= 0].max())
    return [torch.where(turn == number, addresses, NONE) for number in range(last + 1)]


def has_memory(tensor: Tensor) -> bool:
    """Whether a tensor is a view of a storage; a sparse or nested one is not."""
    return tensor.layout == torch.strided and not tensor.is_nested


class Field:
    """One int64 per element of a storage, kept as a compressed plane for each view of it until a write.

    Where a view reads the memory as elements of another size, each part of an element has the element's number, and
    several elements that are read as one have the highest of theirs.
    """

    def __init__(self, fill: int) -> None:
        self._fill = fill
        self._size = 0  # bytes of an element
        self._planes: dict[Geometry, Tensor] = {}
        self._base: Geometry | None = None
        self._flat: Tensor | None = None

    @property
    def empty(self) -> bool:
        """Whether nothing has been written."""
        return self._base is None and self._flat is None

    def read(self, tensor: Tensor) -> Tensor:
        """The plane of a tensor in this storage."""
        where = geometry(tensor)
        if self.empty:
            return constant(self._fill, tensor.shape)
        if tensor.element_size() != self._size:
            return compress(self._resized(tensor).as_strided(where[1], where[2], where[0]))
        if where not in self._planes:
            self._planes[where] = compress(self._flatten(tensor).as_strided(where[1], where[2], where[0]))
        return self._planes[where]

    def units(self) -> Tensor:
        """Numbers of the units that any element depends on."""
        if self._flat is not None:
            return units_in(self._flat)
        return units_in(constant(NONE, (1,)) if self._base is None else self._planes[self._base])

    def note_view(self, tensor: Tensor, plane: Tensor) -> None:
        """Add what is known about a new view. The storage itself has not changed."""
        if tensor.element_size() == self._size:
            self._planes.setdefault(geometry(tensor), plane)

    def write(self, tensor: Tensor, plane: Tensor) -> None:
        """Replace the elements that a tensor covers."""
        where = geometry(tensor)
        if not self.empty and tensor.element_size() != self._size:
            self._flat = self._resized(tensor)
        self._size = tensor.element_size()
        if self._flat is None and (self._base is None or self._base == where):
            self._base, self._planes = where, {where: plane}
            return
        flat = self._flatten(tensor)
        flat.as_strided(where[1], where[2], where[0]).copy_(plane)
        self._planes = {where: plane}

    def _flatten(self, tensor: Tensor) -> Tensor:
        length = tensor.untyped_storage().nbytes() // self._size
        if self._flat is not None and len(self._flat) < length:  # as by resize_
            self._flat = torch.cat([self._flat, self._flat.new_full((length - len(self._flat),), self._fill)])
        if self._flat is None:
            self._flat = host.full((length,), self._fill, dtype=torch.int64)
            if self._base is not None:
                offset, shape, strides = self._base
                self._flat.as_strided(shape, strides, offset).copy_(self._planes[self._base])
        return self._flat

    def _resized(self, tensor: Tensor) -> Tensor:
        """The whole storage as elements of a tensor's size."""
        flat, size = self._flatten(tensor), tensor.element_size()
        if size < self._size:
            return flat.repeat_interleave(self._size // size)
        parts = size // self._size
        return flat[: len(flat) // parts * parts].view(-1, parts).amax(1)


@dataclass(eq=False)
class Shadow:
    """What is known about one storage.

    Attributes:
        storage: kept alive, so that its address is not used again during the forward.
        value: number of its present contents; a copy has that of its source, and a write gives it a new one.
        labels: which unit each element depends on.
        addresses: which element of which parameter each element is a copy of.
        leaks: numbers of the leaks that have reached it.
        altered: whether it holds functions of parameters' elements, and not the elements themselves.
        stands_for: name of the parameter, and type of its elements here, if it holds a whole one in the same order: a
            copy, or what a module computes in its place.
    """

    storage: torch.UntypedStorage
    value: int
    labels: Field = field(default_factory=lambda: Field(NONE))
    addresses: Field = field(default_factory=lambda: Field(NONE))
    leaks: set[int] = field(default_factory=set)
    altered: bool = False
    stands_for: tuple[str, torch.dtype] | None = None


@dataclass(frozen=True)
class Window:
    """A view of a parameter or buffer: its name, and where in it the view lies."""

    name: str
    place: Geometry


class Atlas:
    """Numbers every element of every parameter and buffer, and finds the owner of a piece of memory.

    Args:
        tensors: parameters and buffers by name, with no two of them overlapping.
    """

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self.tensors: dict[str, Tensor] = {}
        self.start: dict[str, int] = {}
        self.by_storage: dict[int, list[str]] = {}
        self._total = 0
        self._terms: dict[str, tuple[str, ...]] = {}
        for name, tensor in tensors.items():
            self._add(name, tensor)

    def _add(self, name: str, tensor: Tensor) -> None:
        self.tensors[name] = tensor
        self.start[name] = self._total
        self._total += extent(tensor)
        self.by_storage.setdefault(tensor.untyped_storage()._cdata, []).append(name)

    def sum_of(self, names: Sequence[str]) -> Tensor | None:
        """What stands for the sum of parameters, element by element; None if their elements lie in different orders."""
        tensors = [self.tensors[name] for name in names]
        if len({(tensor.shape, tensor.is_contiguous()) for tensor in tensors}) > 1 or not tensors[0].is_contiguous():
            return None
        name = " + ".join(names)
        if name not in self.tensors:
            self._terms[name] = tuple(dict.fromkeys(term for one in names for term in self.terms(one)))
            self._add(name, torch.empty(tensors[0].shape, device="meta"))
        return self.tensors[name]

    def terms(self, name: str) -> tuple[str, ...]:
        """The parameters of which one is the sum; itself, if it is no sum."""
        return self._terms.get(name, (name,))

    def window(self, tensor: Tensor) -> Window | None:
        """What a tensor is a view of, if it shares the memory of a parameter or buffer."""
        for name in self.by_storage.get(tensor.untyped_storage()._cdata, ()):
            offset = int(tensor.storage_offset() - self.tensors[name].storage_offset())
            if 0 <= offset and offset + extent(tensor) <= extent(self.tensors[name]):
                if tensor.dtype == self.tensors[name].dtype:
                    return Window(name, (offset, tuple(tensor.shape), tuple(tensor.stride())))
        return None

    def shares_memory(self, tensor: Tensor) -> bool:
        """Whether a tensor lies in the memory of parameters or buffers."""
        return tensor.untyped_storage()._cdata in self.by_storage

    def names(self, addresses: Tensor) -> list[str]:
        """Owners of some elements."""
        small = core(addresses)
        small = small[small >= 0]
        if not small.numel():
            return []
        names, starts = list(self.start), list(self.start.values())
        first, last = bisect_right(starts, int(small.min())) - 1, bisect_right(starts, int(small.max()))
        return [
            name
            for name, start in zip(names[first:last], starts[first:last], strict=True)
            if bool(((small >= start) & (small < start + extent(self.tensors[name]))).any())
        ]


def extent(tensor: Tensor) -> int:
    """Number of storage elements from a tensor's first to its last."""
    if not tensor.numel():
        return 0
    return 1 + sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))


class Memory:
    """Shadows of all storages that a forward touches.

    Args:
        atlas: of the model's parameters and buffers.
        units: numbers that the labels refer to.
    """

    def __init__(self, atlas: Atlas, units: Units) -> None:
        self.atlas = atlas
        self._units = units
        self._shadows: dict[int, Shadow] = {}
        self._values = count()

    def labels(self, tensor: Tensor) -> Tensor:
        """The plane of a tensor, joined units under one number."""
        shadow = self._shadows.get(tensor.untyped_storage()._cdata)
        return (
            constant(NONE, tensor.shape) if shadow is None else compress(self._units.find(shadow.labels.read(tensor)))
        )

    def window(self, tensor: Tensor) -> Window | None:
        """What a tensor is a view of, if it shares the memory of a parameter or buffer, or of what stands for one."""
        shadow = self._shadows.get(tensor.untyped_storage()._cdata)
        if shadow is None or shadow.stands_for is None:
            return self.atlas.window(tensor)
        name, dtype = shadow.stands_for
        return Window(name, geometry(tensor)) if tensor.dtype == dtype else None

    def addresses(self, tensor: Tensor) -> Tensor:
        """For each element of a tensor the number of the parameter's element that it equals, else -1."""
        window = self.window(tensor)
        if window is not None:
            offset, shape, strides = window.place
            owner = self.atlas.tensors[window.name]
            numbers = host.arange(self.atlas.start[window.name], self.atlas.start[window.name] + extent(owner))
            return numbers.as_strided(shape, strides, offset)
        shadow = self._shadows.get(tensor.untyped_storage()._cdata)
        return constant(NONE, tensor.shape) if shadow is None else shadow.addresses.read(tensor)

    def owners(self, tensor: Tensor) -> list[str]:
        """Names of the parameters and buffers whose elements a tensor holds unchanged, or whose memory it shares."""
        window = self.window(tensor)
        if window is not None:
            return [window.name]
        if self.atlas.shares_memory(tensor):
            return self.atlas.by_storage[tensor.untyped_storage()._cdata]
        shadow = self._shadows.get(tensor.untyped_storage()._cdata)
        if shadow is None or shadow.addresses.empty:
            return []
        return self.atlas.names(shadow.addresses.read(tensor))

    def knows(self, tensor: Tensor) -> bool:
        """Whether there is anything to say about a tensor."""
        return tensor.untyped_storage()._cdata in self._shadows or self.atlas.shares_memory(tensor)

    def leaks(self, tensor: Tensor) -> set[int]:
        """Numbers of the leaks that have reached a tensor's storage."""
        shadow = self._shadows.get(tensor.untyped_storage()._cdata)
        return set() if shadow is None else shadow.leaks

    def value(self, tensor: Tensor) -> int:
        """Number of the present contents of a tensor's storage."""
        return self._shadow(tensor).value

    def write(self, tensor: Tensor, plane: Tensor) -> None:
        """Set the labels of a new value, or of one written in place."""
        self._shadow(tensor).labels.write(tensor, compress(plane))

    def write_addresses(self, tensor: Tensor, plane: Tensor) -> None:
        """Declare that a new value consists of elements of parameters."""
        self._shadow(tensor).addresses.write(tensor, plane)

    def note_stand_in(self, tensor: Tensor, name: str) -> None:
        """Declare that a new value is a parameter of the atlas, whose own memory it does not share."""
        parameter = self.atlas.tensors[name]
        if geometry(tensor) == (0, tuple(parameter.shape), tuple(parameter.stride())):
            self._shadow(tensor).stands_for = name, tensor.dtype
        elif tensor.shape == parameter.shape:
            self.write_addresses(tensor, self.addresses(parameter))

    def note_view(self, tensor: Tensor, labels: Callable[[], Tensor]) -> None:
        """Add the labels of a new view, so that they stay compressed."""
        shadow = self._shadows.get(tensor.untyped_storage()._cdata)
        if shadow is not None:
            shadow.labels.note_view(tensor, labels())

    def note_write(self, tensor: Tensor) -> None:
        """Note that a storage has new contents, of which no element is a parameter's any more."""
        shadow = self._shadow(tensor)
        shadow.value, shadow.stands_for = next(self._values), None
        if not shadow.addresses.empty:
            shadow.addresses.write(tensor, constant(NONE, tensor.shape))

    def note_copy(self, tensor: Tensor, source: Tensor) -> None:
        """Note that a new storage holds the very contents of another."""
        shadow, window = self._shadow(tensor), self.window(source)
        shadow.value = self._shadow(source).value
        if window is not None and not self.alters(source) and geometry(tensor) == window.place:
            parameter = self.atlas.tensors[window.name]
            if window.place == (0, tuple(parameter.shape), tuple(parameter.stride())):
                shadow.stands_for, shadow.addresses = (window.name, tensor.dtype), Field(NONE)

    def alters(self, tensor: Tensor) -> bool:
        """Whether a tensor holds functions of parameters' elements, and not the elements themselves."""
        shadow = self._shadows.get(tensor.untyped_storage()._cdata)
        return shadow is not None and shadow.altered

    def note_altered(self, tensor: Tensor) -> None:
        """Declare that the elements at a tensor's addresses are changed, each by itself."""
        self._shadow(tensor).altered = True

    def note_leaks(self, tensor: Tensor, leaks: Iterable[int]) -> None:
        """Note that leaks have reached a tensor."""
        self._shadow(tensor).leaks.update(leaks)

    def made(self) -> Iterator[Shadow]:
        """What is known about all storages but those of parameters and buffers."""
        return (shadow for place, shadow in self._shadows.items() if place not in self.atlas.by_storage)

    def _shadow(self, tensor: Tensor) -> Shadow:
        storage = tensor.untyped_storage()
        if storage._cdata not in self._shadows:
            self._shadows[storage._cdata] = Shadow(storage, next(self._values))
        return self._shadows[storage._cdata]
