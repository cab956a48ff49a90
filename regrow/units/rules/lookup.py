"""Rows picked or collected by indices that come with the data."""

from regrow.units.call import Call
from regrow.units.labels import NONE, compress, constant, core, has_units, meet, varying, without_zeros
from regrow.units.record import Record
from regrow.units.rules.choice import leak_choice
from regrow.units.rules.pointwise import join
from regrow.units.rules.registry import rule


@rule("embedding", "_embedding_bag", "_embedding_bag_forward_only")
def embedding(record: Record, call: Call) -> None:
    """Rows of a table, or sums of rows: its columns make units. The row for padding is nobody's and stays."""
    weight = call["weight"]
    leak_choice(record, call, [call["indices"], call.get("per_sample_weights")])
    if record.parameters(weight) and record.is_frozen(weight):
        record.leak_parameter(weight, f"does not require grad and is only looked up, in {record.where}", [])
        units = constant(NONE, (1, weight.size(1)))
    elif record.parameters(weight):
        units = record.begin(weight, (1,))
        plane = units.expand(weight.shape)
        if call["padding_idx"] >= 0:
            plane = plane.clone()
            plane[call["padding_idx"]] = NONE
        record.claim(weight, "incoming", plane)
    else:
        met = meet(record.labels(weight), [0])
        if len(met.left):
            record.leak_operator(call, "picks from rows of other units")
            return
        record.ignore(weight)
        units = met.label
    out = call.outputs[0]
    record.write(out, compress(without_zeros(units[0].expand(out.shape))))
    for number in call.outputs[1:]:
        record.write(number, constant(NONE, number.shape))


@rule("index_add", "index_add_", "scatter_add", "scatter_add_", "scatter_reduce", "scatter_reduce_", "index_reduce")
def collect(record: Record, call: Call) -> None:
    """Rows are added to (or otherwise combined with) rows of another value: units pass if they lie across."""
    target, source = call["self"], call.get("source", call.get("src"))
    dim = call["dim"] % max(target.dim(), 1)
    leak_choice(record, call, [call["index"]])
    planes = [record.labels(target), record.labels(source)]
    others = [axis for axis in range(target.dim()) if axis != dim]
    whole = all(source.size(axis) == target.size(axis) for axis in others) and call["index"].dim() in (1, target.dim())
    if not whole or any(dim in varying(plane) and has_units(plane) for plane in planes):
        record.leak_operator(call, "collects values of several units")
        return
    shape = call.out.shape
    rows = [core(plane.narrow(dim, 0, min(plane.size(dim), 1))) for plane in planes if plane.numel()]
    record.write(call.out, join(record, [without_zeros(row.expand(shape)) for row in rows], call.out))


@rule("_pack_padded_sequence")
def pack(record: Record, call: Call) -> None:
    """The steps of sequences that are there, one after the other."""
    plane = record.labels(call["input"])
    if plane.dim() != 3 or {0, 1} & set(varying(plane)):
        record.leak_operator(call, "picks elements of several units")
        return
    record.write(call.outputs[0], plane[0, 0].expand(call.outputs[0].shape))


@rule("nonzero", "masked_select", "_unique", "_unique2", "unique_dim", "unique_consecutive", "bincount")
def of_some_length(record: Record, call: Call) -> None:
    """As many results as the values make, and a shape can be read without an operator."""
    for source in call.inputs:
        record.leave(source, record.where, "makes a shape of its values")
    for out in call.outputs:
        record.write(out, constant(NONE, out.shape))
