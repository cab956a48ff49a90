"""Reading and writing the elements of single units, in parameters, buffers and optimizer state."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.optim import Optimizer

from regrow.units.blocks import sums_along
from regrow.units.graph import Slice
from regrow.units.optimizer_state import remembered
from regrow.units.parametrized import Parametrized


class Region:
    """A slice bound to the live tensor it is a slice of.

    All methods take units as an int64 tensor of shape (n,) and work in place, without autograd. Behind a
    parametrization the elements are those of the computed tensor, written through its originals.

    Args:
        part: the slice.
        held: the parameter or buffer that `part.parameter` names, or what computes the tensor of that name.

    Attributes:
        initial: the whole tensor at attach, for what has no fresh value of its own (a learned scale outside a norm);
            None for all else.
    """

    def __init__(self, part: Slice, held: Tensor | Parametrized) -> None:
        self.part = part
        self.held = held
        self._dims = sorted(part.rows)
        self._rows = [part.rows[dim] for dim in self._dims]
        self.initial = None if part.fresh is not None else self.tensor.clone()

    @property
    def tensor(self) -> Tensor:
        """The whole tensor, without autograd."""
        return self.held.value() if isinstance(self.held, Parametrized) else self.held.detach()

    @property
    def parameters(self) -> tuple[Tensor, ...]:
        """What training changes: the tensor itself, or its originals."""
        return tuple(self.held.originals.values()) if isinstance(self.held, Parametrized) else (self.held,)

    @property
    def size(self) -> int:
        """Number of units."""
        return len(self._rows[0])

    @property
    def unit_shape(self) -> tuple[int, ...]:
        """Shape of one unit's elements; a dimension in which a unit has a single position is left out."""
        counts = [rows.shape[1] for rows in self._rows if rows.shape[1] > 1]
        rest = [length for dim, length in enumerate(self.part.shape) if dim not in self._dims]
        return (*counts, *rest)

    @property
    def unit_numel(self) -> int:
        """Number of elements of one unit."""
        return math.prod(self.unit_shape)

    @property
    def fan_in(self) -> int:
        """Number of inputs of one output of the operator: what initial laws scale by."""
        return math.prod(self.part.shape) // self.part.shape[self._dims[0]]

    def read(self, units: Tensor) -> Tensor:
        """The elements of some units, of shape (n, *unit_shape)."""
        return self._front(self.tensor)[self._place(units)].reshape(len(units), *self.unit_shape)

    def write(self, units: Tensor, values: Tensor, share: Tensor | None = None) -> None:
        """Set the elements of some units; `values` has shape (n, *unit_shape). With a share in [0, 1] for each unit,
        move them so much of the way.
        """
        with self._edited() as front:
            place = self._place(units)
            front[place] = _moved(front[place], values.to(front).reshape(front[place].shape), share)

    def shrink(self, units: Tensor, share: Tensor) -> None:
        """Take a share in [0, 1] of the elements of each of some units away."""
        with self._edited() as front:
            place = self._place(units)
            front[place] = _moved(front[place], torch.zeros_like(front[place]), share)

    def fill(self, units: Tensor, value: float) -> None:
        """Set the elements of some units to one value."""
        with self._edited() as front:
            front[self._place(units)] = value

    def restore(self, units: Tensor, share: Tensor | None = None) -> None:
        """Bring the elements of some units back to their fresh values, or a share of the way there."""
        with self._edited() as front:
            place = self._place(units)
            if self.initial is None:
                assert self.part.fresh is not None
                fresh = torch.full_like(front[place], self.part.fresh)
            else:
                fresh = self._front(self.initial.to(front))[place]
            front[place] = _moved(front[place], fresh, share)

    def abs_sums(self) -> Tensor:
        """Σ|w| over the elements of each unit, of shape (units,), in float32."""
        return self._sums(torch.abs, self.tensor)

    def first_order(self) -> Tensor | None:
        """Σ w·∂L/∂w over the elements of each unit, of shape (units,), in float32; None if there is no gradient, as
        there is none of a computed tensor.
        """
        gradient = self._gradient()
        return None if gradient is None else self._sums(_product, self.tensor, gradient)

    def abs_gradient_sums(self) -> Tensor | None:
        """Σ|∂L/∂w| over the elements of each unit, of shape (units,), in float32; None as above."""
        gradient = self._gradient()
        return None if gradient is None else self._sums(torch.abs, gradient)

    def _gradient(self) -> Tensor | None:
        return None if isinstance(self.held, Parametrized) else self.held.grad

    def _sums(self, term: Callable[..., Tensor], *tensors: Tensor) -> Tensor:
        if len(self._dims) == 1:
            sums = sums_along(self._dims[0], term, *tensors)
            rows = self._rows_on(sums.device)[0]
            return sums[rows[:, 0]] if rows.shape[1] == 1 else sums[rows].sum(dim=1)
        return sums_along(0, term, *(self._front(tensor)[self._place(None)] for tensor in tensors))

    def clear_state(self, optimizer: Optimizer, units: Tensor) -> None:
        """Set what the optimizer remembers of these elements, in every state tensor of the parameter's shape, to what
        it begins with: 0 nearly always; copies of weights to what the weights are now. A scalar step count belongs to
        the whole tensor and stays. Of originals, those elements are cleared that make nothing but these.
        """
        place: list[tuple[Tensor, ...] | Tensor] = [self._place(units)]
        if isinstance(self.held, Parametrized):
            mask = torch.zeros(self.part.shape, dtype=torch.bool, device=self.parameters[0].device)
            self._front(mask)[self._place(units)] = True
            place = list(self.held.owned(mask))
        for parameter, elements in zip(self.parameters, place, strict=True):
            for value, beginning in remembered(optimizer, parameter, self.part.parameter):
                pair = (value, parameter.detach())
                target, weight = pair if isinstance(elements, Tensor) else map(self._front, pair)
                target[elements] = weight[elements].to(value) if beginning is None else beginning

    def check_state(self, optimizer: Optimizer) -> None:
        """Raise if what the optimizer remembers of these elements could not be cleared."""
        for parameter in self.parameters:
            remembered(optimizer, parameter, self.part.parameter)

    @contextmanager
    def _edited(self) -> Iterator[Tensor]:
        """The tensor to write into, indexed dimensions first."""
        if isinstance(self.held, Parametrized):
            tensor = self.held.value().clone()
            yield self._front(tensor)
            self.held.set(tensor)
        else:
            yield self._front(self.held.detach())

    def _front(self, tensor: Tensor) -> Tensor:
        return tensor.movedim(self._dims, list(range(len(self._dims))))

    def _rows_on(self, device: torch.device) -> list[Tensor]:
        if self._rows[0].device != device:  # once: such a copy waits for the device
            self._rows = [rows.to(device) for rows in self._rows]
        return self._rows

    def _place(self, units: Tensor | None) -> tuple[Tensor, ...]:
        """Advanced indices of shape (n, positions in dim 1, positions in dim 2, ...) for the indexed dimensions."""
        place = []
        device = self.parameters[0].device
        for number, rows in enumerate(self._rows_on(device)):
            chosen = rows if units is None else rows[units.to(device)]
            around = [1] * len(self._rows)
            around[number] = chosen.shape[1]
            place.append(chosen.reshape(len(chosen), *around))
        return tuple(place)


def _moved(values: Tensor, target: Tensor, share: Tensor | None) -> Tensor:
    """Values of shape (n, ...), moved to a target: all the way, or by a share of the way for each of the n."""
    if share is None:
        return target
    return values.lerp(target, share.to(values).reshape(-1, *[1] * (values.dim() - 1)))


def _product(weight: Tensor, gradient: Tensor) -> Tensor:
    return weight.float() * gradient.float()
