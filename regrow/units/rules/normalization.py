"""Norms: over a batch and places they leave units apart, over units they couple them."""

from typing import TYPE_CHECKING

from torch import Tensor

from regrow.units.labels import core, has_units, meet, units_in
from regrow.units.rules import Call, rule
from regrow.units.rules.pointwise import claim_affine

if TYPE_CHECKING:
    from regrow.units.trace import Trace


@rule(
    "native_batch_norm", "_native_batch_norm_legit", "_native_batch_norm_legit_no_training", "cudnn_batch_norm",
    "miopen_batch_norm", "_batch_norm_with_update", "_batch_norm_no_update", "_native_batch_norm_legit_functional",
)  # fmt: skip
def batch_norm(trace: "Trace", call: Call) -> None:
    """Statistics of each channel over the batch and places; gain, bias and running statistics are the unit's."""
    value = call["input"]
    plane = trace.labels(value)
    met = meet(plane, [dim for dim in range(plane.dim()) if dim != 1])
    channels = met.label.flatten()
    _couple(trace, call, plane, met.several)
    _affine(trace, call, channels)
    for name, fresh in (("running_mean", 0.0), ("running_var", 1.0)):
        buffer = call.get(name)
        if buffer is not None and has_units(channels):
            trace.claim(buffer, "statistic", channels, fresh=fresh)
    trace.write(call.outputs[0], plane)
    for statistic in call.outputs[1:]:
        if statistic.shape == channels.shape:
            trace.write(statistic, channels)


@rule("native_layer_norm", "_fused_rms_norm", "rms_norm")
def layer_norm(trace: "Trace", call: Call) -> None:
    """Statistics over the last dimensions."""
    plane = trace.labels(call["input"])
    over = range(plane.dim() - len(call["normalized_shape"]), plane.dim())
    _couple(trace, call, plane, meet(plane, list(over)).several)
    _affine(trace, call, plane)
    trace.write(call.outputs[0], plane)


@rule("native_group_norm")
def group_norm(trace: "Trace", call: Call) -> None:
    """Statistics over places and the channels of a group."""
    plane = trace.labels(call["input"])
    if not plane.numel():
        return
    sets = core(plane).expand(1, *plane.shape[1:]) if plane.stride(0) == 0 else plane
    grouped = sets.reshape(sets.size(0), call["group"], -1)
    _couple(trace, call, plane, meet(grouped, [2]).several)
    dims = [dim for dim in range(plane.dim()) if dim != 1]
    _affine(trace, call, meet(plane, dims).label.flatten())
    trace.write(call.outputs[0], plane)


def _couple(trace: "Trace", call: Call, plane: Tensor, several: Tensor) -> None:
    if bool(core(several).any()):
        trace.leak("norm", f"{trace.where} takes statistics over several units", units_in(plane), call.outputs)


def _affine(trace: "Trace", call: Call, plane: Tensor) -> None:
    if not has_units(plane):
        return
    for name, role, fresh in (("weight", "gain", 1.0), ("bias", "bias", 0.0)):
        tensor = call.get(name)
        if tensor is not None and trace.parameters(tensor):
            claim_affine(trace, tensor, role, plane, fresh)  # type: ignore[arg-type]
