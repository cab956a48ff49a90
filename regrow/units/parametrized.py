"""Weights that a module computes from other parameters, by `torch.nn.utils.parametrize`, and how to set single ones.

Which parametrizations allow that is found by trial and not by their names: weight norm does, spectral norm,
orthogonality and exp do not.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from regrow.errors import ModelError
from regrow.units import host
from regrow.units.example import untouched

Originals = Sequence[Tensor]


class Parametrized:
    """A tensor that stands in the place of a parameter and is computed from others, its originals.

    Args:
        name: qualified name of the attribute that it is read from, such as "0.weight".
        computation: what computes it.

    Attributes:
        originals: what training changes instead, by qualified name, such as "0.parametrizations.weight.original0".
    """

    def __init__(self, name: str, computation: parametrize.ParametrizationList) -> None:
        self.name = name
        self.computation = computation
        owner, _, attribute = name.rpartition(".")
        prefix = f"{owner}.parametrizations.{attribute}.".removeprefix(".")
        names = ["original"] if computation.is_tensor else [f"original{i}" for i in range(computation.ntensors)]
        self.originals: dict[str, Tensor] = {prefix + name: getattr(computation, name) for name in names}
        self._steps: list[nn.Module] = list(computation)

    def value(self) -> Tensor:
        """The tensor as it is now, without autograd."""
        with torch.no_grad():
            return self._compute(self._present).detach()

    def set(self, target: Tensor) -> None:
        """Give the tensor new values, up to rounding; those that are 0 become exactly 0.

        Elements of the originals that make only weights that keep their values stay as they are, bit for bit.

        Raises:
            ModelError: no originals are found that give these values, although `why_fixed` saw no obstacle.
        """
        with torch.no_grad():
            found = self._solve(self._present, target)
            if found is None:
                raise ModelError(
                    f"{self.name} is computed by {self.kind}, whose right_inverse does not give back the weights that "
                    "are to be set. Exclude the layer (exclude=), or remove the parametrization."
                )
            for original, new in zip(self._present, found, strict=True):
                original.copy_(new)

    def owned(self, mask: Tensor) -> list[Tensor]:
        """Which elements of each original belong to some elements of the tensor: they follow from these alone.

        For weight norm, g of an output belongs to all of its weights together, v to each.

        Args:
            mask: bool, of the tensor's shape.

        Returns:
            For each original a bool tensor of its shape.
        """
        one, other = _noise(1, mask, self._present[0].dtype), _noise(2, mask, self._present[0].dtype)
        with torch.no_grad():
            base = self._inverse(one)
            without_others = self._inverse(torch.where(mask, one, other))
            without_these = self._inverse(torch.where(mask, other, one))
        return [
            (same == now) & (changed != now)
            for now, same, changed in zip(base, without_others, without_these, strict=True)
        ]

    @property
    def kind(self) -> str:
        """The classes of its parametrizations."""
        return " and ".join(type(step).__name__.removeprefix("_") for step in self._steps)

    def why_fixed(self) -> str | None:
        """Why single elements cannot be given any value, or None if they can."""
        for step in self._steps:
            if not hasattr(step, "right_inverse"):
                return (
                    f"{self.name} is computed by {self.kind}, which has no right_inverse: single weights cannot be set"
                )
        if self._takes_any_weights():
            return None
        return f"{self.name} is computed by {self.kind}, through which single weights cannot be set"

    def _takes_any_weights(self) -> bool:
        with untouched(self.computation), torch.no_grad():
            like = self._compute(self._present)
            if like.is_meta:
                like = torch.empty_like(like, device="cpu")
            seen: list[Tensor] = []
            for training in (True, False):
                self.computation.train(training)
                try:
                    present = self._inverse(_noise(0, like, like.dtype))
                    before, seen = seen, [*present, self._compute(present)]
                    if before and all(map(torch.equal, before, seen)):
                        continue  # the same in both modes
                    if any(self._solve(present, target) is None for target in _trials(like)):
                        return False
                except Exception:  # whatever a right_inverse raises on weights that it cannot take
                    return False
        return True

    @property
    def _present(self) -> list[Tensor]:
        return list(self.originals.values())

    def _compute(self, originals: Originals) -> Tensor:
        first, *others = self._steps
        value: Tensor = first(*originals)
        for step in others:
            value = step(value)
        return value

    def _inverse(self, target: Tensor) -> list[Tensor]:
        value: Tensor | Sequence[Tensor] = target
        for step in reversed(self._steps):
            value = step.right_inverse(value)  # type: ignore[operator]
        return [value] if isinstance(value, Tensor) else list(value)

    def _solve(self, present: Originals, target: Tensor) -> Originals | None:
        """Originals that give a target, as near to the present ones as can be."""
        before = self._inverse(self._compute(present))
        inverse = self._inverse(target)
        found = [torch.where(new == old, now, new) for now, old, new in zip(present, before, inverse, strict=True)]
        # Where that is not right, all as the inverse has it; where that is not either, one original only: a row whose
        # norm would be 0 has no direction, but keeps the one that it has when only its length becomes 0.
        single = [(64, [*present[:i], inverse[i], *present[i + 1 :]]) for i in range(len(present))]
        for rounding, other in ((4, inverse), *single):
            wrong = ~_close(self._compute(found), target, rounding)
            if not bool(wrong.any()):
                continue
            found = [torch.where(own, new, now) for own, new, now in zip(self.owned(wrong), other, found, strict=True)]
        for choice in (found, inverse):
            if bool(_close(self._compute(choice), target, 64).all()):
                return choice
        return None


def parametrizations(module: nn.Module, path: str = "") -> dict[str, Parametrized]:
    """What of a module's own attributes is computed, by the attribute's name.

    Args:
        module: the module.
        path: its qualified name.
    """
    if not parametrize.is_parametrized(module):
        return {}
    found = module.parametrizations.items()  # type: ignore[operator, union-attr]
    return {name: Parametrized(f"{path}.{name}".removeprefix("."), computation) for name, computation in found}


def behind(model: nn.Module, name: str) -> Tensor | Parametrized:
    """The parameter or buffer of a name, or what computes the tensor of that name."""
    path, _, attribute = name.rpartition(".")
    owner = nn.Module.get_submodule(model, path)  # also of TorchScript
    tensor: Tensor | Parametrized | None = parametrizations(owner, path).get(attribute)
    return getattr(owner, attribute) if tensor is None else tensor


def parameters_behind(model: nn.Module, name: str) -> dict[str, Tensor]:
    """What training changes under a name, by its own names: the tensor itself, or the originals."""
    found = behind(model, name)
    return {name: found} if isinstance(found, Tensor) else found.originals


def _trials(like: Tensor) -> tuple[Tensor, Tensor]:
    """Weights that nothing but a free choice can give; of the second some are 0, as are whole rows and columns."""
    noise = _noise(1, like, like.dtype)
    holes = noise.masked_fill(noise.abs() < 0.3, 0.0)
    for dim in range(noise.dim()):
        if noise.size(dim) > 1:
            holes.narrow(dim, 0, 1).zero_()
    return noise, holes


def _noise(seed: int, like: Tensor, dtype: torch.dtype) -> Tensor:
    noise = host.empty(like.shape).uniform_(-2, 2, generator=torch.Generator().manual_seed(seed))
    return noise.to(device=like.device, dtype=dtype)


def _close(value: Tensor, target: Tensor, rounding: int) -> Tensor:
    """Where a value is a target up to a multiple of ε. A target that is not finite is met by anything."""
    near = (value - target).abs() <= rounding * torch.finfo(target.dtype).eps * target.abs()
    return near if bool(near.all()) else near | ~target.isfinite()
