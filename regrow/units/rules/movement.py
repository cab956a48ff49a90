"""Operators that move elements and compute nothing: replayed on the planes."""

from functools import partial
from typing import Any

import torch
from torch import Tensor

from regrow.units.call import Call
from regrow.units.labels import NONE, ZERO, compress, constant, has_units, meet, varying
from regrow.units.record import Record
from regrow.units.rules.choice import leak_choice, picked
from regrow.units.rules.pointwise import join
from regrow.units.rules.registry import rule

EVERYTHING_STAYS = (
    "alias",
    "clone",
    "contiguous",
    "detach",
    "detach_",
    "lift_fresh",
    "lift_fresh_copy",
    "_to_copy",
    "lift",
    "_conj",
    "_neg_view",
    "resolve_conj",
    "resolve_neg",
)


@rule(*EVERYTHING_STAYS)
def same(record: Record, call: Call) -> None:
    """The same elements in the same places, perhaps in another layout or type."""
    source = call.inputs[0]
    record.ignore(source)
    record.place(call.out, lambda: record.labels(source), lambda: record.addresses(source), [source])
    if call.out.untyped_storage()._cdata != source.untyped_storage()._cdata:
        record.note_copy(call.out, source)


@rule("view", "_unsafe_view", "_reshape_alias", "reshape")
def reshape(record: Record, call: Call) -> None:
    """The same elements in the same order under another shape."""
    source, shape = call["self"], call.out.shape
    if call.operator is torch.ops.aten.view.dtype:
        record.leak_operator(call, "reads the same memory as another type")
        return
    record.ignore(source)
    record.place(
        call.out,
        lambda: _reshape(record.labels(source), shape),
        lambda: record.addresses(source).reshape(shape),
        [source],
    )
    if call.out.untyped_storage()._cdata != source.untyped_storage()._cdata:
        record.note_copy(call.out, source)


def _reshape(plane: Tensor, shape: torch.Size) -> Tensor:
    """Reshape without spelling out leading dimensions that are constant, such as the batch."""
    if plane.numel() and plane.dim() and shape and plane.size(0) == shape[0] and plane.stride(0) == 0:
        return _reshape(plane[0], shape[1:]).expand(shape)
    return plane.reshape(shape)


@rule(
    "t", "transpose", "permute", "unsqueeze", "squeeze", "expand", "slice", "select", "narrow", "diagonal", "unfold",
    "movedim", "flip", "roll", "repeat", "split", "split_with_sizes", "unbind", "chunk", "tensor_split", "unsafe_split",
    "unsafe_split_with_sizes", "unsafe_chunk", "t_", "transpose_", "squeeze_", "unsqueeze_", "cat", "stack",
    "pixel_shuffle", "pixel_unshuffle", "channel_shuffle", "reflection_pad1d", "reflection_pad2d", "reflection_pad3d",
    "replication_pad1d", "replication_pad2d", "replication_pad3d", "index_select", "index", "gather", "take_along_dim",
    "rot90", "select_copy", "slice_copy", "unfold_copy",
)  # fmt: skip
def move(record: Record, call: Call) -> None:
    """Replay the operator itself on the planes of what is moved."""
    moved = _moved(call)
    if not any(record.knows(tensor) for tensor in call.inputs):
        return
    indices = [tensor for tensor in call.inputs if not any(tensor is one for one in moved)]
    for index in indices:
        if index.dtype == torch.bool:
            record.leave(index, record.where, "makes a shape of its values")
    chosen, dims = picked(call)
    if leak_choice(record, call, chosen, moved, dims):
        record.write(call.out, constant(NONE, call.out.shape))
        return
    made = _tokens(record, call, moved)
    planes = [made.get(number, record.labels(one)) for number, one in enumerate(moved)]
    try:
        labels = _replay(call, moved, planes, NONE)
        here = {one.untyped_storage()._cdata for one in moved}
        copied = any(out.untyped_storage()._cdata not in here for out in call.outputs)
        known = copied and any(record.owners(one) for one in moved)
        addresses = _replay(call, moved, [record.addresses(one) for one in moved], NONE) if known else None
    except (RuntimeError, NotImplementedError, TypeError) as error:
        record.leak_operator(call, f"cannot be repeated on labels ({error})")
        return
    record.ignore(*moved)
    rest = [one for number, one in enumerate(moved) if number not in made]
    for number, out in enumerate(call.outputs):
        found = None if addresses is None else partial(compress, addresses[number])
        record.place(out, partial(compress, labels[number]), found, rest)


@rule("repeat_interleave")
def repeat_each(record: Record, call: Call) -> None:
    """Each element several times, or the indices that do it: how often may come with the data, and makes the shape."""
    if isinstance(call["repeats"], Tensor):
        record.leave(call["repeats"], record.where, "makes a shape of its values")
    if call.get("self") is None:
        record.write(call.out, constant(NONE, call.out.shape))
    else:
        move(record, call)


def _tokens(record: Record, call: Call, moved: list[Tensor]) -> dict[int, Tensor]:
    """Labels of parameters that are put beside activations along another dimension than theirs, as class tokens are.
    They make the same units.
    """
    if call.name != "cat":
        return {}
    weights = {number: one for number, one in enumerate(moved) if record.parameters(one)}
    planes = [record.labels(one) for number, one in enumerate(moved) if number not in weights]
    dims = {varying(plane) for plane in planes if has_units(plane)}
    if len(dims) != 1 or len(along := dims.pop()) != 1 or along[0] == call["dim"] % moved[0].dim():
        return {}
    made = {number: record.make(one, along[0]) for number, one in weights.items()}
    line = _line(next(plane for plane in planes if has_units(plane)), along[0])
    for plane in made.values():
        record.units.join(line[line >= 0], _line(plane, along[0])[line >= 0])
    return made


def _line(plane: Tensor, dim: int) -> Tensor:
    return plane.movedim(dim, -1).flatten(end_dim=-2)[0] if plane.dim() > 1 else plane


@rule("constant_pad_nd")
def pad(record: Record, call: Call) -> None:
    """Padding brings known zeros, or a number."""
    source = call["self"]
    fill = ZERO if call["value"] == 0 else NONE
    record.ignore(source)
    plane = torch.ops.aten.constant_pad_nd(record.labels(source), call["pad"], fill)
    addresses = (
        (lambda: torch.ops.aten.constant_pad_nd(record.addresses(source), call["pad"], NONE))
        if record.owners(source)
        else None
    )
    record.place(call.out, lambda: compress(plane), addresses, [source])


@rule("im2col")
def patches(record: Record, call: Call) -> None:
    """Copies of patches, zeros around the edge."""
    source = call["self"]
    # The operator knows only floating point, and fills with 0.
    moved = torch.ops.aten.im2col((record.labels(source) - ZERO).double(), *call.args[1:], **call.kwargs)
    record.write(call.out, compress(moved.long() + ZERO))


@rule("as_strided", "as_strided_")
def as_strided(record: Record, call: Call) -> None:
    """A view whose labels follow from where it lies."""
    record.ignore(call["self"])


@rule("view_as_complex", "view_as_real")
def complex_view(record: Record, call: Call) -> None:
    """Pairs of numbers as one, which makes one unit of those of a pair, or one as two."""
    pairs = record.labels(call["self"])
    if call.name == "view_as_complex":
        met = meet(pairs, [pairs.dim() - 1])
        record.units.join(met.left, met.right)


@rule("copy_")
def copy(record: Record, call: Call) -> None:
    """Written over with the elements of another."""
    source, target = call["src"], call["self"]
    record.ignore(target)
    record.write(target, record.labels(source).expand(target.shape))


@rule("index_put_", "slice_scatter", "select_scatter", "index_put")
def put(record: Record, call: Call) -> None:
    """Some elements replaced, others kept."""
    target, source = call["self"], call.get("values", call.get("src"))
    if call.get("accumulate"):
        record.leak_operator(call, "adds to elements in place")
        return
    indices = [index for index in call.get("indices", ()) if index is not None]
    if len(indices) == 1 and indices[0].dtype == torch.bool and indices[0].shape == target.shape == call.out.shape:
        if source.numel() == 1:  # one number where a mask is set, as relu can be written
            values = [record.labels(one).expand(target.shape) for one in (target, indices[0], source)]
            record.write(call.out, join(record, values, call.out))
            return
    chosen, dims = picked(call)
    if leak_choice(record, call, chosen, [target], dims):
        record.leak_operator(call, "puts values in the place of one unit or another")
        return
    labels = _replay(call, [target, source], [record.labels(target).clone(), record.labels(source)], NONE)
    record.write(call.out, compress(labels[0]))


def _moved(call: Call) -> list[Tensor]:
    first = call.args[0] if call.args else call.get("self", call.get("tensors"))
    return list(first) if isinstance(first, list | tuple) else [first]


def _replay(call: Call, moved: list[Tensor], planes: list[Tensor], fill: int) -> list[Tensor]:
    """Run the operator on planes in the place of what is moved. Indices come along, on the host."""

    def swap(value: Any) -> Any:
        for one, plane in zip(moved, planes, strict=True):
            if value is one:
                return plane
        if isinstance(value, Tensor):
            return value.cpu()
        if isinstance(value, list | tuple):
            return type(value)(swap(item) for item in value)
        return value

    operator = getattr(torch.ops.aten, call.name.removesuffix("_")) if call.name in _OUT_OF_PLACE else call.operator
    result = operator(*(swap(arg) for arg in call.args), **{key: swap(arg) for key, arg in call.kwargs.items()})
    return list(result) if isinstance(result, list | tuple) else [result]


_OUT_OF_PLACE = ("t_", "transpose_", "squeeze_", "unsqueeze_", "index_put_")
