"""The one line."""

import gc
import weakref
from collections.abc import Callable, Sequence
from itertools import count
from numbers import Integral
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn
from torch.optim import Optimizer

from regrow.attachment.attachment import Attachment
from regrow.attachment.clock import Time
from regrow.attachment.refusals import refuse_frozen, refuse_one_of_many, refuse_several
from regrow.attachment.service import Choice, Request
from regrow.attachment.unit_worker import UnitWorker
from regrow.errors import ConfigError, ModelError, StateError
from regrow.methods import Method, WeightMethod, method_named
from regrow.units.initial import Init
from regrow.units.refusals import refuse_parts
from regrow.units.taps import sweep
from regrow.units.wrappers import forget_compiled, without_wrapper

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

# Live attachments by model, to notice a second one of the same kind. Weak, so that nothing is kept alive.
_live: "weakref.WeakKeyDictionary[nn.Module, list[weakref.ref[Attachment]]]" = weakref.WeakKeyDictionary()


def attach(
    model: nn.Module,
    optimizer: Optimizer | None,
    method: Method | str | Sequence[Method | str],
    *,
    example: Any = None,
    include: Choice | Sequence[Choice] | None = None,
    exclude: Choice | Sequence[Choice] = (),
    include_coupled: bool = False,
    init: Init = None,
    seed: int = 0,
    strict: bool = False,
    time: Time = "steps",
    process_group: "ProcessGroup | None" = None,
) -> Attachment:
    """Put a method to work. The training loop stays as it is.

    Served are hidden units whose removal disturbs nothing else: groups that are free, or shared by several
    layers that are then re-drawn together, and, as is usual practice though not function-preserving, units of
    a single layer that a norm couples. `print` the result to see every group, and why others are left alone.

    Where units are coupled, a replacement disturbs the others: the new incoming weights go into a norm's statistics
    although the outgoing weights are 0. From `python -m benchmarks.coupling`, as a share of how far the output moves
    when the unit is removed altogether, the largest of 8 units, at widths 32, 128, 512: perceptron with layer norm
    0.41, 0.27, 0.14; convolution with group norm of 8 channels 1.2, 0.6, 1.0, so that small groups are best left out by
    `exclude=lambda group: group.status == "coupled"`; stream of a transformer 0.10, 0.10, 0.06 with norms first, and
    0.5, 0.6, 1.6 with norms last. For free and shared units it is exactly 0, as `regrow.verify` shows.

    A group waits while any of its parameters is frozen. A step that a GradScaler skips is none. In a step with a
    closure, gradients are read and edited after its first call; an optimizer that calls it again, such as LBFGS, is
    refused then for methods that edit gradients.

    In a data-parallel run every rank attaches, with the same methods and seed, and weights stay bit-identical. What
    each has seen of activations is put together when something is due, in one `all_reduce` or two, and never between;
    buffers, such as running statistics, are left to DistributedDataParallel. A checkpoint has what the rank that saves
    it has seen since.

    Args:
        model: any network. Wrappers of DDP and `torch.compile` are looked through. Compiled, it stays one graph without
            a break, but for a first forward that finds units and a few methods (docs/architecture.md). What has been
            compiled is compiled anew at its next call, so attach before a long warm-up.
        optimizer: any torch optimizer that holds its parameters; None for manual mode, in which you call
            `step()` of the result after each update of your own.
        method: a method, its name, or several, such as `[ContinualBackprop(), L2(1e-4)]`.
        example: what the model is traced on: a tensor, a tuple of positional or a dict of keyword arguments, or a
            callable that takes the model and returns what the loss reads. Without it, the first training forward.
        include: serve only these: a name of a module, a predicate on a `UnitGroup`, or several. Names also choose which
            parameters a weight method edits.
        exclude: leave these alone; as `include`.
        include_coupled: also serve coupled groups that several layers make, such as the residual stream of a
            transformer. Replacing a unit there disturbs the others, as said above.
        init: law of new incoming weights: "kaiming_uniform", "kaiming_normal", "lecun_uniform", "lecun_normal", or
            a callable `(group, units, shape, generator) -> Tensor` with shape (number of units, *one unit's
            incoming slice). By default the law that the module itself starts with.
        seed: of everything that is drawn.
        strict: raise if any hidden group cannot be served, instead of listing it.
        time: what a step is for units, whose ages, rates and periods count steps. "steps": each of the optimizer.
            "step_sizes": each by its size, as a share of the largest so far, so that at a tenth of it every tenth is
            one; the others are passed over. Under a schedule that falls to 0 new units else come of age without having
            grown, and are replaced again. The size is `lr` of the group that holds the incoming weights. Methods that
            edit weights act at each step as ever.
        process_group: the ranks that train this model together. Only for those who average gradients by themselves:
            DistributedDataParallel is noticed.

    Raises:
        ConfigError: an unknown method, law or module name, no method at all, two of one kind or that replace the same
            units, a seed that is no whole number ≥ 0, or another word for time.
        ModelError: the optimizer does not hold the model's parameters, or is one of several; the model has none that
            are trained, or has them in shards or quantised; it cannot take the example; or nothing can be replaced.
        StateError: a method of this kind is already attached to this model and optimizer; or the ranks of a
            data-parallel run are not alike.
    """
    methods = _methods(method)
    if not isinstance(model, nn.Module):
        raise ModelError(f"attach() needs a torch.nn.Module first, but got {type(model).__name__}.")
    given, model, optimizer = model, without_wrapper(model), _optimizer_within(optimizer)
    refuse_parts(model)
    refuse_frozen(model)
    sweep(model)
    if optimizer is None:
        _check_manual(methods)
    else:
        refuse_one_of_many(model, optimizer)
        _check_holds(optimizer, model)
    neighbours = _attached_to(model)
    _check_first_of_kind(neighbours, methods, optimizer)

    if isinstance(seed, bool) or not isinstance(seed, Integral) or seed < 0:
        raise ConfigError(f"attach() needs a whole number of at least 0 as seed=, but got {seed!r}.")
    _check_time(time, optimizer)
    request = Request(
        None if include is None else _choices("include", include),
        _choices("exclude", exclude),
        init,
        strict,
        include_coupled,
        time,
    )
    request.check_names(model)
    attachment = Attachment(given, optimizer, methods, seed, request, process_group)
    attachment.key = _key(model, optimizer, methods)
    attachment.keys_of_others = lambda: _keys(optimizer) - {attachment.key}
    attachment.check_found = _check_no_group_twice(model)
    try:
        if attachment.needs_units:
            if example is None:
                attachment.find_units_at_first_forward()
            else:
                attachment.find_units(example)
    except BaseException:
        attachment.detach()
        raise
    forget_compiled(given)
    _live[model] = [weakref.ref(found) for found in (*neighbours, attachment)]
    return attachment


def _methods(method: Method | str | Sequence[Method | str]) -> list[Method]:
    several: Sequence[Any] = list(method) if isinstance(method, list | tuple) else [method]
    methods = [method_named(item) if isinstance(item, str) else item for item in several]
    if not methods:
        raise ConfigError("attach() got an empty list of methods; give one, for example regrow.ContinualBackprop().")
    for item in methods:
        if not isinstance(item, Method):
            hint = f"; did you mean {item.__name__}()?" if isinstance(item, type) and issubclass(item, Method) else "."
            raise ConfigError(f"attach() takes methods or their names, but got {item!r}{hint}")
    for place, item in enumerate(methods):
        for other in methods[:place]:
            if type(item) is type(other):
                raise ConfigError(f"attach() got {other} and {item}, two of one kind: give one of them.")
    return methods


def _choices(setting: str, given: Choice | Sequence[Choice]) -> tuple[Choice, ...]:
    several = tuple(given) if isinstance(given, list | tuple | set) else (given,)
    for choice in several:
        if isinstance(choice, nn.Module) or not (isinstance(choice, str) or callable(choice)):
            raise ConfigError(
                f"{setting}= takes names of modules and predicates on a UnitGroup, but got a {type(choice).__name__}."
            )
    return several


def _optimizer_within(optimizer: Any) -> Optimizer | None:
    inner = getattr(optimizer, "optimizer", None)  # Accelerate's and Lightning's wrappers
    if isinstance(inner, Optimizer):
        return _optimizer_within(inner)
    if optimizer is not None and not isinstance(optimizer, Optimizer):
        refuse_several(optimizer)
        raise ModelError(
            f"attach() needs a torch optimizer second, but got {type(optimizer).__name__}; "
            "pass None and call step() of the result after each update if you have none."
        )
    return optimizer


def _check_manual(methods: Sequence[Method]) -> None:
    for method in methods:
        if isinstance(method, WeightMethod) and method.acts_at_steps:
            raise ConfigError(
                f"{type(method).__name__} acts around an optimizer's step, at its step size, so it cannot be used with "
                "optimizer=None. Pass the optimizer."
            )


def _check_time(time: str, optimizer: Optimizer | None) -> None:
    if time not in ("steps", "step_sizes"):
        raise ConfigError(f"attach() takes 'steps' or 'step_sizes' as time=, but got {time!r}.")
    if time == "steps":
        return
    if optimizer is None:
        raise ConfigError(
            "time='step_sizes' goes by the step size of an optimizer, so it cannot be used with optimizer=None. Pass "
            "the optimizer, or call step() of the result less often."
        )
    for number, group in enumerate(optimizer.param_groups):
        if not isinstance(group.get("lr"), float | int | Tensor):
            raise ConfigError(
                f"time='step_sizes' goes by lr, which is {group.get('lr')!r} in group {number} of this "
                f"{type(optimizer).__name__}: give the optimizer a step size, or leave time= away."
            )


def _check_holds(optimizer: Optimizer, model: nn.Module) -> None:
    held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    if not any(id(parameter) in held for parameter in model.parameters()):
        raise ModelError(
            f"The {type(optimizer).__name__} holds none of the parameters of {type(model).__name__}. "
            "Make the optimizer from model.parameters(), of this very model, and attach then."
        )


def _attached_to(model: nn.Module) -> list[Attachment]:
    if _known_to(model):
        gc.collect()  # an optimizer that was thrown away takes its attachment along; this takes up to a second
    return _known_to(model)


def _known_to(model: nn.Module) -> list[Attachment]:
    return [found for ref in _live.get(model, []) if (found := ref()) is not None and found.attached]


def _check_first_of_kind(
    neighbours: Sequence[Attachment], methods: Sequence[Method], optimizer: Optimizer | None
) -> None:
    for found in neighbours:
        if found.optimizer is not optimizer:
            continue
        for method in methods:
            for other in found.methods:
                if type(method) is type(other):
                    raise StateError(
                        f"{other} is already attached to this {type(found.model).__name__} and its optimizer. "
                        "detach() it first, or attach several methods in one list."
                    )


def _check_no_group_twice(model: nn.Module) -> Callable[[list[UnitWorker]], None]:
    """What an attachment calls when it knows which groups its unit methods serve."""

    def check(found: list[UnitWorker]) -> None:
        before = [worker for other in _attached_to(model) for worker in other.unit_workers]
        served: dict[str, UnitWorker] = {}
        for worker in (*before, *found):
            for site in worker.sites:
                first = served.setdefault(site.group.name, worker)
                if first is not worker:
                    raise ConfigError(
                        f"{type(first.method).__name__} and {type(worker.method).__name__} would both replace the "
                        f"units of group {site.group.name!r}, without knowing of each other. Take one of them, or give "
                        "each groups of its own: two calls of attach(), with include=."
                    )

    return check


def _key(model: nn.Module, optimizer: Optimizer | None, methods: Sequence[Method]) -> str:
    """Under which the state is saved: what is at work, and the place of the model's first parameter in the optimizer.

    So it does not depend on the order in which several are attached, as to the two critics of an agent.
    """
    own = {id(parameter) for parameter in model.parameters()}
    held = [] if optimizer is None else [tensor for group in optimizer.param_groups for tensor in group["params"]]
    place = next((number for number, tensor in enumerate(held) if id(tensor) in own), 0)
    key = f"{place}:{'+'.join(method.name for method in methods)}"
    taken = _keys(optimizer)
    return next(free for number in count(1) if (free := key if number == 1 else f"{key}#{number}") not in taken)


def _keys(optimizer: Optimizer | None) -> set[str]:
    return {
        found.key
        for refs in _live.values()
        for ref in refs
        if (found := ref()) is not None and found.attached and found.optimizer is optimizer
    }
