"""A method at work on one model and one optimizer."""

import json
import textwrap
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from operator import itemgetter
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.jit._script import RecursiveScriptModule
from torch.optim import Optimizer

from regrow.attachment.figures import figures
from regrow.attachment.hooks import FirstForward, StepHooks, Switch
from regrow.attachment.ranks import Ranks
from regrow.attachment.refusals import refuse_recomputed, refuse_within_backward
from regrow.attachment.service import Request, method_for, served_text, why_not_served
from regrow.attachment.site import Site
from regrow.attachment.unit_worker import Event, UnitWorker
from regrow.attachment.weight_worker import WeightWorker
from regrow.errors import ConfigError, ModelError, StateError
from regrow.methods.generator import seeded_generator
from regrow.methods.method import Method
from regrow.methods.unit_method import UnitMethod
from regrow.methods.weight_method import WeightMethod
from regrow.units import host
from regrow.units.graph import UnitGraph, UnitGroup
from regrow.units.optimizer_state import carried_along, forget_path
from regrow.units.table import WIDTH, Row, format_reasons, format_table, shorten
from regrow.units.trace import find_units
from regrow.units.wrappers import IF_COMPILED, without_wrapper

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup


class Attachment:
    """Methods at work on one model and optimizer. Made by `regrow.attach`.

    After each optimizer step, weight methods act first and unit methods then, each kind in the order given, so
    that the outgoing weights of new units are exactly 0 when the training loop gets control back.

    Its state rides in `optimizer.state_dict()["regrow"]`, as tensors only; restoring the optimizer restores it. So
    attach first and load then: an optimizer that was restored before has dropped what it did not know.

    Attributes:
        model: the model, without wrappers.
        optimizer: the optimizer, without wrappers; None in manual mode.
        methods: the methods, in order.
        events: all replacements of this process so far, oldest first. They are not part of the saved state.
        graph: the model's units; None until the first forward if no example was given.
        unserved: why each group that is not served is not.
        check_found: called with the unit methods at work as soon as it is known what they serve; it may refuse that.
        key: under which its state is in that of the optimizer.
        keys_of_others: gives the keys of all others that are attached to the same optimizer.
    """

    def __init__(
        self,
        given: nn.Module,
        optimizer: Optimizer | None,
        methods: Sequence[Method],
        seed: int,
        request: Request,
        process_group: "ProcessGroup | None" = None,
    ) -> None:
        model = without_wrapper(given)
        self.model = model
        self.optimizer = optimizer
        self.methods = tuple(methods)
        self.events: list[Event] = []
        self.graph: UnitGraph | None = None
        self.unserved: dict[str, str] = {}
        self._request = request
        self._switch = Switch()
        self._steps = 0
        self._generators = [seeded_generator(seed, index) for index in range(len(methods))]
        self._ranks = Ranks(given, model, self._alike_on_ranks, process_group)
        self._unit_workers: dict[int, UnitWorker] = {}
        self._weight_workers = {
            index: WeightWorker(method, model, optimizer, request, self._generators[index], self._switch, self._ranks)
            for index, method in enumerate(methods)
            if isinstance(method, WeightMethod)
        }
        self._tasks = 0
        self._told_to_tell = False
        self._pending: dict[str, Tensor] | None = None
        self._undo: list[Callable[[], None]] = [
            self._ranks.remove_hook,
            *(worker.features.handle.remove for worker in self._weight_workers.values() if worker.features),
        ]
        self._attached = True
        self._taps_proven = False
        if optimizer is not None:
            hooks = StepHooks(optimizer, self._before_step, self._before_step_again, self._after_step)
            handles = [
                *hooks.handles,
                optimizer.register_state_dict_post_hook(self._save_into),
                optimizer.register_load_state_dict_pre_hook(self._load_from),
            ]
            self._undo += [handle.remove for handle in handles]
        self.key = "0"
        self.keys_of_others: Callable[[], set[str]] = set
        self.check_found: Callable[[list[UnitWorker]], None] = lambda workers: None

    def find_units(self, example: Any) -> None:
        """Trace the model on an example and start to serve its groups."""
        graph = find_units(self.model, example)
        self._request.check_names(self.model)
        workers: dict[int, UnitWorker] = {}
        unserved: dict[str, str] = {}
        for index, method in enumerate(self.methods):
            if not isinstance(method, UnitMethod):
                continue
            sites = []
            for group in graph:
                reason = why_not_served(group, method, self.model, self.optimizer, self._request)
                if reason is None:
                    serving = method_for(group, method) or method
                    sites.append(Site(group, self.model, serving, self._request.init, self._switch, self._request.time))
                else:
                    unserved[group.name] = reason
            if not sites:
                raise ModelError(_nothing_served(self.model, method, {**unserved, **graph.unclaimed}))
            workers[index] = UnitWorker(method, sites, self._generators[index], self._ranks)
            self._undo += [reader.handle.remove for site in sites for reader in site.readers]
        hidden = {
            name: reason
            for name, reason in unserved.items()
            if graph[name].status not in ("output", "unused") and self._request.wants_group(graph[name])
        }
        if self._request.strict and hidden:
            raise ModelError(
                f"strict=True, but {len(hidden)} groups of {type(self.model).__name__} cannot be served:\n"
                f"{format_reasons(hidden)}\nExclude them by name, or drop strict=True."
            )
        self.check_found(list(workers.values()))
        self.graph, self.unserved, self._unit_workers = graph, unserved, workers
        for worker in self._weight_workers.values():
            worker.use(graph)
        if self._pending is not None:
            pending, self._pending = self._pending, None
            self.load_state_dict(pending)

    def find_units_at_first_forward(self) -> None:
        """Take the first forward that counts as the example."""
        if isinstance(self.model, RecursiveScriptModule):
            raise ModelError("A scripted module takes no hooks, so its first forward cannot be seen. Give example=.")

        def trace(args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            self.find_units((lambda model: model(*args, **kwargs)) if args and kwargs else args or kwargs)

        self._undo.append(FirstForward(self.model, trace, self._switch).handle.remove)

    @property
    def needs_units(self) -> bool:
        """Whether any method asks for the units of the model."""
        return any(not isinstance(method, WeightMethod) or method.needs_units for method in self.methods)

    @property
    def groups(self) -> tuple[UnitGroup, ...]:
        """The groups that are served, front to back."""
        found = {site.group.name: site.group for site in self._sites()}
        return tuple(found.values())

    def step(self) -> None:
        """Act once, after your own update of the weights: for manual mode, `attach(..., optimizer=None)`. What is read
        of gradients is read now, with the weights that are there now.

        Raises:
            StateError: there is an optimizer, whose steps are followed by themselves, or `detach` has been called; or
                units are ranked by gradients, and there are none.
        """
        if not self._attached:
            raise StateError("step() of an attachment that was detached: its hooks are gone. attach() anew.")
        if self.optimizer is not None:
            raise StateError("step() is for manual mode; this attachment follows its optimizer by itself.")
        of_gradients = ("first_order", "incoming_gradient")
        by_gradients = [site.group.name for site in self._sites() if site.method.needs in of_gradients]
        if by_gradients and all(parameter.grad is None for parameter in self.model.parameters()):
            raise StateError(
                f"step() found no gradients, by which the units of {', '.join(shorten(by_gradients))} are ranked. "
                "Call it before zero_grad()."
            )
        for worker in self._unit_workers.values():
            worker.before_step(None)
        self._after_step()

    def task_changed(self, losses: Iterable[Tensor] | None = None) -> None:
        """Say that the task has changed. Methods that act at task changes act now; others do nothing.

        Args:
            losses: of the new data under the present weights, one per batch, with autograd, for methods that look at
                gradients then (DASH): `plastic.task_changed(loss(model(x), y) for x, y in loader)`.

        Raises:
            StateError: `detach` has been called, or units are needed and not known yet.
            ConfigError: a method needs losses, and there are none.
        """
        if not self._attached:
            raise StateError("task_changed() of an attachment that was detached: its hooks are gone. attach() anew.")
        if self.needs_units and self.graph is None:
            raise StateError(
                "task_changed() came before any training forward: no units are known. Give attach() an example=."
            )
        self._tasks += 1
        with self.paused(), carried_along(self.optimizer):  # forwards for the losses do not count
            for worker in self._weight_workers.values():
                worker.change_task(self._steps, losses)
                if self.optimizer is not None and worker.method.acts_at_task_changes:
                    forget_path(self.optimizer)

    @contextmanager
    def evaluation_weights(self) -> Iterator[None]:
        """Within the block, the model has the weights with which its methods evaluate, such as the slow copy of
        `HareAndTortoise`; for most methods these are its own.
        """
        with ExitStack() as stack:
            for worker in self._weight_workers.values():
                stack.enter_context(worker.evaluated())
            yield

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Within the block, forwards do not count and steps are not acted on."""
        before, self._switch.on = self._switch.on, False
        try:
            yield
        finally:
            self._switch.on = before

    def detach(self) -> None:
        """Remove every hook and the key in the optimizer's state dict. Calling it again does nothing."""
        for undo in self._undo:
            undo()
        self._undo.clear()
        self._switch.on = False  # compiled code still has the hooks
        self._attached = False

    @property
    def attached(self) -> bool:
        """Whether `detach` has not been called."""
        return self._attached

    def __enter__(self) -> "Attachment":
        return self

    def __exit__(self, *error: object) -> None:
        self.detach()

    def state_of(self, group: UnitGroup | str) -> dict[str, Tensor]:
        """State of one group: `age` in optimizer steps (int64), `utility` by which units are ranked (where the method
        remembers anything to rank by; 0 for those drawn in this step), and what else the method remembers. The last
        dimension of every tensor is the unit. With several unit methods, that of the first.

        Raises:
            StateError: the group is not served.
        """
        name = group if isinstance(group, str) else group.name
        for site in self._sites():
            if site.group.name == name:
                return {"age": site.age(), **site.utility_now(), **site.copy_of_state()}
        served = ", ".join(found.name for found in self.groups) or "none yet: the first training forward finds them"
        raise StateError(f"Group {name!r} is not served. Served: {served}.")

    def metrics(self) -> dict[str, float]:
        """Figures to log, by name: the totals, and for each served group its replacements, how many of its units are
        eligible, their mean age, and how much was picked last and had been picked before; see `figures`.
        """
        return figures(self._steps, self._unit_workers.values(), self._weight_workers.values())

    def __str__(self) -> str:
        return self.table()

    def table(self, verbose: bool = False) -> str:
        """What `print` shows: every group of units, which parameters make and read it, the law of its new weights,
        and whether it is served or why not; and the parameters of no unit, with the reason.

        Args:
            verbose: a row for each group, with all names and texts in full. Otherwise groups that repeat layer after
                layer share one row, and long lists of names are cut.
        """
        methods = ", ".join(str(method) for method in self.methods)
        optimizer = "no optimizer" if self.optimizer is None else type(self.optimizer).__name__
        head = textwrap.fill(f"regrow: {methods}", WIDTH, subsequent_indent=8 * " ", break_on_hyphens=False)
        title = f"{head}\non {type(self.model).__name__} with {optimizer}"
        if not self.needs_units:
            return f"{title}; it edits weights only"
        if self.graph is None:
            return f"{title}; units are found at the first training forward"
        laws = {site.group.name: tuple(law.description for law in site.laws) for site in self._sites()}
        frozen = {site.group.name: site.frozen() for site in self._sites()}
        methods_at_work = [worker.method for worker in self._unit_workers.values()]
        rows = [
            Row(
                group.name,
                group.size,
                group.producers,
                group.consumers,
                group.status,
                served_text(group, methods_at_work, frozen[group.name])
                if group.name in laws
                else self.unserved[group.name],
                "" if group.name in laws else "not served: ",
                laws.get(group.name, ()),
            )
            for group in self.graph
        ]
        units = sum(group.size for group in self.groups)
        counted = f"{len(laws)} of {len(rows)} groups served, {units} units"
        return f"{title}; {counted}\n\n{format_table(rows, self.graph.unclaimed, verbose=verbose)}"

    def state_dict(self) -> dict[str, Tensor]:
        """Everything that `load_state_dict` needs for going on bit-identically, as tensors only. Empty as long as
        units have still to be found.
        """
        if self.needs_units and self.graph is None:
            return self._pending or {}
        state = {"identity": _as_tensor(self._identity()), "progress": host.tensor([self._steps, self._tasks])}
        for index, worker in self._all_workers():
            state |= {f"{index}.{key}": value for key, value in worker.state().items()}
        return state

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Go on from what `state_dict` returned.

        Raises:
            StateError: it was saved by other methods or from another model, or is not whole.
        """
        if self.needs_units and self.graph is None:
            self._pending = dict(state)
            return
        present = self.state_dict()
        if "identity" in state:
            _check_identity(_from_tensor(state["identity"]), _from_tensor(present["identity"]))
        missing = sorted(present.keys() - state.keys())
        if missing:
            raise StateError(
                f"This regrow state is not whole: {', '.join(missing)} missing. Load the one that was saved."
            )
        self._steps, self._tasks = (int(number) for number in state["progress"].tolist())
        self._ranks.proven = False
        for index, worker in self._all_workers():
            prefix = f"{index}."
            worker.load({key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)})

    @property
    def unit_workers(self) -> list[UnitWorker]:
        """The unit methods at work, with what they serve."""
        return list(self._unit_workers.values())

    def _identity(self) -> dict[str, Any]:
        return {
            "methods": [{"name": method.name, **method.settings()} for method in self.methods],
            "groups": {group.name: group.size for group in self.groups},
            "time": self._request.time,
        }

    def _alike_on_ranks(self) -> bytes:
        parts = [json.dumps(self._identity()).encode(), f"{self._steps} {self._tasks}".encode()]
        states = [generator.get_state() for generator in self._generators]
        states += [site.schedule.state() for site in self._sites()]
        return b"".join([*parts, *(state.numpy().tobytes() for state in states)])

    def _sites(self) -> list[Site]:
        return [site for worker in self._unit_workers.values() for site in worker.sites]

    def _all_workers(self) -> list[tuple[int, UnitWorker | WeightWorker]]:
        return sorted([*self._unit_workers.items(), *self._weight_workers.items()], key=itemgetter(0))

    def _before_step(self) -> None:
        if self._switch.on:
            if self.optimizer is not None:
                refuse_within_backward(self.optimizer)
            for reader in self._unit_workers.values():
                reader.before_step(self.optimizer)
            with carried_along(self.optimizer):
                for worker in self._weight_workers.values():
                    worker.before_step(self._steps + 1)

    def _before_step_again(self) -> None:
        """The optimizer has called its closure once more within a step: what has been done to gradients is gone."""
        editing = [worker.method for worker in self._weight_workers.values() if worker.method.edits_gradients]
        if self._switch.on and editing:
            refuse_recomputed(editing[0], self.optimizer)

    def _after_step(self) -> None:
        if not self._switch.on:
            return
        self._steps += 1
        self._ranks.prove()
        with carried_along(self.optimizer):
            for editor in self._weight_workers.values():
                editor.after_step(self._steps)
        self._ask_for_task_changes()
        if self.needs_units and self.graph is None:
            raise StateError(
                "The optimizer stepped before any training forward of the model: no units are known. Give attach() an "
                "example=, or run the model itself (in training mode, with grad) before the first step."
            )
        if not self._taps_proven:
            self._taps_proven = all([_taps_work(worker) for worker in self._unit_workers.values()])
            if self.optimizer is not None:
                for site in self._sites():
                    site.check_optimizer(self.optimizer)
        for worker in self._unit_workers.values():
            with carried_along(self.optimizer):
                events = worker.step(self.optimizer, self._steps)
            if self.optimizer is not None and any(event.share == 1 for event in events):
                forget_path(self.optimizer)
            self.events += events

    def _ask_for_task_changes(self) -> None:
        if self._tasks or self._told_to_tell or self._steps < _STEPS_WITHOUT_A_TASK:
            return
        self._told_to_tell = True
        waiting = [worker.method for worker in self._weight_workers.values() if worker.method.acts_at_task_changes]
        names = [type(method).__name__ for method in waiting if not method.acts_at_steps]
        if names:
            warnings.warn(
                f"{', '.join(names)} acts at task changes only, and was told of none in {self._steps} steps. Call "
                "task_changed() of what attach() returned whenever the data change; this is said once.",
                RuntimeWarning,
                stacklevel=2,
            )

    def _save_into(self, optimizer: Optimizer, state_dict: dict[str, Any]) -> None:
        state = self.state_dict()
        if state:
            state_dict.setdefault("regrow", {})[self.key] = state

    def _load_from(self, optimizer: Optimizer, state_dict: dict[str, Any]) -> None:
        saved = state_dict.get("regrow", {})
        place = self.key.partition(":")[0]
        left = [key for key in saved if key.partition(":")[0] == place and key not in self.keys_of_others()]
        # What nobody else takes was saved by other methods on this model, and is refused. A run that was saved without
        # regrow, or without this attachment: it starts here.
        for key in [self.key] if self.key in saved else left[:1]:
            self.load_state_dict(saved[key])


# After so many it is likely that the user does not know that a method waits to be told.
_STEPS_WITHOUT_A_TASK = 10_000


def _taps_work(worker: UnitWorker) -> bool:
    """Whether it is known that the hooks run; raises if it is known that they do not."""
    readers = [reader for site in worker.sites for reader in site.readers]
    # A model that took no part in this step (one optimizer may hold several) is none of our business.
    trained = any(site.has_gradient() for site in worker.sites)
    seen = not readers or any(reader.called for reader in readers)
    if trained and not seen:
        raise StateError(
            "The optimizer has stepped, but no forward of the model was seen: regrow's hooks did not run. Call the "
            f"model in training mode with grad enabled. {IF_COMPILED}"
        )
    return seen


def _nothing_served(model: nn.Module, method: UnitMethod, unserved: dict[str, str]) -> str:
    listed = format_reasons(unserved) or "  it has no units"
    return (
        f"Nothing in {type(model).__name__} can be replaced by {type(method).__name__}:\n{listed}\n"
        "A network needs a hidden layer that feeds another; see include=, exclude= and include_coupled=."
    )


def _check_identity(saved: dict[str, Any], present: dict[str, Any]) -> None:
    for what, advice in (
        ("methods", "Attach with the saved settings"),
        ("groups", "Attach to the model that was saved"),
        ("time", "Attach with the saved time="),
    ):
        if what in saved and saved[what] != present[what]:
            raise StateError(
                f"This regrow state was saved with other {what}.\n  saved:   {saved[what]}\n"
                f"  present: {present[what]}\n"
                f"{advice}, or delete the key 'regrow' from the optimizer's state dict to start regrow afresh."
            )


def _as_tensor(content: dict[str, Any]) -> Tensor:
    return host.tensor(list(json.dumps(content).encode()), dtype=torch.uint8)


def _from_tensor(tensor: Tensor) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(bytes(tensor.tolist()).decode())
    except ValueError as error:
        raise ConfigError("This is not a state that regrow saved: its identity cannot be read.") from error
    return content
