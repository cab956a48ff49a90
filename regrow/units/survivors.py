"""Values of one forward that are there in the next, because something outside the network's modules keeps them."""

from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef

from regrow.units.memory import Memory


class Survivors:
    """What a forward made of units, without keeping any of it alive.

    Args:
        memory: of that forward.
    """

    def __init__(self, memory: Memory) -> None:
        self._left = {
            shadow.storage._cdata: (StorageWeakRef(shadow.storage), shadow.labels, shadow.leaks)
            for shadow in memory.made()
            if shadow.leaks or not shadow.labels.empty
        }

    def forget_dead(self) -> None:
        """Leave out what is gone by now, since nobody keeps it."""
        self._left = {place: found for place, found in self._left.items() if not found[0].expired()}

    def take(self, tensor: Tensor) -> tuple[Tensor, set[int]] | None:
        """If it is met for the first time: units that it is made of, and numbers of the leaks that have reached it."""
        if not self._left or (found := self._left.pop(tensor.untyped_storage()._cdata, None)) is None:
            return None
        _, labels, leaks = found
        return labels.units(), leaks
