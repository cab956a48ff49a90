"""What a forward computes in the place of parameters: each counts as a parameter, with what holds its units back."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm
from torch.utils.hooks import RemovableHandle

from regrow.units.example import untouched
from regrow.units.parametrized import parametrizations


@dataclass(frozen=True, eq=False)
class Computed:
    """A tensor that a module computes and uses as a parameter.

    Attributes:
        name: qualified name of the attribute that it is read from.
        module: the module whose call computes it.
        attribute: where that module keeps it before it runs; None if it returns it.
        stand_in: a tensor without data, of its shape and type.
        originals: names of the parameters that it is computed from.
        reason: why single elements cannot be set; None if they can.
    """

    name: str
    module: nn.Module
    attribute: str | None
    stand_in: Tensor
    originals: tuple[str, ...]
    reason: str | None

    def announce(self, begin: Callable[["Computed"], None], end: Callable[[Any], None]) -> list[RemovableHandle]:
        """Have functions called before it is computed, and after with the result."""

        def before(module: nn.Module, args: Any) -> None:
            begin(self)

        def after(module: nn.Module, *args: Any) -> None:
            end(args[-1] if self.attribute is None else getattr(module, self.attribute))

        handles = [self.module.register_forward_pre_hook(before, prepend=True)]
        if self.attribute is None:
            handles.append(self.module.register_forward_hook(after, always_call=True))
        else:
            handles.append(self.module.register_forward_pre_hook(after))
        return handles


@contextmanager
def announced(
    computed: Mapping[str, Computed], begin: Callable[[Computed], None], end: Callable[[Any], None]
) -> Iterator[None]:
    """Announce all of them within the block."""
    handles = [handle for one in computed.values() for handle in one.announce(begin, end)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def find_computed(model: nn.Module) -> dict[str, Computed]:
    """All tensors that parametrizations, or the older hooks of norms, compute in the place of parameters."""
    named = {id(parameter): (name, parameter) for name, parameter in model.named_parameters()}
    found: dict[str, Computed] = {}
    with untouched(model):
        for path, module in model.named_modules():
            for name, call, attribute, value, parts, reason in (*_parametrized(module, path), *_hooked(module, path)):
                originals = dict(named[id(part)] for part in parts if id(part) in named)
                frozen = [original for original, parameter in originals.items() if not parameter.requires_grad]
                trained = len(frozen) < len(originals)
                if frozen and trained:
                    reason = reason or f"{frozen[0]} does not require grad"
                if originals:
                    stand_in = torch.empty_like(value, device="meta").requires_grad_(trained)
                    found[name] = Computed(name, call, attribute, stand_in, tuple(originals), reason)
    users: dict[str, list[str]] = {}
    for one in found.values():
        for original in one.originals:
            users.setdefault(original, []).append(one.name)
    for original, names in users.items():
        for name, other in zip(names, [*names[1:], names[0]], strict=True) if len(names) > 1 else ():
            reason = found[name].reason or f"{original} also computes {other}"
            found[name] = replace(found[name], reason=reason)
    return found


# Name, the module whose call computes it, the attribute that keeps it, its value, what it is computed from, the reason.
_Draft = tuple[str, nn.Module, str | None, Tensor, Iterable[Tensor | None], str | None]


def _parametrized(module: nn.Module, path: str) -> Iterator[_Draft]:
    for one in parametrizations(module, path).values():
        try:
            value, reason = one.value(), one.why_fixed()
        except Exception:  # the forward will raise it, and say what the model was called with
            continue
        yield one.name, one.computation, None, value, one.originals.values(), reason


_NOW = {WeightNorm: "weight_norm", SpectralNorm: "spectral_norm"}


def _hooked(module: nn.Module, path: str) -> Iterator[_Draft]:
    for hook in module._forward_pre_hooks.values():
        if isinstance(hook, WeightNorm | SpectralNorm):
            name, kind = f"{path}.{hook.name}".removeprefix("."), type(hook)
            reason = (
                f"{name} is computed by an old-style {kind.__name__} hook, through which single weights cannot be set: "
                f"use torch.nn.utils.parametrizations.{_NOW[kind]} instead"
            )
            parts = [getattr(module, f"{hook.name}_{end}", None) for end in ("g", "v", "orig")]
            yield name, module, hook.name, getattr(module, hook.name), parts, reason
