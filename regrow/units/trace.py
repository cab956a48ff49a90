"""Finding units: one real forward in which every value carries, beside its elements, which unit each depends on."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from regrow.errors import ModelError
from regrow.units.call import Call
from regrow.units.computed import Computed, announced, find_computed
from regrow.units.example import decomposed, describe, python_draws, run, tensors_of, uncompiled, untouched
from regrow.units.exits import Exits
from regrow.units.graph import UnitGraph
from regrow.units.grouping import group_units
from regrow.units.memory import Atlas, has_memory
from regrow.units.record import Record
from regrow.units.refusals import refuse_overlaps, refuse_parts
from regrow.units.rules import rule_for
from regrow.units.sightings import Watch
from regrow.units.state import forgotten, kept
from regrow.units.wrappers import without_wrapper


def find_units(model: nn.Module, example: Any) -> UnitGraph:
    """Find all units of a network, and every element of every parameter that belongs to each.

    The model runs twice on the example, in its present mode (training or evaluation) and in the other, and more often
    where random numbers may choose which parts run; afterwards its parameters, buffers, attributes, flags, hooks and
    the random generators are as before.

    Args:
        model: any network. Wrappers of DDP and `torch.compile` are looked through, and names are those within.
        example: what it is called with: a tensor, a tuple (positional arguments), a dict (keyword arguments), or a
            callable that takes the model and returns what the loss reads. Only what is returned counts as output.

    Raises:
        ModelError: the model cannot take the example, has no parameters, or holds them in a form in which single
            elements cannot be told or set (shards, packed numbers, shared memory).
    """
    if not isinstance(model, nn.Module):
        raise ModelError(f"find_units() needs a torch.nn.Module, but got {type(model).__name__}.")
    model = without_wrapper(model)
    parameters: dict[str, Tensor] = dict(model.named_parameters())
    buffers = dict(model.named_buffers())
    refuse_parts(model)
    refuse_overlaps(parameters)
    computed = find_computed(model)
    parameters |= {name: one.stand_in for name, one in computed.items()}
    tensors = {name: tensor for name, tensor in {**parameters, **buffers}.items() if has_memory(tensor)}
    graph, crossing = _find(model, example, parameters, tensors, computed)
    if crossing & graph.unclaimed.keys():
        # Weights that are applied along another dimension than units lie along, as those of an MLP-Mixer across
        # places, make units of their own, for which all other parameters are constants.
        left = {name: one for name, one in parameters.items() if name in graph.unclaimed}
        others, _ = _find(model, example, left, tensors, computed)
        graph = graph.joined(others)
    return graph


def _find(
    model: nn.Module,
    example: Any,
    parameters: dict[str, Tensor],
    tensors: Mapping[str, Tensor],
    computed: Mapping[str, Computed],
) -> tuple[UnitGraph, set[str]]:
    """The units that some parameters make, and names of those that were applied across units."""
    watch = Watch(model)
    record = Record(Atlas(tensors), set(parameters), watch, computed)
    with untouched(model), uncompiled(), decomposed(model), torch.inference_mode(False), torch.enable_grad():
        present = model.training
        for training in (present, not present):
            if training != present:
                model.train(training)
            for _ in range(_RUNS):
                drawn = python_draws()
                try:
                    _follow(model, example, record, watch, computed)
                except ModelError:
                    if training or training == present:
                        raise
                    break  # it learns in training mode, so a model that cannot be evaluated so is no obstacle
                if not record.random_parts and drawn == python_draws():
                    break
                record.evidence.random_parts = True
    for name, one in computed.items():  # named is the computed weight, or its originals where it is not met
        claimed = {claim.name for claim in record.evidence.claims}
        for left in one.originals if name in record.met else (name,):
            if left not in claimed:
                parameters.pop(left, None)
    return group_units(record.evidence, parameters, tensors), record.crossing


_RUNS = 8  # in each mode, where random numbers may choose which parts run, as with layers that are dropped


def _follow(model: nn.Module, example: Any, record: Record, watch: Watch, computed: Mapping[str, Computed]) -> None:
    """One labelled forward."""
    record.begin_pass()
    with forgotten(model):
        with watch.on(), announced(computed, record.begin_computing, record.end_computing):
            given = nn.Module.register_forward_pre_hook(  # of a scripted module too, whose own method refuses
                model, lambda module, args, kwargs: record.give(tensors_of([*args, *kwargs.values()])), with_kwargs=True
            )
            try:
                with _Dispatch(record), Exits(record.leave):
                    result = run(model, example)
            finally:
                given.remove()
        outputs = [output for output in tensors_of(result) if has_memory(output)]
        if not outputs:
            raise ModelError(
                f"{type(model).__name__} returned no tensor but {describe(result)}, so it cannot be told what its "
                "units have an effect on. Give as example= a callable that takes the model and returns what the "
                "loss reads."
            )
        record.end_pass(outputs, kept(model))


class _Dispatch(TorchDispatchMode):
    """Runs beside a forward and has every operator that is called followed by its rule."""

    def __init__(self, record: Record) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._record = record

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        # Its wrapper would import the compiler, which takes a second. `uncompiled` does what it is for.
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        rule = rule_for(func)
        if rule is None and func._can_decompose():
            with self:
                result = func.decompose(*args, **kwargs)
            if result is not NotImplemented:
                return result
        call = Call(func, tuple(args), kwargs)
        call.out = func(*args, **kwargs)
        self._record.follow(call, rule)
        return call.out
