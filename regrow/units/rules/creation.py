"""New values that hold nothing of any unit."""

from regrow.units.call import Call
from regrow.units.labels import NONE, ZERO, constant
from regrow.units.record import Record
from regrow.units.rules.pointwise import join
from regrow.units.rules.registry import rule


@rule("zeros", "zeros_like", "new_zeros", "zero_")
def zeros(record: Record, call: Call) -> None:
    """Known zeros: what a weight multiplies there says nothing about it."""
    record.ignore(*call.inputs)
    record.write(call.out, constant(ZERO, call.out.shape))


@rule("full", "full_like", "new_full")
def full(record: Record, call: Call) -> None:
    """One number everywhere."""
    record.ignore(*call.inputs)
    record.write(call.out, constant(ZERO if call["fill_value"] == 0 else NONE, call.out.shape))


@rule("fill_")
def fill(record: Record, call: Call) -> None:
    """One number everywhere."""
    value = call["value"]
    if isinstance(value, int | float):
        record.ignore(call["self"])
        record.write(call.out, constant(ZERO if value == 0 else NONE, call.out.shape))
    else:
        record.write(call.out, record.labels(value).expand(call.out.shape))


@rule(
    "empty", "empty_like", "new_empty", "empty_strided", "new_empty_strided", "empty_permuted",
    "ones", "ones_like", "new_ones", "arange", "eye", "scalar_tensor",
    "rand", "rand_like", "randn", "randn_like", "randint", "randint_like", "randperm",
    "normal_", "uniform_", "exponential_", "random_", "cauchy_", "log_normal_", "geometric_",
)  # fmt: skip
def nothing(record: Record, call: Call) -> None:
    """Constants and random numbers; arguments give shape and type only."""
    record.ignore(*call.inputs)
    record.write(call.out, constant(NONE, call.out.shape))


@rule("linspace", "logspace")
def line(record: Record, call: Call) -> None:
    """Numbers from one to another; the ends may be values."""
    record.write(call.out, join(record, [record.labels(end).expand(call.out.shape) for end in call.inputs], call.out))


@rule("bernoulli", "bernoulli_")
def bernoulli(record: Record, call: Call) -> None:
    """Coin flips; they hold what their probabilities hold."""
    chances = call.get("p") if call.name == "bernoulli_" else call["self"]
    if hasattr(chances, "shape"):
        record.write(call.out, record.labels(chances).expand(call.out.shape))
    else:
        nothing(record, call)


@rule(
    "sym_size",
    "sym_stride",
    "sym_numel",
    "sym_storage_offset",
    "is_same_size",
    "_has_same_storage_numel",
    "set_data",
    "_fused_sdp_choice",
    "_has_compatible_shallow_copy_type",
)
def shape_only(record: Record, call: Call) -> None:
    """Reads no value."""
    record.ignore(*call.inputs)
