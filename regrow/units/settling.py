"""Which unit each element of a parameter belongs to, in each role, from all uses of it."""

from collections.abc import Mapping

import torch
from torch import Tensor

from regrow.units import host
from regrow.units.evidence import Claim
from regrow.units.graph import Role
from regrow.units.labels import NONE, UNUSED, ZERO, Units, compress, core
from regrow.units.memory import Geometry, extent
from regrow.units.reasons import Key, Reasons


def settle(
    claims: Mapping[Key, list[Claim]], tensors: Mapping[str, Tensor], units: Units, reasons: Reasons
) -> dict[Key, Tensor]:
    """One plane for each parameter and role, in the order of the claims.

    Joins units that the same weight reads, or makes. Notes the units of which a parameter cannot be told apart.

    Args:
        claims: all uses of parameters, by parameter and role.
        tensors: parameters and buffers by name.
        units: numbers that the claims refer to.
        reasons: where to note what holds units back.
    """
    return _Settling(tensors, units, reasons).settle(claims)


class _Settling:
    def __init__(self, tensors: Mapping[str, Tensor], units: Units, reasons: Reasons) -> None:
        self.tensors = tensors
        self.units = units
        self.reasons = reasons

    def settle(self, claims: Mapping[Key, list[Claim]]) -> dict[Key, Tensor]:
        spread = {
            key: [self._spread(claim) for claim in claims[key]]
            for key in sorted(claims, key=lambda key: key[1] != "outgoing")
        }
        before = -1
        while before != self.units.joins:  # joins of one parameter's units can settle another's
            before = self.units.joins
            for (_, role), planes in spread.items():
                if role in ("incoming", "outgoing"):
                    for plane in planes[1:]:
                        self._join(planes[0], plane, role)
        settled = {key: self._fold(key, planes) for key, planes in spread.items()}
        self._take_for_incoming(settled)
        self._forbid_two_roles(settled)
        return {key: settled[key] for key in claims}

    def _spread(self, claim: Claim) -> Tensor:
        """A claim's plane on the whole parameter, `UNUSED` where it says nothing."""
        tensor = self.tensors[claim.name]
        plane = claim.plane
        if claim.role == "outgoing":
            plane = torch.where(core(plane) == ZERO, UNUSED, core(plane)).expand(plane.shape)
        if not isinstance(claim.place, Tensor):
            axes = _axes(claim.place, tensor)
            if axes is not None:
                return _permuted(plane, axes, tensor)
        flat = host.full((extent(tensor),), UNUSED, dtype=torch.int64)
        if isinstance(claim.place, Tensor):
            place = claim.place.expand(plane.shape)
            inside = (place >= 0) & (place < len(flat))
            flat[place[inside]] = plane[inside]
        else:
            offset, shape, strides = claim.place
            flat.as_strided(shape, strides, offset).copy_(plane)
        return compress(flat.as_strided(tensor.shape, tensor.stride()))

    def _join(self, first: Tensor, second: Tensor, role: Role) -> None:
        """Units read by the same weight are one. So are units made by the same weight, if that pairs them off."""
        one, other = _cores(self.units.find(first), self.units.find(second))
        if torch.equal(one, other):
            return
        if role == "incoming" and min(int(one.min()), int(other.min())) >= 0:
            if len(one.unique()) != len(other.unique()):
                return  # as of a large tied embedding, without spelling out all pairs
        one, other = torch.broadcast_tensors(one, other)
        both = (one >= 0) & (other >= 0) & (one != other)
        pairs = torch.stack([one[both], other[both]]).unique(dim=1)
        paired_off = all(len(side.unique()) == pairs.size(1) for side in pairs)
        if role == "outgoing" or paired_off:
            self.units.join(pairs[0], pairs[1])

    def _fold(self, key: Key, planes: list[Tensor]) -> Tensor:
        """One plane from those of all uses. A unit whose element is also something else's is noted."""
        name, role = key
        result = self.units.find(planes[0])
        for plane in planes[1:]:
            shape = result.shape
            small = _cores(result, self.units.find(plane))
            if torch.equal(*small):
                result = compress(result)
                continue
            one, other = torch.broadcast_tensors(*small)
            clash = (one != other) & (one != UNUSED) & (other != UNUSED)
            if bool(clash.any()):
                units = torch.cat([_under(clash, side) for side in small])
                if role in ("incoming", "outgoing"):
                    self.reasons.note(units, "mix", f"{name} also {_CLASH[role]}")
                else:  # a bias or gain that several units share is reset with none of them
                    one = torch.where(clash, NONE, one)
            if bool((core(one) < 0).any()):
                unknown = (one == UNUSED) | ((one == NONE) & (role in ("incoming", "outgoing")) & (other >= 0))
                one = torch.where(unknown, other, one)
            result = compress(one.expand(shape))
        return result

    def _take_for_incoming(self, planes: dict[Key, Tensor]) -> None:
        """What is the bias of a unit in one place and makes it in another, as biases of experts may, makes it."""
        for name, role in planes:
            if role == "bias" and (name, "incoming") in planes:
                shape = planes[name, role].shape
                bias, makes = torch.broadcast_tensors(*_cores(planes[name, role], planes[name, "incoming"]))
                if (name, "outgoing") in planes:  # what reads one unit is not also added to another
                    added, reads = torch.broadcast_tensors(*_cores(planes[name, role], planes[name, "outgoing"]))
                    self.reasons.note(reads[added >= 0], "mix", f"{name} is used in two roles")
                planes[name, role] = compress(torch.where(bias == makes, UNUSED, bias).expand(shape))

    def _forbid_two_roles(self, planes: dict[Key, Tensor]) -> None:
        """A weight may read one unit and make another. Anything else in two roles cannot be replaced."""
        roles: dict[str, list[Role]] = {}
        for name, role in planes:
            roles.setdefault(name, []).append(role)
        for (name, role), plane in planes.items():
            for other_role in roles[name]:
                if role >= other_role:
                    continue
                other = planes[name, other_role]
                one, two = torch.broadcast_tensors(*_cores(plane, other))
                if {role, other_role} == {"incoming", "outgoing"}:
                    makes, reads = (one, two) if role == "incoming" else (two, one)
                    self._forbid_tied(name, makes, reads)
                else:
                    both = (one != UNUSED) & (two != UNUSED)
                    self.reasons.note(torch.cat([one[both], two[both]]), "mix", f"{name} is used in two roles")

    def _forbid_tied(self, name: str, makes: Tensor, reads: Tensor) -> None:
        if not bool(torch.isin(core(makes), core(reads)).any()):
            return
        own, counts = makes[(makes == reads) & (makes >= 0)].unique(return_counts=True)
        every, totals = core(makes).unique(return_counts=True)
        totals = totals * (makes.numel() // core(makes).numel())
        whole = own[counts == totals[torch.searchsorted(every, own)]]
        self.reasons.note(whole, "mix", f"{name} both makes and reads it (tied weights)")


_CLASH = {"incoming": "makes other units", "outgoing": "multiplies something else"}


def _axes(place: Geometry, tensor: Tensor) -> dict[int, int] | None:
    """Which dimension of a view each dimension of its tensor is, if the view is all of it, dimensions permuted."""
    offset, shape, strides = place
    axes = {}
    for dim, (size, stride) in enumerate(zip(tensor.shape, tensor.stride(), strict=True)):
        if size > 1:
            same = [axis for axis in range(len(shape)) if shape[axis] == size and strides[axis] == stride]
            if len(same) != 1:
                return None
            axes[dim] = same[0]
    rest = [shape[axis] for axis in range(len(shape)) if axis not in axes.values()]
    return axes if offset == 0 and all(size == 1 for size in rest) else None


def _permuted(plane: Tensor, axes: dict[int, int], tensor: Tensor) -> Tensor:
    rest = [axis for axis in range(plane.dim()) if axis not in axes.values()]
    kept = _first_along(plane.permute(*axes.values(), *rest), len(rest))
    for dim in range(tensor.dim()):
        if dim not in axes:
            kept = kept.unsqueeze(dim)
    return compress(kept)


def _first_along(plane: Tensor, count: int) -> Tensor:
    """The plane without its last dimensions, at their first position."""
    for _ in range(count):
        plane = plane.select(-1, 0)
    return plane


def _under(mask: Tensor, plane: Tensor) -> Tensor:
    """What a plane that is broadcast to the shape of a mask holds where the mask is set."""
    dims = [dim for dim in range(mask.dim()) if plane.size(dim) == 1 and mask.size(dim) > 1]
    return plane[mask.any(dim=dims, keepdim=True) if dims else mask]


def _cores(one: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    return core(one), core(other)
