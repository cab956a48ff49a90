"""Networks in forms in which single units cannot be found or written: what to do instead."""

import sys
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from regrow.errors import ModelError
from regrow.units.memory import extent, geometry, overlaps

_SHARDED = (
    "so each rank holds part of a unit, and units cannot be replaced there. Distribute the model by "
    "DistributedDataParallel, which keeps parameters whole; to look at units only, call find_units() before sharding."
)
_PACKED = "Attach to the model before quantising it, and quantise what was trained."


def refuse_parts(model: nn.Module) -> None:
    """Raise for a network whose parameters are not there, or are not plain tensors that hold all of each unit.

    Raises:
        ModelError: as said, with what to do instead.
    """
    kind = type(model).__name__
    if next(model.parameters(), None) is None:
        if any(hasattr(module, "_packed_params") for module in model.modules()) or any(map(_packs, model.buffers())):
            raise ModelError(f"{kind} has no parameters, since its weights were packed by quantisation. {_PACKED}")
        raise ModelError(
            f"{kind} has no parameters, so it has no units. Give the network that is trained, with its layers as "
            "attributes or in a ModuleList: those in a plain list or dict are not part of it."
        )
    fsdp = sys.modules.get("torch.distributed.fsdp")
    for name, module in model.named_modules():
        if fsdp is not None and isinstance(module, fsdp.FullyShardedDataParallel):
            raise ModelError(f"{name or 'The model'} is wrapped by FullyShardedDataParallel, {_SHARDED}")
    for name, parameter in model.named_parameters():
        if fsdp is not None and (getattr(parameter, "_fsdp_flattened", False) or name.endswith("_flat_param")):
            raise ModelError(f"{name} is part of a flat parameter of FullyShardedDataParallel, {_SHARDED}")
        if has_own_form(parameter):
            subclass = type(parameter).__name__
            if subclass == "DTensor":
                raise ModelError(f"{name} is a DTensor, as after fully_shard(), {_SHARDED}")
            raise ModelError(
                f"{name} is of type {subclass}, which holds numbers in a form of its own, as quantised tensors do, so "
                f"those of single units cannot be set. {_PACKED}"
            )


def refuse_overlaps(parameters: Mapping[str, Tensor]) -> None:
    """Raise where an element of a parameter is not its own, or not there yet.

    Raises:
        ModelError: as said, with what to do instead.
    """
    spans: dict[int, list[tuple[int, int, str]]] = {}
    for name, parameter in parameters.items():
        if isinstance(parameter, nn.parameter.UninitializedParameter):
            raise ModelError(f"{name} has no shape yet. Run the model once on data, so that its lazy layers take one.")
        if not parameter.numel() or parameter.is_meta:
            continue
        if overlaps(geometry(parameter)):
            raise ModelError(
                f"{name}, of shape {tuple(parameter.shape)} and strides {parameter.stride()}, has several elements in "
                "one place of memory, so they cannot be set one by one. Make it nn.Parameter(it.contiguous())."
            )
        start = int(parameter.storage_offset())
        spans.setdefault(parameter.untyped_storage()._cdata, []).append((start, start + extent(parameter), name))
    for owners in spans.values():
        owners.sort()
        for (_, end, first), (start, _, second) in zip(owners, owners[1:], strict=False):
            if start < end:
                raise ModelError(
                    f"{first} and {second} share memory but are two parameters, so it cannot be told which units the "
                    "elements belong to. Tie weights by using one nn.Parameter in both places."
                )


def has_own_form(tensor: Tensor) -> bool:
    """Whether a tensor is of a subclass that holds its numbers in a way of its own."""
    return bool(type(tensor).__torch_dispatch__ is not Tensor.__torch_dispatch__)


def _packs(tensor: Tensor) -> bool:
    return tensor.dtype in (torch.int8, torch.uint8) and tensor.dim() > 1
