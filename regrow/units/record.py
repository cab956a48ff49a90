"""What one labelled forward knows: rules read labels here, write those of results, and leave evidence."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import count
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import _disable_current_modes

from regrow.units.call import Call
from regrow.units.computed import Computed
from regrow.units.evidence import Claim, Evidence, Leak, LeakKind
from regrow.units.graph import Role
from regrow.units.labels import NONE, ZERO, Met, Units, constant, core, has_units, meet, units_in, without_zeros
from regrow.units.memory import Atlas, Memory, apart, has_memory, overlaps
from regrow.units.sightings import Watch
from regrow.units.survivors import Survivors

_NO_RULE = "has no rule yet (regrow/units/rules/README.md says how to add one)"


class Record:
    """What is known during a forward, and what it has shown.

    Rules read labels with `labels`, write those of results with `write` or `place`, and leave evidence with `claim`,
    `claim_outgoing`, `leak` and their kin. A parameter that a rule neither claims nor ignores counts as used in an
    unknown way.

    Args:
        atlas: of the model's parameters and buffers.
        parameters: names that are parameters.
        watch: tells which module is running.
        computed: tensors that modules compute in the place of parameters; the atlas has their stand-ins.
    """

    def __init__(
        self, atlas: Atlas, parameters: set[str], watch: Watch, computed: Mapping[str, Computed] | None = None
    ) -> None:
        self.units = Units()
        self.evidence = Evidence(self.units, watch.sightings)
        self.where = ""
        self._atlas = atlas
        self._parameters = parameters
        self._watch = watch
        self._begun: dict[Any, Tensor] = {}
        self._handled: set[int] = set()
        self._statistics: set[int] = set()
        self._turned: dict[int, int] = {}
        self._random = self.evidence.note(Leak("value", "draws random numbers", constant(NONE, (0,))))
        self._given = self.evidence.note(Leak("value", "comes with the data", constant(NONE, (0,))))
        self._passes = count()
        self._pass = 0
        self._memory = Memory(atlas, self.units)
        self._survivors = Survivors(self._memory)
        self._computed = computed or {}
        self._computing: list[tuple[Computed, Record]] = []
        self.met: dict[str, Computed] = {}
        self.crossing: set[str] = set()

    def begin_pass(self) -> None:
        """Forget what memory held. Units, claims and leaks stay."""
        self._pass = next(self._passes)
        self._survivors, self._memory = Survivors(self._memory), Memory(self._atlas, self.units)
        self._watch.begin_pass(self._memory)
        self._survivors.forget_dead()

    def give(self, data: Iterable[Tensor]) -> None:
        """Note what the model is given: it is other data next time, and so is what is computed from it."""
        for tensor in data:
            if has_memory(tensor) and not self._memory.owners(tensor):
                self._memory.note_leaks(tensor, [self._given])

    def end_pass(self, outputs: Sequence[Tensor], kept: Iterable[tuple[str, Tensor]]) -> None:
        """Note what reached the outputs, and what the modules keep for the next forward."""
        for output in outputs:
            self.evidence.outputs.append(units_in(self.labels(output)))
            self.evidence.returned |= self._memory.leaks(output)
        returned = {output.untyped_storage()._cdata for output in outputs}
        statistics = {claim.name for claim in self.evidence.claims if claim.role == "statistic"}
        for name, tensor in kept:
            if not has_memory(tensor) or tensor.untyped_storage()._cdata in returned:
                continue
            if name in statistics and tensor is self._atlas.tensors[name]:
                continue
            if has_units(plane := self.labels(tensor)):
                self._count(self.leak("state", f"{name} keeps it between forwards", units_in(plane), []))
            self._count(*(self._memory.leaks(tensor) - {self._random, self._given}))
        for one in self.met.values():
            self._hold_back(one)

    @property
    def random_parts(self) -> bool:
        """Whether random numbers left for Python, where they can choose which parts of the network run."""
        return self._random in self.evidence.counted

    def begin_computing(self, computed: Computed) -> None:
        """From here to `end_computing` a weight is computed from its originals, a use of them that is accounted for."""
        self._computing.append((computed, Record(self._atlas, self._parameters, self._watch)))

    def end_computing(self, result: Any) -> None:
        """Take the result for a parameter, unless it holds the very elements of the originals, perhaps masked."""
        computed, inside = self._computing.pop()
        # Computed as a part of another, or the same memory, or seen before.
        if self._computing or not isinstance(result, Tensor) or self.knows(result):
            return
        with _disable_current_modes():  # what is done here is not part of the forward
            addresses = inside.addresses(result)
            held = bool(inside.parameters(result)) and bool((core(addresses) >= 0).all())
            leaks = {inside.evidence.leaks[number].parameter for number in inside._memory.leaks(result)}
            if held and not leaks & {None, *computed.originals} and not inside.evidence.claims:
                self._memory.write_addresses(result, addresses)
            else:
                self.met[computed.name] = computed
                self._memory.note_stand_in(result, computed.name)

    def _follow_computing(self, call: Call, rule: Callable[["Record", Call], None] | None) -> None:
        computed, inside = self._computing[0]
        for tensor in call.inputs:
            if has_units(self.labels(tensor)):
                self.leave(tensor, f"the computation of {computed.name}")
            if set(self.parameters(tensor)) - set(computed.originals):
                self.leak_parameter(tensor, f"is used to compute {computed.name}")
        inside.follow(call, rule)

    def _hold_back(self, computed: Computed) -> None:
        """Block the units of a computed parameter if its elements cannot be set or its originals have other uses."""
        leaks = [self.evidence.leaks[number] for number in self.evidence.counted | self.evidence.returned]
        seen = {leak.parameter for leak in leaks} | {claim.name for claim in self.evidence.claims}
        used = [name for name in computed.originals if name in seen]
        reasons = [f"{name} is used beside {computed.name}, which is computed from it" for name in used]
        for reason in reasons if computed.reason is None else [computed.reason]:
            for name in (computed.name, *used):
                self._count(self.evidence.note(Leak("value", reason, constant(NONE, (0,)), name)))

    def follow(self, call: Call, rule: Callable[["Record", Call], None] | None) -> None:
        """Apply a rule to a call that has run, and account for whatever the rule leaves open."""
        if self._computing:
            self._follow_computing(call, rule)
            return
        for tensor in call.inputs:
            self._meet_again(tensor)
        if not any(self.knows(tensor) for tensor in call.inputs) and rule is None:
            return
        self.where = f"{call.title} of {self._watch.module or 'the model'}"
        self._handled, self._turned = set(), {}
        self._call = call
        if call.hides:
            for tensor in call.inputs:
                self.leave(tensor, self.where)
            return
        arriving = set().union(*(self._memory.leaks(tensor) for tensor in call.inputs))
        if torch.Tag.nondeterministic_seeded in call.operator.tags:
            arriving.add(self._random)
        if call.packed:
            self.leak_operator(call, "takes packed weights, as of a quantised layer: single ones cannot be set")
        elif rule is None:
            self.leak_operator(call)
        else:
            try:
                rule(self, call)
            except (RuntimeError, IndexError, KeyError, TypeError, ValueError) as error:
                self._handled, self._turned = set(), {}
                self.leak_operator(call, f"has a rule that cannot take this call ({error})")
        for tensor in call.written:
            if any(name in self._parameters for name in self._memory.owners(tensor)):
                self._count(self.leak_parameter(tensor, f"is written by {self.where}", []))
            self._memory.note_write(tensor)
        results = [*call.outputs, *call.written]
        if any(self._memory.owners(tensor) and not self._memory.alters(tensor) for tensor in call.inputs):
            self.evidence.read |= arriving
        if self._turned:
            arriving = {self._turned.get(number, number) for number in arriving}
        for tensor in call.inputs:
            if tensor.untyped_storage()._cdata not in self._handled and self._memory.owners(tensor):
                arriving.add(self.leak_parameter(tensor, f"is used as a value by {self.where}", results))
        told = [tensor for tensor in call.inputs if tensor.untyped_storage()._cdata not in self._handled]
        if not results and told:
            for tensor in told:
                self.leave(tensor, self.where)
            self._count(*arriving)
        for tensor in results if arriving else ():
            self._memory.note_leaks(tensor, arriving)

    def leave(self, tensor: Tensor, where: str, how: str = "takes it out of the network") -> None:
        """Note that a value leaves for Python or NumPy, from where it cannot be followed."""
        if has_units(plane := self.labels(tensor)):
            self._count(self.leak("mix", f"{where} {how}", units_in(plane), []))
        if bool((core(plane) == ZERO).any()):  # whoever has its memory may write into it
            self.write(tensor, without_zeros(plane))
        self._count(*self._memory.leaks(tensor))
        if self.parameters(tensor):
            self.leak_parameter(tensor, f"is taken out of the network by {where}")

    # What rules read.

    def labels(self, tensor: Tensor) -> Tensor:
        """The unit of each element of a tensor."""
        return self._memory.labels(tensor)

    def knows(self, tensor: Tensor) -> bool:
        """Whether a tensor can hold anything of a unit or a parameter."""
        return self._memory.knows(tensor)

    def parameters(self, tensor: Tensor) -> list[str]:
        """Names of the parameters whose elements a tensor holds unchanged: one, if it is a weight."""
        return [] if self._memory.alters(tensor) else self._sources(tensor)

    def altered(self, tensor: Tensor) -> list[str]:
        """Names of the parameters of which each element of a tensor is some function of one element, as in 1 + w. It
        can be a gain or bias, but 0 in the parameter is not 0 there, so it is no weight.
        """
        return self._sources(tensor) if self._memory.alters(tensor) else []

    def _sources(self, tensor: Tensor) -> list[str]:
        if self._atlas.shares_memory(tensor) and self._memory.window(tensor) is None:
            return []  # another reading of its memory, as view_as_real gives
        names = [term for name in self._memory.owners(tensor) for term in self._atlas.terms(name)]
        return [name for name in names if name in self._parameters]

    def is_fixed(self, tensor: Tensor) -> bool:
        """Whether a value is the same in every forward, as far as it is known where it comes from."""
        return not self._memory.leaks(tensor) and not has_units(self.labels(tensor)) and not self._sources(tensor)

    def runs_beside(self, tensor: Tensor) -> bool:
        """Whether a tensor is a parameter of the very module that is running."""
        return any(name.rpartition(".")[0] == self._watch.module for name in self.parameters(tensor))

    def is_frozen(self, tensor: Tensor) -> bool:
        """Whether all parameters whose elements a tensor holds are constants in training."""
        return not any(self._atlas.tensors[name].requires_grad for name in self.parameters(tensor))

    def owners(self, tensor: Tensor) -> list[str]:
        """As `parameters`, with buffers."""
        return self._memory.owners(tensor)

    def addresses(self, tensor: Tensor) -> Tensor:
        """Number of the parameter element in each element of a tensor, -1 for none."""
        return self._memory.addresses(tensor)

    # What rules write.

    def write(self, tensor: Tensor, plane: Tensor) -> None:
        """Set the labels of a result."""
        self._memory.write(tensor, plane)

    def write_addresses(self, tensor: Tensor, plane: Tensor, altered: bool = False) -> None:
        """Declare that a result holds elements of parameters, or a function of each."""
        self._memory.write_addresses(tensor, plane)
        if altered:
            self._memory.note_altered(tensor)

    def write_sum(self, tensor: Tensor, weights: Sequence[Tensor]) -> None:
        """Declare that each element of a result is the sum of those of whole parameters, as of a mean and its noise."""
        owners = [owner for weight in weights for owner in self._memory.owners(weight)]
        whole = len(owners) == len(weights) and all(
            torch.equal(self.addresses(weight), self._memory.addresses(self._atlas.tensors[owner]))
            for weight, owner in zip(weights, owners, strict=True)
        )
        if whole and (total := self._atlas.sum_of(owners)) is not None:
            self.ignore(*weights)
            self.write_addresses(tensor, self._memory.addresses(total))

    def place(
        self,
        out: Tensor,
        labels: Callable[[], Tensor],
        addresses: Callable[[], Tensor] | None,
        sources: Sequence[Tensor],
    ) -> None:
        """Set the labels and addresses of a result that only moved elements, as a view or a copy."""
        shared = {source.untyped_storage()._cdata for source in sources}
        if out.untyped_storage()._cdata in shared:
            self._memory.note_view(out, labels)
            return
        self._memory.write(out, labels())
        if addresses is not None and any(self._memory.owners(source) for source in sources):
            found = addresses()
            if bool((core(found) >= 0).all()) and not self._mixes(found):
                self.write_addresses(out, found, any(self._memory.alters(source) for source in sources))
                return
            for source in sources:
                if self._sources(source):
                    self.leak_parameter(source, f"is put beside other values by {self.where}", [out])

    def _mixes(self, addresses: Tensor) -> bool:
        """Whether elements are of parameters and of buffers, as of a weight of which a part is fixed."""
        terms = [term for name in self._atlas.names(addresses) for term in self._atlas.terms(name)]
        return len({term in self._parameters for term in terms}) > 1

    def note_copy(self, out: Tensor, source: Tensor) -> None:
        """Declare that a result holds the very contents of a source."""
        self._memory.note_copy(out, source)

    def ignore(self, *tensors: Tensor) -> None:
        """Declare that the use of parameters among these is accounted for."""
        self._handled.update(tensor.untyped_storage()._cdata for tensor in tensors)

    def begin(self, weight: Tensor, dims: tuple[int, ...]) -> Tensor:
        """Units that a weight makes, one per position of some dimensions; the other dimensions have size 1.

        The same part of the same parameter makes the same units whenever it is used.
        """
        window = self._memory.window(weight)
        sizes = [size if dim in dims else 1 for dim, size in enumerate(weight.shape)]
        key: Any
        if window is None:
            addresses = self.addresses(weight).contiguous()
            key = dims, tuple(weight.shape), addresses.numpy().tobytes()
        else:
            offset, shape, strides = window.place
            # A weight that is expanded along a dimension makes the same units everywhere along it.
            sizes = [size if strides[dim] or size == 1 else 1 for dim, size in enumerate(sizes)]
            axes = [(strides[dim], shape[dim]) for dim in range(len(shape)) if shape[dim] > 1 and strides[dim]]
            across = [axis for axis in axes if axis in [(strides[dim], shape[dim]) for dim in dims]]
            key = window.name, offset, tuple(across), tuple(sorted(set(axes) - set(across)))
        if key not in self._begun:
            self._begun[key] = self.units.new(torch.Size(sizes).numel())
        return self._begun[key].view(sizes)

    def make(self, weight: Tensor, dim: int) -> Tensor:
        """Labels of a parameter in the place of an activation: it makes units along one dimension."""
        units = self.begin(weight, (dim % weight.dim(),)).expand(weight.shape)
        self.claim(weight, "incoming", units)
        return units

    def claim(self, weight: Tensor, role: Role, plane: Tensor, fresh: float | None = None, **seen: Any) -> None:
        """Note that a parameter's elements play a role to the units in a plane of the weight's shape."""
        self.ignore(weight)
        if role == "incoming":
            of_weight = weight.untyped_storage()._cdata
            # Constants times a frozen gain are values, although each element is a function of one of a parameter.
            values = (tensor for tensor in self._call.inputs if tensor.untyped_storage()._cdata != of_weight)
            operands = [one for one in values if not self._memory.owners(one) or self._memory.alters(one)]
            seen["operands"] = frozenset((self._pass, self._memory.value(tensor)) for tensor in operands)
            seen["result"] = (self._pass, self._memory.value(self._call.outputs[0]))
        lies = weight
        if self._memory.alters(weight):
            fresh, lies = None, self.addresses(weight)
        expanded = [dim for dim in range(weight.dim()) if lies.stride(dim) == 0 and weight.size(dim) > 1]
        if expanded:
            met = meet(plane, expanded)
            if role in ("incoming", "outgoing"):
                self.units.join(met.left, met.right)
            elif bool(core(met.several).any()):
                self.leak_parameter(weight, f"is shared by several units in {self.where}")
                return
            self.block(units_in(met.label[met.foreign]), f"{self.where} also multiplies other values")
            plane = met.label
            for dim in expanded:
                weight = weight.narrow(dim, 0, 1)
        window = self._memory.window(weight)
        if window is not None and not overlaps(window.place):
            if (window.name in self._parameters) == (role != "statistic"):
                self.evidence.claims.append(Claim(window.name, role, window.place, plane, fresh, **seen))
            return
        for addresses in apart(self.addresses(weight)):
            for owner in self._memory.owners(weight):
                place = addresses - self._atlas.start[owner]
                for name in self._atlas.terms(owner):
                    if (name in self._parameters) == (role != "statistic"):
                        self.evidence.claims.append(Claim(name, role, place, plane, fresh, **seen))

    def claim_outgoing(self, weight: Tensor, met: Met, plane: Tensor, value: Tensor) -> None:
        """Note that a weight multiplies units. Units that it multiplies alike become one.

        Args:
            weight: view of a parameter.
            met: what each input of the weight is, over everything that the weight is applied to.
            plane: the same, of the weight's shape.
            value: what it multiplies.
        """
        self.units.join(met.left, met.right)
        self.block(
            units_in(met.label[met.foreign]), f"what {self.where} multiplies it by also multiplies values of no unit"
        )
        number = self._memory.value(value) if has_units(plane) else -1
        seen = tuple(self._watch.places_of(number, value.numel())) if has_units(plane) else ()
        self.claim(
            weight,
            "outgoing",
            self.units.find(plane),
            value=(self._pass, number),
            sightings=seen,
            near=tuple(self._watch.inputs()),
        )

    def leak(self, kind: LeakKind, reason: str, units: Tensor, results: Iterable[Tensor]) -> int:
        """Note that units have an effect on results beyond their labels. It counts if it reaches an output."""
        number = self.evidence.note(Leak(kind, reason, units))
        for result in results:
            self._memory.note_leaks(result, [number])
        return number

    def leak_statistic(self, units: Tensor, results: Iterable[Tensor]) -> None:
        """Note that results are a statistic over units. A mix, unless it comes to nothing but a norm of them."""
        self._statistics.add(self.leak("mix", f"{self.where} makes one value of all units", units, results))

    def normalise(self, value: Tensor, statistic: Tensor, units: Tensor) -> None:
        """Declare that a result is a value shifted or scaled by a statistic over its own units: they are coupled by
        it, as by a norm.
        """
        for number in self._statistics & (self._memory.leaks(statistic) - self._memory.leaks(value)):
            if torch.equal(self.units.find(self.evidence.leaks[number].units).unique(), units):
                leak = Leak("norm", f"{self.where} takes statistics over several units", units)
                self._turned[number] = self.evidence.note(leak)

    def leak_operator(self, call: Call, problem: str = _NO_RULE) -> None:
        """Note that it is not known what an operator does. Its results carry no labels."""
        units = [units_in(self.labels(tensor)) for tensor in call.inputs]
        results = [*call.outputs, *call.written]
        if any(len(found) for found in units):
            self.leak("operator", f"{self.where} {problem}", torch.cat(units).unique(), results)
        for result in results:
            self.write(result, constant(NONE, result.shape))

    def cross(self, weight: Tensor) -> None:
        """Note that a weight multiplies each unit of several by all of its elements: units pass it."""
        self.crossing.update(self.parameters(weight))
        self.leak_parameter(weight, f"multiplies several units at once in {self.where}")

    def leak_parameter(self, weight: Tensor, reason: str, results: Iterable[Tensor] | None = None) -> int:
        """Note that a parameter has an effect in no known role. It counts if it reaches an output, at once if the
        results are not given.
        """
        self.ignore(weight)
        number = -1
        for name in (term for owner in self._memory.owners(weight) for term in self._atlas.terms(owner)):
            number = self.evidence.note(Leak("value", f"{name} {reason}", constant(NONE, (0,)), name))
            if results is None:
                self._count(number)
            for result in results or ():
                self._memory.note_leaks(result, [number])
        return number

    def block(self, units: Tensor, reason: str) -> None:
        """Note that units cannot be replaced, whatever becomes of their effect."""
        if len(units):
            self._count(self.leak("mix", reason, units, []))

    def _meet_again(self, tensor: Tensor) -> None:
        """Hold back the units of which something was kept since the forward before, if this is it."""
        if (found := self._survivors.take(tensor)) is not None:
            units, leaks = found
            where = self._watch.module or "the model"
            self._count(self.leak("state", f"{where} reads what was kept of it since the forward before", units, []))
            self._count(*(leaks - {self._random}))

    def _count(self, *leaks: int) -> None:
        self.evidence.counted.update(leaks)
