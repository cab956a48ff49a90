"""Reading and writing the elements of single units, in parameters, buffers and optimizer state."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.optim import Optimizer

from regrow.units.graph import Slice


class Region:
    """A slice bound to the live tensor it is a slice of.

    All methods take units as an int64 tensor of shape (n,) and work in place, without autograd.

    Args:
        part: the slice.
        tensor: the parameter or buffer that `part.parameter` names.
    """

    def __init__(self, part: Slice, tensor: Tensor) -> None:
        self.part = part
        self.tensor = tensor
        self._dims = sorted(part.rows)
        self._rows = [part.rows[dim] for dim in self._dims]
        # At attach, for what has no fresh value of its own (a learned scale outside a norm).
        self._initial = None if part.fresh is not None else tensor.detach().clone()

    @property
    def size(self) -> int:
        """Number of units."""
        return len(self._rows[0])

    @property
    def unit_shape(self) -> tuple[int, ...]:
        """Shape of one unit's elements; a dimension in which a unit has a single position is left out."""
        counts = [rows.shape[1] for rows in self._rows if rows.shape[1] > 1]
        rest = [length for dim, length in enumerate(self.tensor.shape) if dim not in self._dims]
        return (*counts, *rest)

    @property
    def fan_in(self) -> int:
        """Number of inputs of one output of the operator: what initial laws scale by."""
        return self.tensor.numel() // self.tensor.shape[self._dims[0]]

    def read(self, units: Tensor) -> Tensor:
        """The elements of some units, of shape (n, *unit_shape)."""
        return self._front(self.tensor.detach())[self._place(units)].reshape(len(units), *self.unit_shape)

    def write(self, units: Tensor, values: Tensor) -> None:
        """Set the elements of some units; `values` has shape (n, *unit_shape)."""
        front = self._front(self.tensor.detach())
        place = self._place(units)
        front[place] = values.to(front).reshape(front[place].shape)

    def fill(self, units: Tensor, value: float, tensor: Tensor | None = None) -> None:
        """Set the elements of some units to one value, here or in another tensor of the same shape."""
        self._front((self.tensor if tensor is None else tensor).detach())[self._place(units)] = value

    def restore(self, units: Tensor) -> None:
        """Bring the elements of some units back to their fresh values."""
        if self._initial is None:
            assert self.part.fresh is not None
            self.fill(units, self.part.fresh)
        else:
            place = self._place(units)
            self._front(self.tensor.detach())[place] = self._front(self._initial.to(self.tensor))[place]

    def abs_sums(self) -> Tensor:
        """Σ|w| over the elements of each unit, of shape (units,), in float32."""
        return self._sums(_abs_sums, self.tensor.detach())

    def first_order(self) -> Tensor | None:
        """Σ w·∂L/∂w over the elements of each unit, of shape (units,), in float32; None if there is no gradient."""
        gradient = self.tensor.grad
        if gradient is None:
            return None
        return self._sums(_plain_sums, self.tensor.detach().float() * gradient.float())

    def _sums(self, sums_along: Callable[[Tensor, int], Tensor], tensor: Tensor) -> Tensor:
        if len(self._dims) == 1:
            sums = sums_along(tensor, self._dims[0])
            rows = self._rows[0].to(tensor.device)
            return sums[rows[:, 0]] if rows.shape[1] == 1 else sums[rows].sum(dim=1)
        return sums_along(self._front(tensor)[self._place(None)], 0)

    def clear_state(self, optimizer: Optimizer, units: Tensor) -> None:
        """Set to 0 what the optimizer remembers of these elements, in every state tensor of the parameter's
        shape. A scalar step count belongs to the whole tensor and stays.
        """
        # Looked up anew each time: load_state_dict replaces the tensors.
        for value in optimizer.state.get(self.tensor, {}).values():
            if isinstance(value, Tensor) and value.dim() and value.shape == self.tensor.shape:
                self.fill(units, 0.0, value)

    def _front(self, tensor: Tensor) -> Tensor:
        return tensor.movedim(self._dims, list(range(len(self._dims))))

    def _place(self, units: Tensor | None) -> tuple[Tensor, ...]:
        """Advanced indices of shape (n, positions in dim 1, positions in dim 2, ...) for the indexed dimensions."""
        place = []
        for number, rows in enumerate(self._rows):
            chosen = (rows if units is None else rows[units.to(rows.device)]).to(self.tensor.device)
            around = [1] * len(self._rows)
            around[number] = chosen.shape[1]
            place.append(chosen.reshape(len(chosen), *around))
        return tuple(place)


def _plain_sums(tensor: Tensor, dim: int) -> Tensor:
    """Σw over all dimensions but one."""
    others = [other for other in range(tensor.dim()) if other != dim]
    return tensor.sum(dim=others) if others else tensor


def _abs_sums(tensor: Tensor, dim: int) -> Tensor:
    """Σ|w| over all dimensions but one, in float32."""
    others = [other for other in range(tensor.dim()) if other != dim]
    if not others:
        return tensor.abs().float()
    # In blocks that stay in the cache: |w| of a large matrix at once costs more in fresh memory than in arithmetic.
    along = others[0]
    blocks = tensor.split(max(1, _BLOCK * tensor.shape[along] // tensor.numel()), dim=along)
    sums: Tensor = blocks[0].abs().sum(dim=others, dtype=torch.float32)
    for block in blocks[1:]:
        sums += block.abs().sum(dim=others, dtype=torch.float32)
    return sums


_BLOCK = 1 << 17  # elements: half a megabyte of float32
