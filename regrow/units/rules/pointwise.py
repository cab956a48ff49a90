"""Elementwise operators: what meets in one element becomes one unit."""

import torch
from torch import Tensor

from regrow.units.call import Call
from regrow.units.graph import Role
from regrow.units.labels import (
    NONE,
    ZERO,
    align,
    compress,
    constant,
    core,
    fill_zeros,
    has_units,
    meet,
    units_in,
    varying,
    without_zeros,
)
from regrow.units.record import Record
from regrow.units.rules.registry import rule

_ADDITIVE = ("add", "sub", "rsub")
_ZERO_AT_ZERO = (
    "mul",
    "neg",
    "relu",
    "abs",
    "tanh",
    "sin",
    "sqrt",
    "square",
    "sign",
    "leaky_relu",
    "gelu",
    "silu",
    "elu",
)


@rule(
    "hardswish", "hardswish_", "log_sigmoid_forward", "rrelu_with_noise", "rrelu_with_noise_", "native_dropout",
    "masked_fill", "masked_fill_", "where", "_prelu_kernel", "tril", "triu", "tril_", "triu_", "isnan", "isinf",
    "complex", "polar",
)  # fmt: skip
def pointwise(record: Record, call: Call) -> None:
    """Join the units that meet in an element; a parameter that meets units is their bias or gain."""
    if not any(record.knows(tensor) for tensor in call.inputs):
        return
    out = call.outputs[0]
    weights = [tensor for tensor in call.inputs if record.parameters(tensor) or record.altered(tensor)]
    values = [tensor for tensor in call.inputs if not any(tensor is weight for weight in weights)]
    repeated = [_repeated(value, out) for value in values]
    plane = join(record, [record.labels(value).expand(out.shape) for value in values], out, repeated)
    name = call.name.removesuffix("_")
    if has_units(plane):
        if name in ("mul", "div", "sub", "rsub") and len(values) == 2:
            for value, statistic in (values, values[::-1]):
                if not has_units(record.labels(statistic)):
                    record.normalise(value, statistic, units_in(plane))
        for weight in weights:
            role: Role = "bias" if name in _ADDITIVE and not record.altered(weight) else "gain"
            claim_affine(record, weight, role, plane, fresh=0.0 if role == "bias" else None)
            if role == "bias":
                plane = fill_zeros(plane, _spread(plane, weight))
    elif name in ("add", "sub") and len(weights) == 2 and not call.written and all(map(record.parameters, weights)):
        record.write_sum(out, weights)
    elif len(weights) == 1:
        _keep(record, call, weights[0], [record.labels(value) for value in values])
    if weights or not _keeps_zero(name, call):
        plane = without_zeros(plane)
    for one in call.outputs:
        record.write(one, plane.expand(one.shape) if one.shape == out.shape else constant(NONE, one.shape))


def _keeps_zero(name: str, call: Call) -> bool:
    if name in _ADDITIVE:
        return all(isinstance(value, Tensor) for value in call.args[:2])
    return name in _ZERO_AT_ZERO


def _keep(record: Record, call: Call, weight: Tensor, others: list[Tensor]) -> None:
    """A parameter times constants, such as a pruning mask, is still that parameter, element by element. Any other
    function of its elements can be a gain.
    """
    out, name = call.outputs[0], call.name
    if len(call.outputs) > 1 or call.written or not out.is_floating_point():
        return
    scaled = name in ("mul", "neg", "tril", "triu") or (name == "div" and call.args[0] is weight)
    same = name == "add" and len(others) == 1 and bool((core(others[0]) == ZERO).all())
    altered = bool(record.altered(weight)) or out.shape != weight.shape or not (scaled or same)
    record.leak_parameter(weight, f"is used as a value by {record.where}", [])  # if nothing comes of it
    record.write_addresses(out, record.addresses(weight).expand(out.shape), altered)


def join(record: Record, planes: list[Tensor], out: Tensor, repeated: list[list[int]] | None = None) -> Tensor:
    """Make one unit of those that meet in an element.

    If one number meets several units of another value, as a gate for all of them does, the result has the labels of
    the more numerous, and the others are a mix.

    Args:
        record: of the forward.
        planes: labels of each value, of the result's shape.
        out: the result.
        repeated: for each plane the dimensions along which its value is the same number; by default all along which
            its labels are the same.
    """
    if not planes:
        return constant(NONE, out.shape)
    planes = [compress(plane) for plane in planes]
    main = max(planes, key=lambda plane: len(units_in(plane)))
    for number, plane in enumerate(planes):
        if varying(plane) == varying(main) or not has_units(plane):
            continue
        same = [dim for dim in range(plane.dim()) if dim not in varying(plane)]
        dims = same if repeated is None else repeated[number]
        if len(meet(torch.where(core(plane) >= 0, core(main), NONE).expand(out.shape), dims).left):
            record.leak("mix", f"{record.where} combines each unit with several others", units_in(plane), [out])
            planes[number] = constant(NONE, out.shape)
    met = meet(align(planes, out.shape), [out.dim()])
    record.units.join(met.left, met.right)
    return record.units.find(compress(met.label[..., 0]))


def _repeated(value: Tensor, out: Tensor) -> list[int]:
    ahead = out.dim() - value.dim()
    return [
        dim
        for dim in range(out.dim())
        if dim < ahead or value.size(dim - ahead) != out.size(dim) or value.stride(dim - ahead) == 0
    ]


def claim_affine(record: Record, weight: Tensor, role: Role, plane: Tensor, fresh: float | None) -> None:
    """Claim a parameter that is added to, or multiplies, a value with this plane.

    An element that meets several units, or a unit and something else, cannot be reset with one of them: nothing is
    claimed then.
    """
    offset = plane.dim() - weight.dim()
    met = meet(plane, _spread(plane, weight))
    if not weight.dim() or bool(core(met.several).any()):
        record.leak_parameter(weight, f"is shared by several units in {record.where}")
        return
    label = compress((met.label.reshape(met.label.shape[offset:]) if offset else met.label).expand(weight.shape))
    if role == "bias" and any(size > 1 and dim not in varying(label) for dim, size in enumerate(weight.shape[:-1])):
        if record.is_frozen(weight):  # sines and cosines
            record.leak_parameter(weight, f"does not require grad and is only added, in {record.where}", [])
            return
        record.claim(weight, "incoming", label)  # positions: each unit has many, which are as good as weights
    else:
        record.claim(weight, role, label, fresh=fresh)


def _spread(plane: Tensor, weight: Tensor) -> list[int]:
    """Dimensions of a plane along which a parameter is the same."""
    offset = plane.dim() - weight.dim()
    return [
        dim for dim in range(plane.dim()) if dim < offset or (weight.size(dim - offset) == 1 and plane.size(dim) != 1)
    ]


@rule("glu")
def glu(record: Record, call: Call) -> None:
    """One half gates the other."""
    halves = record.labels(call["self"]).chunk(2, call["dim"])
    record.write(call.out, join(record, [without_zeros(half) for half in halves], call.out))
