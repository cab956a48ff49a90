"""Norms: over a batch and places they leave units apart, over units they couple them."""

from torch import Tensor

from regrow.networks.layers import online_normalization as online_normalization  # has the operator
from regrow.units.call import Call
from regrow.units.labels import NONE, core, fill_zeros, has_units, meet, units_in
from regrow.units.record import Record
from regrow.units.rules.pointwise import claim_affine
from regrow.units.rules.registry import rule


@rule(
    "native_batch_norm", "_native_batch_norm_legit", "_native_batch_norm_legit_no_training", "cudnn_batch_norm",
    "miopen_batch_norm", "_batch_norm_with_update", "_batch_norm_no_update", "_native_batch_norm_legit_functional",
    "regrow::normalize_online",
)  # fmt: skip
def batch_norm(record: Record, call: Call) -> None:
    """Statistics of each channel over the batch and places; gain, bias and running statistics are the unit's."""
    plane = record.labels(call["input"])
    others = [dim for dim in range(plane.dim()) if dim != 1]
    plane = fill_zeros(plane, others)
    met = meet(plane, others)
    if len(units_in(met.label)) > 1:  # places of one channel made apart, as by a linear layer, become one unit
        record.units.join(met.left, met.right)
        plane = record.units.find(plane)
        met = meet(plane, others)
    channels = met.label.flatten()
    _couple(record, call, plane, met.several)
    _affine(record, call, plane.movedim(1, -1))
    for name, fresh in _STATISTICS.items():
        buffer = call.get(name)
        if buffer is not None and has_units(channels):
            own = channels.masked_fill(met.several.flatten(), NONE)  # not what several units share
            record.claim(buffer, "statistic", own, fresh=fresh)
    record.write(call.outputs[0], plane)
    for statistic in call.outputs[1:]:
        if statistic.shape[-1:] == channels.shape:
            record.write(statistic, channels.expand(statistic.shape))


_STATISTICS = {"running_mean": 0.0, "running_var": 1.0, "control_output": 0.0, "control_mean": 0.0}  # fresh values


@rule("native_layer_norm", "_fused_rms_norm", "rms_norm")
def layer_norm(record: Record, call: Call) -> None:
    """Statistics over the last dimensions."""
    value, count = call["input"], len(call["normalized_shape"])
    # Learned queries may begin with a norm.
    plane = record.make(value, -1) if record.parameters(value) and count == 1 else record.labels(value)
    ahead = plane.dim() - count
    plane, over = fill_zeros(plane, range(ahead)), range(ahead, plane.dim())
    _couple(record, call, plane, meet(plane, list(over)).several)
    _affine(record, call, plane)
    record.write(call.outputs[0], plane)


@rule("native_group_norm")
def group_norm(record: Record, call: Call) -> None:
    """Statistics over places and the channels of a group."""
    plane = record.labels(call["input"])
    if not plane.numel():
        return
    plane = fill_zeros(plane, [dim for dim in range(plane.dim()) if dim != 1])
    sets = core(plane).expand(1, *plane.shape[1:]) if plane.stride(0) == 0 else plane
    grouped = sets.reshape(sets.size(0), call["group"], -1)
    _couple(record, call, plane, meet(grouped, [2]).several)
    _affine(record, call, plane.movedim(1, -1))
    record.write(call.outputs[0], plane)


def _couple(record: Record, call: Call, plane: Tensor, several: Tensor) -> None:
    if bool(core(several).any()):
        record.leak("norm", f"{record.where} takes statistics over several units", units_in(plane), call.outputs)


def _affine(record: Record, call: Call, plane: Tensor) -> None:
    if not has_units(plane):
        return
    for name, role, fresh in (("weight", "gain", 1.0), ("bias", "bias", 0.0)):
        tensor = call.get(name)
        if tensor is not None and (record.parameters(tensor) or record.altered(tensor)):
            claim_affine(record, tensor, role, plane, fresh)  # type: ignore[arg-type]
