"""Ranks of a data-parallel run stay alike: what each has seen is put together before anything is decided by it."""

import zlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.jit._script import RecursiveScriptModule as _Scripted
from torch.nn.parallel import DistributedDataParallel

from regrow.errors import StateError
from regrow.methods.unit_method import OverRanks
from regrow.units.taps import ModuleHook, is_training
from regrow.units.wrappers import as_written

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup


class Ranks:
    """The processes that train one model together, each on data of its own.

    They are those of the DistributedDataParallel that was given to `attach`, else of the one within which the first
    training forward of the model is made, unless the user says which. That they have the same weights and gradients is
    its doing, or the user's.

    Args:
        given: the model as it was given, perhaps in wrappers.
        model: the model itself.
        alike: what is to be alike on all of them at any moment.
        group: the process group, as the user says; None to find it.

    Attributes:
        count: how many there are.
        proven: whether they are known to have begun alike.
    """

    def __init__(
        self,
        given: nn.Module,
        model: nn.Module,
        alike: Callable[[], bytes],
        group: "ProcessGroup | None",
    ) -> None:
        self._model = model
        self._alike = alike
        self._group: ProcessGroup | None = None
        self.count = 1
        self.proven = False
        self._seeker: _Seeker | None = None
        found = group or _group_of(given)
        if found is not None:
            self._join(found)
        else:
            self._seek()

    def remove_hook(self) -> None:
        """Look no further."""
        if self._seeker is not None:
            self._seeker.handle.remove()

    def look(self) -> None:
        """Join the ranks of a forward that is being made, if it is one within DistributedDataParallel."""
        within = getattr(DistributedDataParallel, "_active_ddp_module", None)
        if within is not None:
            self.remove_hook()
            self._join(within.process_group)

    def prove(self) -> None:
        """At a step: see that all have begun alike, once after `attach` and once after each checkpoint.

        Raises:
            StateError: they have not.
        """
        if self.proven:
            return
        if self.count > 1:
            self._add_up([])
            self.proven = True
        else:
            self._seek()

    def combine(self, seen: Sequence[tuple[Tensor, OverRanks]]) -> None:
        """Put together, in place, what each rank has seen: one call for all that is due at a step.

        Raises:
            StateError: the ranks are not alike any more.
        """
        if self.count == 1 or not seen:
            return
        sums = [(value, self.count if how == "mean" else 1) for value, how in seen if how in ("mean", "sum")]
        self._add_up(sums)
        largest = [value for value, how in seen if how == "max"]
        if largest:
            for value, found in zip(largest, self._reduced(largest, dist.ReduceOp.MAX), strict=True):
                value.copy_(found)

    def mean(self, values: Sequence[Tensor | None], like: Sequence[Tensor]) -> list[Tensor | None]:
        """The mean of each value over ranks. Where some have none, it counts as 0; where all have none, there is none.

        Args:
            values: as many as in `like`, and of the same shapes.
            like: tensors that all ranks have.

        Raises:
            StateError: the ranks are not alike any more.
        """
        if self.count == 1:
            return list(values)
        present = torch.tensor([value is not None for value in values], dtype=torch.float32, device=like[0].device)
        means = [
            torch.zeros_like(shaped) if value is None else value.clone()
            for value, shaped in zip(values, like, strict=True)
        ]
        self._add_up([(present, 1), *((mean, self.count) for mean in means)])
        return [mean if anywhere else None for mean, anywhere in zip(means, present.tolist(), strict=True)]

    def _seek(self) -> None:
        several = dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1
        # A scripted module takes no hooks; its units are ranked by gradients, which are alike.
        if several and self._group is None and self._seeker is None and not isinstance(self._model, _Scripted):
            self._seeker = _Seeker(self._model, self)

    def _join(self, group: "ProcessGroup") -> None:
        self._group = group
        self.count = dist.get_world_size(group)

    def _add_up(self, parts: Sequence[tuple[Tensor, int]]) -> None:
        """Replace each tensor by its sum over ranks divided by a number; and see, on the way, that they are alike."""
        # Of 12 bits, so that the sum over 4096 ranks is a whole number in single precision still.
        mark = zlib.crc32(self._alike()) % 4096
        device = parts[0][0].device if parts else next(self._model.parameters()).device
        marked = torch.tensor([float(mark)], dtype=torch.float32, device=device)
        sum_of_marks, *sums = self._reduced([marked, *(value for value, _ in parts)], dist.ReduceOp.SUM)
        if sum_of_marks.item() != mark * self.count:
            raise StateError(
                f"The {self.count} ranks of this data-parallel run are not alike: their methods, seeds or draws so far "
                "differ. Give attach() the same methods and the same seed= on every rank, load the same checkpoint on "
                "every rank, and make the same steps."
            )
        for (value, divisor), total in zip(parts, sums, strict=True):
            value.copy_(total / divisor)

    def _reduced(self, values: Sequence[Tensor], how: Any) -> list[Tensor]:
        device = values[0].device
        flat = torch.cat(
            [value.flatten().to(device, torch.promote_types(value.dtype, torch.float32)) for value in values]
        )
        dist.all_reduce(flat, how, self._group)
        pieces = flat.split([value.numel() for value in values])
        return [piece.view(value.shape).to(value.device) for piece, value in zip(pieces, values, strict=True)]


class _Seeker(ModuleHook):
    """Looks, at every training forward until it finds them, for the ranks that take part in it."""

    def __init__(self, model: nn.Module, ranks: Ranks) -> None:
        self._ranks = ranks
        self.handle = self.hung(model.register_forward_pre_hook(self))

    def __call__(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        """Forward pre-hook."""
        if is_training(module):
            as_written(self._ranks.look)()


def _group_of(model: nn.Module) -> "ProcessGroup | None":
    """The process group of a DistributedDataParallel, also within `torch.compile`; None for other modules."""
    if isinstance(model, DistributedDataParallel):
        group: ProcessGroup = model.process_group
        return group
    compiled_from = getattr(model, "_orig_mod", None)
    return _group_of(compiled_from) if isinstance(compiled_from, nn.Module) else None
