"""Sums, means, maxima and pooling: units pass where a result comes from one unit only."""

from torch import Tensor

from regrow.units.call import Call
from regrow.units.labels import NONE, compress, constant, core, has_units, meet, units_in, varying, without_zeros
from regrow.units.record import Record
from regrow.units.rules.pointwise import join
from regrow.units.rules.registry import rule

# Of these norms are made.
_STATISTICS = ("mean", "var", "std", "var_mean", "std_mean", "norm", "linalg_vector_norm")


@rule(
    "sum", "mean", "amax", "amin", "max", "min", "var", "std", "var_mean", "std_mean", "prod", "any", "all", "argmax",
    "argmin", "norm", "linalg_vector_norm", "logsumexp", "median", "aminmax", "count_nonzero", "nansum", "_is_all_true",
    "_is_any_true",
)  # fmt: skip
def reduce(record: Record, call: Call) -> None:
    """A value per position of the dimensions that stay."""
    source = call["self"]
    if isinstance(call.get("other"), Tensor):  # torch.max(a, b)
        record.leak_operator(call, "takes one of two values")
        return
    plane = record.labels(source)
    dims = _dims(call.get("dim"), plane.dim())
    met = meet(plane, dims)
    label = met.label
    if len(met.left):
        if len(units_in(label)) > 1:  # several results of several units each: maxout, or a sum by groups
            record.units.join(met.left, met.right)
            label = record.units.find(label)
        else:
            if call.name in _STATISTICS:
                record.leak_statistic(units_in(plane), call.outputs)
            else:
                record.leak("mix", f"{record.where} makes one value of all units", units_in(plane), call.outputs)
            label = constant(NONE, label.shape)
    label = without_zeros(label)
    for out in call.outputs:
        if out.dim() == label.dim():
            record.write(out, compress(label))
        else:
            kept = label
            for dim in sorted(dims, reverse=True):
                kept = kept.select(dim, 0)
            record.write(out, compress(kept))


def _dims(dim: int | list[int] | None, total: int) -> list[int]:
    dims = list(range(total)) if dim is None or dim == [] else [dim] if isinstance(dim, int) else list(dim)
    return [one % total for one in dims] if total else []


@rule(
    "_softmax", "_safe_softmax", "_log_softmax", "cumsum", "cumprod", "logcumsumexp", "sort", "topk", "cummax",
    "cummin", "_fft_c2c", "_fft_r2c", "_fft_c2r",
)  # fmt: skip
def along(record: Record, call: Call) -> None:
    """Values along one dimension, or a few, have an effect on each other."""
    plane = record.labels(call["self"])
    dims = _dims(call["dim"], plane.dim())
    if has_units(plane) and any(dim in varying(plane) for dim in dims):
        record.leak("mix", f"{record.where} makes units depend on each other", units_in(plane), call.outputs)
        _forget(record, call)
        return
    for out in call.outputs:
        sizes = [1 if place in dims else size for place, size in enumerate(plane.shape)]
        record.write(out, without_zeros(core(plane).expand(sizes).expand(out.shape)))


@rule(
    "max_pool1d", "max_pool2d_with_indices", "max_pool3d_with_indices", "max_pool2d", "max_pool3d", "avg_pool1d",
    "avg_pool2d", "avg_pool3d", "_adaptive_avg_pool2d", "_adaptive_avg_pool3d", "adaptive_avg_pool1d",
    "adaptive_max_pool2d", "adaptive_max_pool3d", "mkldnn_max_pool2d", "fractional_max_pool2d",
)  # fmt: skip
def pool(record: Record, call: Call) -> None:
    """Windows over the places behind batch and channel."""
    _by_place(record, call, record.labels(call.inputs[0]), first=-_places(call))


@rule(
    "upsample_nearest1d", "upsample_nearest2d", "upsample_nearest3d", "upsample_linear1d", "upsample_bilinear2d",
    "upsample_trilinear3d", "upsample_bicubic2d", "_upsample_nearest_exact1d", "_upsample_nearest_exact2d",
    "_upsample_bilinear2d_aa", "_upsample_bicubic2d_aa",
)  # fmt: skip
def upsample(record: Record, call: Call) -> None:
    """New places from old ones."""
    _by_place(record, call, record.labels(call.inputs[0]), first=-_places(call))


@rule("grid_sampler_2d", "grid_sampler_3d", "cudnn_grid_sampler")
def sample(record: Record, call: Call) -> None:
    """Values between places, at places that come with the data."""
    value, grid = call.inputs
    if has_units(plane := record.labels(grid)):
        record.leak("mix", f"{record.where} picks places by their values", units_in(plane), call.outputs)
    _by_place(record, call, record.labels(value), first=2 - value.dim())


@rule("max_unpool2d", "max_unpool3d")
def unpool(record: Record, call: Call) -> None:
    """Values put where the maxima of the same channels of another value were."""
    plane = join(record, [record.labels(one) for one in call.inputs], call.inputs[0])
    _by_place(record, call, plane, first=-_places(call))


@rule("col2im")
def fold(record: Record, call: Call) -> None:
    """Patches put back and added up where they overlap: those of one channel become one unit."""
    source, out = call["self"], call.out
    plane = record.labels(source)
    meeting = plane.unflatten(-2, (out.size(-3), -1))
    met = meet(meeting, [meeting.dim() - 2, meeting.dim() - 1])
    if len(core(met.label).unique()) > 1:
        record.units.join(met.left, met.right)
        record.write(out, compress(record.units.find(without_zeros(met.label)).expand(out.shape)))
    elif len(met.left):
        record.leak("mix", f"{record.where} makes one value of all units", units_in(plane), [out])
    else:
        record.write(out, without_zeros(met.label).expand(out.shape))


def _forget(record: Record, call: Call) -> None:
    """Results have no labels, nor those of what lay there before, if they are written into it (`out=`)."""
    for out in call.outputs:
        record.write(out, constant(NONE, out.shape))


def _places(call: Call) -> int:
    """Number of dimensions of places, as the operator's name says."""
    return next(number for number in (1, 2, 3) if f"{number}d" in call.name)


def _by_place(record: Record, call: Call, plane: Tensor, first: int) -> None:
    if any(dim >= plane.dim() + first for dim in varying(plane)) and has_units(plane):
        record.leak("mix", f"{record.where} mixes units that lie along its places", units_in(plane), call.outputs)
        _forget(record, call)
        return
    narrow = plane
    for dim in range(plane.dim() + first, plane.dim()):
        narrow = narrow.narrow(dim, 0, 1)
    for out in call.outputs:
        record.write(out, without_zeros(narrow.expand(out.shape)))
