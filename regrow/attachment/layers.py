"""How far each parameter is from the output, counted in layers."""

from collections import deque

from regrow.units.graph import UnitGraph, UnitGroup


def layers_from_output(graph: UnitGraph) -> dict[str, int]:
    """For each parameter that makes units: 0 if it makes what the network returns, else one more than the nearest of
    those that read its units. Biases and gains are counted with the units that they belong to.

    What is made by several layers, as a residual stream, is as near as any way from it.
    """
    layer_of: dict[str, int] = {}  # by group
    waiting = deque((group, 0) for group in graph if group.status == "output")
    while waiting:
        group, distance = waiting.popleft()
        if group.name in layer_of:
            continue
        layer_of[group.name] = distance
        waiting.extend((other, distance + 1) for other in graph if set(other.consumers) & set(group.producers))
    found: dict[str, int] = {}
    for group in graph:
        for name in _own(group) if group.name in layer_of else ():
            found[name] = min(found.get(name, layer_of[group.name]), layer_of[group.name])
    return found


def _own(group: UnitGroup) -> tuple[str, ...]:
    return tuple(part.parameter for part in group.having("incoming", "bias", "gain"))
