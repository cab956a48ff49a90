"""Where the units of a group can be read while the network runs."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from regrow.units import host
from regrow.units.evidence import Claim, Evidence
from regrow.units.graph import Tap
from regrow.units.labels import core
from regrow.units.sightings import Place, Sighting


class TapFinder:
    """Finds taps for outgoing slices.

    Args:
        evidence: of all forward passes.
        claims: its outgoing claims, by parameter.
    """

    def __init__(self, evidence: Evidence, claims: Mapping[str, list[Claim]]) -> None:
        self._units = evidence.units
        self._claims = claims
        self._sightings: dict[Place, list[Sighting]] = {}
        self._returned: dict[str, list[Sighting]] = {}
        for seen in evidence.sightings:
            self._sightings.setdefault(seen.place, []).append(seen)
            if seen.place[1] == "output":
                self._returned.setdefault(seen.place[0], []).append(seen)

    def taps(self, units: Sequence[int], names: Sequence[str]) -> dict[str, Tap | None]:
        """The tap of each outgoing slice of a group; slices that meet the very same value get the same object.

        Args:
            units: of the group.
            names: parameters that read them.
        """
        numbers = host.tensor(units)
        known: dict[object, Tap | None] = {}
        found = {}
        for name in names:
            claims = [
                claim
                for claim in self._claims[name]
                if bool(torch.isin(self._units.find(core(claim.plane)), numbers).any())
            ]
            passes = [claim.value[0] for claim in claims if claim.value is not None]
            values = frozenset(
                claim.value for claim in claims if claim.value is not None and claim.value[0] == passes[0]
            )
            if values not in known:
                known[values] = self._first_tap(numbers, claims[0], name.rpartition(".")[0])
            found[name] = known[values]
        return found

    def _first_tap(self, units: Tensor, claim: Claim, module: str) -> Tap | None:
        # A recurrent layer returns what it reads at the next step.
        returned = self._returned.get(module, [])
        for exact, seen in ((True, claim.sightings), (False, claim.near), (False, returned)):
            for sighting in seen:
                if (tap := self._tap_at(units, sighting, exact)) is not None:
                    return tap
        return None

    def _tap_at(self, units: Tensor, sighting: Sighting, exact: bool) -> Tap | None:
        """The tap at a sighting, if whenever the module runs it sees these units there."""
        if sighting.dim is None:
            return None
        labels = self._units.find(sighting.labels)
        rows = _positions(labels, units)
        if rows is None:
            return None
        for other in self._sightings[sighting.place]:
            if other.dim != sighting.dim or not torch.equal(self._units.find(other.labels), labels):
                return None
        module, where, position = sighting.place
        return Tap(module, where, position, sighting.dim, rows, exact)


def _positions(labels: Tensor, units: Tensor) -> Tensor | None:
    """Where each unit stands in a line of labels, of shape (units, positions); None unless all stand equally often."""
    ordered, order = labels.sort(stable=True)
    first = torch.searchsorted(ordered, units)
    counts = torch.searchsorted(ordered, units, right=True) - first
    if not bool((counts == counts[0]).all()) or not counts[0]:
        return None
    return order[first[:, None] + host.arange(int(counts[0]))]
