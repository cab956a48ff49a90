"""How a method is called and coloured, the same in every figure, table and page."""

from collections.abc import Iterable

# Okabe and Ito's colours, told apart by colour-blind readers, on white and on black; grey is for the control.
_KNOWN = {
    "backprop": ("Backprop", "#d55e00"),
    "cbp": ("Continual backprop", "#0b7cc0"),
    "l2": ("L2", "#009e73"),
    "shrink-and-perturb": ("Shrink and perturb", "#cc79a7"),
    "random-replacement": ("Random replacement", "#808080"),
}
_FURTHER = ("#e69f00", "#56b4e9", "#9a6324", "#8a63d2", "#a0a000", "#e0529c")
COLOURS = len(_KNOWN) + len(_FURTHER)
"""So many methods can be told apart in one picture."""


def in_order(methods: Iterable[str]) -> list[str]:
    """Return the names with the usual ones first, in their usual order, then the others by name."""
    known = list(_KNOWN)
    return sorted(methods, key=lambda name: (known.index(name) if name in _KNOWN else len(known), name))


def label(method: str) -> str:
    """Return what a reader calls the method; a name that is not known stays as it is."""
    return _KNOWN[method][0] if method in _KNOWN else method


def colours(methods: Iterable[str]) -> dict[str, str]:
    """Return a colour for each method; the usual ones always have the same."""
    ordered = in_order(methods)
    others = [name for name in ordered if name not in _KNOWN]
    return {
        name: _KNOWN[name][1] if name in _KNOWN else _FURTHER[others.index(name) % len(_FURTHER)] for name in ordered
    }


def colours_in_turn(names: Iterable[str]) -> dict[str, str]:
    """Return a colour for each name: the usual methods have theirs, the others one after another as they are given."""
    further = iter(_FURTHER * 2)
    return {name: _KNOWN[name][1] if name in _KNOWN else next(further) for name in names}
