"""What all figures look like."""

from typing import Any

INK, MUTED, GRID = "#1f2328", "#59636e", "#dde2e7"
STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 10.5,
    "text.color": INK,
    "axes.edgecolor": MUTED,
    "axes.linewidth": 0.8,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "axes.labelcolor": MUTED,
    "text.parse_math": False,
    "svg.fonttype": "path",
    "svg.hashsalt": "regrow",
}
