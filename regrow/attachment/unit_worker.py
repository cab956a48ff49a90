"""A unit method at work on the groups of one model."""

from dataclasses import dataclass

from torch import Generator, Tensor
from torch.optim import Optimizer

from regrow.attachment.ranks import Ranks
from regrow.attachment.site import Site
from regrow.methods.unit_method import Choice, OverRanks, UnitMethod


@dataclass(frozen=True)
class Event:
    """One replacement.

    Attributes:
        step: the optimizer step after which it happened, from 1.
        group: name of the unit group.
        unit: index of the unit in its group.
        share: how far it went towards a new unit; 1 for all the way.
    """

    step: int
    group: str
    unit: int
    share: float = 1.0


class UnitWorker:
    """Carries a unit method through training: one call of `step` per optimizer step.

    Args:
        method: the method.
        sites: the groups that it serves, front to back.
        generator: source of all its draws.
        ranks: the ranks of a data-parallel run.
    """

    def __init__(self, method: UnitMethod, sites: list[Site], generator: Generator, ranks: Ranks) -> None:
        self.method = method
        self.sites = sites
        self.generator = generator
        self._ranks = ranks
        for site in sites:
            site.expect_next()

    def before_step(self, optimizer: Optimizer | None) -> None:
        """Read what the step will change."""
        # A fused optimizer gets gradients as GradScaler left them, and unscales them itself.
        scale = getattr(optimizer, "grad_scale", None)
        for site in self.sites:
            site.read_gradients(scale)

    def step(self, optimizer: Optimizer | None, number: int) -> list[Event]:
        """Observe, choose, re-draw after an optimizer step of some number. Returns what was re-drawn.

        For a group of which a parameter is frozen, time stands still; it may pass by the size of steps, too.
        """
        due: list[tuple[Site, int]] = []
        for site in self.sites:
            if site.frozen() is not None or not site.time_passes(optimizer):
                site.clear()
                continue
            count = site.schedule.advance(self.generator)
            site.follow_device()
            site.observe()
            if count:
                due.append((site, count))
        self._ranks.combine([seen for site, _ in due for seen in _seen(site)])
        chosen: list[tuple[Site, Choice]] = []
        for site, count in due:
            site.follow_model()
            choice = site.method.choose(site, site.state, site.age(), count, self.generator)
            site.schedule.confirm(len(choice.units))
            if choice.share is None:
                site.picks.take(choice.units)
            if len(choice.units):
                chosen.append((site, choice))
            site.warn_if_not_finite()
        for site in self.sites:
            site.expect_next()
        # All outgoing weights first: where one is also the incoming weight of another newborn, the re-draw wins.
        for site, choice in chosen:
            site.silence(choice, None if site.method.keeps_moments else optimizer)
        for site, choice in chosen:
            site.redraw(choice, None if site.method.keeps_moments else optimizer, self.generator)
        return [event for site, choice in chosen for event in _events(site, choice, number)]

    def state(self) -> dict[str, Tensor]:
        """Everything that `load` needs, as tensors."""
        state = {"generator": self.generator.get_state()}
        for site in self.sites:
            prefix = f"{site.group.name}."
            state |= {prefix + key: value for key, value in (site.own_state() | site.copy_of_state()).items()}
        return state

    def load(self, state: dict[str, Tensor]) -> None:
        """Go on from what `state` returned."""
        self.generator.set_state(state["generator"].cpu())
        for site in self.sites:
            prefix = f"{site.group.name}."
            device = site.born.device
            site.load_own_state({key: state[prefix + key] for key in site.own_state()})
            site.state = {key: state[prefix + key].to(device, copy=True) for key in site.state}


def _seen(site: Site) -> list[tuple[Tensor, OverRanks]]:
    """What ranks must put together before something is chosen."""
    if not site.method.reads_activations:
        return []
    return [(value, site.method.over_ranks.get(name, "mean")) for name, value in site.state.items()]


def _events(site: Site, choice: Choice, step: int) -> list[Event]:
    units = choice.units.tolist()
    shares = [1.0] * len(units) if choice.share is None else choice.share.tolist()
    return [Event(step, site.group.name, unit, share) for unit, share in zip(units, shares, strict=True)]
