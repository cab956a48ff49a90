"""Products with a sum: with a parameter they end units and begin new ones."""

import torch
from torch import Tensor

from regrow.units import host
from regrow.units.call import Call
from regrow.units.labels import NONE, compress, constant, core, has_units, meet, units_in, varying
from regrow.units.memory import has_memory
from regrow.units.record import Record
from regrow.units.rules.pointwise import claim_affine, join
from regrow.units.rules.registry import rule


@rule("mm", "bmm", "mv", "dot", "_sparse_mm")
def product(record: Record, call: Call) -> None:
    """A matrix product."""
    left, right = call.args
    record.write(call.out, contract(record, call, left, right).reshape(call.out.shape))


@rule("addmm", "baddbmm", "addmv", "addmm_", "baddbmm_", "_sparse_addmm")
def product_plus(record: Record, call: Call) -> None:
    """A matrix product plus a bias or another value."""
    added, left, right = call.args[:3]
    plane = contract(record, call, left, right).reshape(call.out.shape)
    if record.parameters(added):
        if has_units(plane):
            claim_affine(record, added, "bias", plane, fresh=0.0)
    else:
        plane = join(record, [plane, record.labels(added).expand(plane.shape)], call.out)
    record.write(call.out, plane)


def contract(record: Record, call: Call, left: Tensor, right: Tensor) -> Tensor:
    """Labels of a product of [batch, m, k] with [batch, k, n], of shape [batch, m, n]. Sparse ones are constants."""
    left, right = (one if has_memory(one) else torch.empty(one.shape, device="meta") for one in (left, right))
    if left.dim() == 1:
        left = left[None]
    if right.dim() == 1:
        right = right[:, None]
    if left.dim() == 2:
        left, right = left[None], right[None]
    shape = (left.size(0), left.size(1), right.size(2))
    weights = [bool(record.parameters(left)), bool(record.parameters(right))]
    if all(weights):  # learned queries, say: the weight is the one whose module is running
        weights = [record.runs_beside(left), record.runs_beside(right)]
    if weights == [True, False]:
        return _with_weight(record, call, right.mT, left.mT).mT
    if weights == [False, True]:
        return _with_weight(record, call, left, right)
    return _of_values(record, call, record.labels(left), record.labels(right), shape)


def _with_weight(record: Record, call: Call, value: Tensor, weight: Tensor) -> Tensor:
    plane = record.make(value, 2) if record.parameters(value) else record.labels(value)
    shape = (value.size(0), value.size(1), weight.size(2))
    if not value.numel():  # as of an expert that nothing in the example is sent to
        record.leak_parameter(weight, f"meets nothing in the example, in {record.where}", [])
        return constant(NONE, shape)
    if 2 not in varying(plane) and len(units_in(plane)) > 1 and not bool((core(plane) < 0).any()):
        # The sum runs over something else than units, over places for example: units pass through.
        record.cross(weight)
        return plane[:, :, :1].expand(shape)
    met = meet(plane, [1])
    record.claim_outgoing(weight, met, met.label.mT.expand(weight.shape), value)
    units = record.begin(weight, (0, 2))
    record.claim(weight, "incoming", units.expand(weight.shape))
    return units.expand(shape)


def _of_values(record: Record, call: Call, left: Tensor, right: Tensor, shape: tuple[int, ...]) -> Tensor:
    """No weight in sight: units pass if the sum does not run over them."""
    passed = []
    for plane, summed in ((left, 2), (right, 1)):
        if has_units(plane):
            met = meet(plane, [summed])
            if len(met.left):
                record.leak(
                    "product", f"{record.where} sums over units, with no parameter", units_in(plane), [call.out]
                )
            else:
                passed.append(met.label.expand(shape))
    if len(passed) > 1:
        return join(record, passed, call.out.view(shape) if call.out.numel() else call.out)
    return compress(passed[0]) if passed else constant(NONE, shape)


@rule("_grouped_mm")
def experts(record: Record, call: Call) -> None:
    """Rows [tokens, k] sorted by expert, each block with a matrix of its own from [expert, k, n]."""
    value, weight, ends = call["self"], call["mat2"], call["offs"]
    if value.dim() != 2 or weight.dim() != 3 or call["bias"] is not None or not record.parameters(weight):
        record.leak_operator(call, "is no product of rows with matrices of one parameter")
        return
    if has_units(chosen := record.labels(ends)):
        record.leak("mix", f"{record.where} picks experts by them", units_in(chosen), call.outputs)
    plane, rows, start = record.labels(value), [], 0
    for matrix, end in zip(weight, ends.tolist(), strict=True):
        units = record.make(matrix, 1)
        if end > start:
            met = meet(plane[start:end], [0])
            record.claim_outgoing(matrix, met, met.label.mT.expand(matrix.shape), value)
            rows.append(units[:1].expand(end - start, -1))
        start = end
    rows.append(constant(NONE, (value.size(0) - start, weight.size(2))))
    record.write(call.out, compress(torch.cat(rows)))


@rule("_trilinear")
def bilinear(record: Record, call: Call) -> None:
    """Every pair of inputs has a weight: [batch, i], [out, i, j], [batch, j]."""
    values, weight = (call["i1"], call["i3"]), call["i2"]
    if not record.parameters(weight) or any(record.parameters(value) for value in values):
        record.leak_operator(call, "is no product of two values with one parameter")
        return
    planes = [record.labels(value) for value in values]
    for number, plane in enumerate(planes):
        if all(map(has_units, planes)):
            record.block(units_in(plane), f"{record.where} reads it and another unit with one weight")
        elif has_units(plane):
            met = meet(plane, [0])
            read = met.label[0][:, None] if number == 0 else met.label[0]
            record.claim_outgoing(weight, met, read.expand(weight.shape), values[number])
    units = record.make(weight, 0)
    record.write(call.out, units[:, 0, 0].expand(call.out.shape))


@rule("convolution", "_convolution", "mkldnn_convolution", "cudnn_convolution", "convolution_overrideable")
def convolution(record: Record, call: Call) -> None:
    """Units are channels: [batch, channel, *places] with a weight [out, in / groups, *places], or transposed."""
    value, weight, bias, groups = call["input"], call["weight"], call["bias"], call["groups"]
    plane, out = record.labels(value), call.out
    across = 1 not in varying(plane) and len(units_in(plane)) > 1
    met = meet(plane, [dim for dim in range(plane.dim()) if dim != 1])
    channels = met.label.flatten()
    count = out.size(1)
    around = [1] * (weight.dim() - 2)
    if across and _is_product(call):  # units are places, and the sum runs over something else
        matrices = weight.flatten(1).expand(len(value), -1, -1)
        result = contract(record, call, matrices, value.flatten(2)).reshape(out.shape)
        units = None
    elif groups > 1 and groups == value.size(1) and has_units(plane):
        # Each output channel comes from one input channel: the unit passes through.
        record.units.join(met.left, met.right)
        units = record.units.find(channels).clamp(min=NONE).repeat_interleave(count // groups)
        if record.parameters(weight):
            owner = units.view(groups, -1) if call["transposed"] else units[:, None]
            record.claim(weight, "gain", owner.reshape(*owner.shape, *around).expand(weight.shape))
    elif record.parameters(weight) and not record.parameters(value):
        if call["transposed"]:
            read = channels[:, None]
            grouped = weight.unflatten(0, (groups, -1))  # [group, in, out / groups, *places]
            begun = record.begin(grouped, (0, 2))
            record.claim(grouped, "incoming", begun.expand(grouped.shape))
            units = begun.flatten()
        else:
            read = channels.view(groups, 1, -1).expand(-1, count // groups, -1).reshape(count, -1)
            units = record.begin(weight, (0,)).flatten()
            record.claim(weight, "incoming", units.view(-1, *[1] * (weight.dim() - 1)).expand(weight.shape))
        record.claim_outgoing(weight, met, read.reshape(*read.shape, *around).expand(weight.shape), value)
    else:
        for one in (plane, record.labels(weight)):
            if has_units(one):
                record.leak("product", f"{record.where} convolves with a computed kernel", units_in(one), [out])
        units = host.full((count,), NONE)
    if units is not None:
        result = units.view(1, -1, *[1] * (out.dim() - 2)).expand(out.shape)
    if bias is not None:
        if record.parameters(bias):
            if has_units(result):
                claim_affine(record, bias, "bias", result.movedim(1, -1), fresh=0.0)
        else:
            side = record.labels(bias).view(1, -1, *[1] * (out.dim() - 2)).expand(out.shape)
            result = join(record, [result, side], out)
    record.write(out, compress(result))


def _is_product(call: Call) -> bool:
    """Whether a convolution is one matrix product at every place."""
    single = not call["transposed"] and call["groups"] == 1 and call["weight"][0, 0].numel() == 1
    return single and set(call["stride"]) == {1} and not any(call["padding"])
