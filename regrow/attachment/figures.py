"""Figures of an attachment to log."""

from collections.abc import Iterable

from regrow.attachment.unit_worker import UnitWorker
from regrow.attachment.weight_worker import WeightWorker
from regrow.methods.picks import pick_figures


def figures(steps: int, unit_workers: Iterable[UnitWorker], weight_workers: Iterable[WeightWorker]) -> dict[str, float]:
    """The totals, `steps` and `replacements`; for each served group its `replacements`, how many of its units are
    `eligible`, and their `mean_age` in optimizer steps. For each group, and for each method that draws single weights
    anew under its own name: `last_share` of units or weights that were picked when something was due last, and the
    `overlap` of that pick with the one before it, in this process and where there were two. An overlap near 1 means
    that the same are drawn anew each time.
    """
    found: dict[str, float] = {"steps": float(steps), "replacements": 0.0}
    for site in (site for worker in unit_workers for site in worker.sites):
        site.warn_if_not_finite()
        found["replacements"] += site.schedule.replaced
        prefix = f"{site.group.name}/"
        replaced = found.get(prefix + "replacements", 0.0)
        found[prefix + "replacements"] = replaced + site.schedule.replaced
        found[prefix + "eligible"] = float(site.schedule.eligible)
        found[prefix + "mean_age"] = site.age().float().mean().item()
        found |= {prefix + name: value for name, value in pick_figures([site.picks]).items()}
    for editor in weight_workers:
        found |= {f"{editor.method.name}/{name}": value for name, value in pick_figures(editor.picks()).items()}
    return found
