"""Low-rank adapters: two trainable matrices in a row beside a frozen one. What lies between the two is no unit."""

from collections.abc import Mapping

import torch
from torch import Tensor

from regrow.units.evidence import Claim, Value
from regrow.units.labels import Units, units_in
from regrow.units.reasons import Key


def find_adapters(
    claims: Mapping[Key, list[Claim]], planes: Mapping[Key, Tensor], parameters: Mapping[str, Tensor], units: Units
) -> dict[int, str]:
    """The dimensions that lie inside of low-rank adapters (LoRA), with what to say of them.

    An adapter reads what a frozen weight reads, its second matrix multiplies just what its first one made, and the
    results are added to what the frozen weight makes. There is no nonlinearity in between: its rank is a limit on the
    change of the frozen weight, and not a hidden layer.

    Args:
        claims: all uses of parameters, by parameter and role.
        planes: the unit of each element of the same parameters.
        parameters: by name.
        units: numbers that the planes refer to.
    """
    made = {name: found for (name, role), found in claims.items() if role == "incoming"}
    read = {name: found for (name, role), found in claims.items() if role == "outgoing"}
    frozen = [name for name in made if not parameters[name].requires_grad]
    adapters: dict[int, str] = {}
    for first in made if frozen else ():
        if not parameters[first].requires_grad:
            continue
        inside = units_in(units.find(planes[first, "incoming"]))
        results = {claim.result for claim in made[first]}
        readers = [name for name in read if bool(torch.isin(units_in(planes[name, "outgoing"]), inside).any())]
        if not readers or any(claim.value not in results for name in readers for claim in read[name]):
            continue
        for base in frozen:
            if _operands(made[first]) & _operands(made[base]):
                of_base = units_in(planes[base, "incoming"])
                if all(name in made and _within(planes[name, "incoming"], of_base) for name in readers):
                    text = f"{first} and {', '.join(readers)} adapt {base}, which does not require grad"
                    adapters |= dict.fromkeys(inside.tolist(), f"{text}: what lies between them is no unit")
    return adapters


def _operands(claims: list[Claim]) -> set[Value]:
    return set().union(*(claim.operands for claim in claims))


def _within(plane: Tensor, units: Tensor) -> bool:
    return bool(torch.isin(units_in(plane), units).all())
