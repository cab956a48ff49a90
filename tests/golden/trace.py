"""The run of which a method's trace is made, and what the trace keeps of it."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import regrow
from tests.conformance.cases import OPTIMIZERS, PROBLEMS, Run, brisk, brisk_settings

STEPS = 30  # with task changes after 10 and 20


def _network() -> nn.Module:
    layers = [nn.Linear(*sizes, dtype=torch.float64) for sizes in ((8, 16), (16, 12), (12, 4))]
    return nn.Sequential(layers[0], nn.ReLU(), layers[1], nn.ReLU(), layers[2])


def _draw(draws: torch.Generator, size: int) -> tuple[Tensor, Tensor]:
    return torch.randn(size, 8, generator=draws, dtype=torch.float64), torch.randint(4, (size,), generator=draws)


# In double precision, so that processors agree on all but what regrow draws or remembers in single precision.
PROBLEM = replace(PROBLEMS["mlp"], build=_network, draw=_draw)


class _Precision(TorchDispatchMode):
    """Notices whether anything is computed in single precision."""

    single = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        self.single |= any(isinstance(leaf, Tensor) and leaf.dtype == torch.float32 for leaf in tree_leaves(made))
        return made


def trace_of(name: str) -> dict[str, Any]:
    """What a method does in a short seeded run, as JSON can hold it.

    Of each parameter, and of each thing that the method remembers: its sum, the sum weighted by 0 to 1 along it, and
    the sum of its magnitudes; whole numbers in full; of a generator, a digest. The tolerance is that to which other
    processors agree, relative to the magnitudes: on one with its vector instructions off, 3e-16 where all is computed
    in double precision, and 2e-7 where not.
    """
    model = PROBLEM.network()
    optimizer = OPTIMIZERS["sgd"](model.parameters())
    with _Precision() as precision:
        plastic = regrow.attach(model, optimizer, brisk(name), example=PROBLEM.batch(0)[0])
        Run(PROBLEM, model, optimizer, plastic).train(STEPS)
    state = {key: value for key, value in plastic.state_dict().items() if not key.endswith(("identity", "inputs"))}
    return {
        "settings": brisk_settings(name),
        "tolerance": 1e-5 if precision.single else 1e-10,
        "events": [[event.step, event.group, event.unit, event.share] for event in plastic.events],
        "parameters": {key: _summary(value) for key, value in model.state_dict().items()},
        "state": {key: _summary(value) for key, value in state.items()},
    }


def path_of(name: str) -> Path:
    """Where a method's trace lies."""
    return Path(__file__).parent / "traces" / f"{name}.json"


def recorded(name: str) -> dict[str, Any]:
    """The trace that is on record.

    Raises:
        FileNotFoundError: there is none, with what to do.
    """
    if not path_of(name).exists():
        raise FileNotFoundError(
            f"No run of {name!r} is on record. Record one with `python -m tests.golden.record {name}`, look at what it "
            f"wrote, and commit tests/golden/traces/{name}.json."
        )
    content: dict[str, Any] = json.loads(path_of(name).read_text())
    return content


def _summary(value: Tensor) -> dict[str, float] | list[int] | str:
    if value.dtype == torch.uint8:
        return hashlib.sha256(bytes(value.tolist())).hexdigest()[:16]
    if not value.is_floating_point():
        whole: list[int] = value.flatten().tolist()
        return whole
    flat = value.double().flatten()
    weighted = flat @ torch.linspace(0, 1, len(flat), dtype=torch.float64)
    return {"sum": flat.sum().item(), "weighted": weighted.item(), "magnitude": flat.abs().sum().item()}
