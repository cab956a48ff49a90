"""New values that hold nothing of any unit."""

from typing import TYPE_CHECKING

from regrow.units.labels import NONE, ZERO, constant
from regrow.units.rules import Call, rule

if TYPE_CHECKING:
    from regrow.units.trace import Trace


@rule("zeros", "zeros_like", "new_zeros", "zero_")
def zeros(trace: "Trace", call: Call) -> None:
    """Known zeros: what a weight multiplies there says nothing about it."""
    trace.ignore(*call.inputs)
    trace.write(call.out, constant(ZERO, call.out.shape))


@rule("fill_")
def fill(trace: "Trace", call: Call) -> None:
    """One number everywhere."""
    value = call["value"]
    if isinstance(value, int | float):
        trace.ignore(call["self"])
        trace.write(call.out, constant(ZERO if value == 0 else NONE, call.out.shape))
    else:
        trace.write(call.out, trace.labels(value).expand(call.out.shape))


@rule(
    "empty", "empty_like", "new_empty", "empty_strided", "new_empty_strided", "empty_permuted",
    "ones", "ones_like", "new_ones", "full", "full_like", "new_full", "arange", "linspace", "eye", "scalar_tensor",
    "rand", "rand_like", "randn", "randn_like", "randint", "randint_like", "randperm",
    "normal_", "uniform_", "exponential_", "random_", "cauchy_", "log_normal_", "geometric_",
)  # fmt: skip
def nothing(trace: "Trace", call: Call) -> None:
    """Constants and random numbers; arguments give shape and type only."""
    trace.ignore(*call.inputs)
    trace.write(call.out, constant(NONE, call.out.shape))


@rule("bernoulli", "bernoulli_")
def bernoulli(trace: "Trace", call: Call) -> None:
    """Coin flips; they hold what their probabilities hold."""
    chances = call.get("p") if call.name == "bernoulli_" else call["self"]
    if hasattr(chances, "shape"):
        trace.write(call.out, trace.labels(chances).expand(call.out.shape))
    else:
        nothing(trace, call)


@rule(
    "sym_size",
    "sym_stride",
    "sym_numel",
    "sym_storage_offset",
    "is_same_size",
    "set_data",
    "_has_compatible_shallow_copy_type",
)
def shape_only(trace: "Trace", call: Call) -> None:
    """Reads no value."""
    trace.ignore(*call.inputs)
