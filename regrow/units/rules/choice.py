"""Where elements are picked by indices: who has an effect on the choice, and who may be picked next time."""

from collections.abc import Iterable

import torch
from torch import Tensor

from regrow.units.call import Call
from regrow.units.labels import has_units, meet, units_in
from regrow.units.record import Record


def leak_choice(
    record: Record,
    call: Call,
    indices: Iterable[Tensor | None],
    sources: Iterable[Tensor] = (),
    dims: Iterable[int] = (),
) -> bool:
    """Note that indices pick elements, of some sources along some of their dimensions.

    The units that an index is computed from have an effect on what is picked. Where the index comes with the data and
    there are different units to pick from, this forward shows only which it has picked: rows of units are the same
    units to what follows, and single ones cannot be told from each other.

    Returns whether it is not known which units the results are of.
    """
    present = [index for index in indices if index is not None]
    for index in present:
        if has_units(plane := record.labels(index)):
            record.leak("mix", f"{record.where} picks elements by their values", units_in(plane), call.outputs)
    if all(record.is_fixed(index) for index in present):
        return False
    several = False
    for source in sources:
        plane = record.labels(source)
        met = meet(plane, sorted({dim % plane.dim() for dim in dims}))
        if len(units_in(met.label)) > 1:  # rows of units: which row it is, they are the same units to what follows
            record.units.join(met.left, met.right)
        elif len(met.left):
            reason = f"{record.where} picks one unit or another, by indices that come with the data"
            record.leak("mix", reason, units_in(plane), call.outputs)
            several = True
    return several


def picked(call: Call) -> tuple[list[Tensor | None], list[int]]:
    """The indices of a call, and along which dimensions of what it picks from they point."""
    if isinstance(call.get("indices"), list | tuple):
        indices = [index if index is None or index.dtype != torch.bool else None for index in call["indices"]]
        return indices, [dim for dim, index in enumerate(indices) if index is not None]
    index = call.get("index", call.get("indices"))
    if not isinstance(index, Tensor):
        return [], []
    return [index], [call["dim"]]
