"""Methods that edit gradients or weights, and what they are given to work on."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from torch import Generator, Tensor

from regrow.methods.method import Method
from regrow.methods.picks import Picks

Role = Literal["matrix", "table", "gain", "bias", "other"]


@dataclass(eq=False)
class Weight:
    """One parameter that a weight method may edit.

    Attributes:
        name: qualified name in the model.
        parameter: the live parameter.
        learning_rate: step size of its parameter group at the moment.
        draw: new values of its shape from the law that it had at attach, drawn on the host. Only for methods with
            `draws`.
        forget: clears what the optimizer remembers of it, the number of its steps too.
        role: "matrix": it multiplies activations, as the weight of a linear layer or convolution does; "table": its
            rows are looked up; "gain": it has one dimension and starts as ones; "bias": it has one and stands beside a
            matrix or gain, or starts as zeros; "other": one of which that cannot be told.
        fan_in: number of inputs of one output of its layer, as torch counts them; None where there is no matrix.
        inputs_first: its first dimension is the inputs', as in a transposed convolution.
        is_tied: the model has it in several places.
        layer: number of its layer counted from the output, which is 0; None if that is not known, as for methods that
            do not set `needs_units`.
        state: what the method remembers of it, by name; saved with the optimizer.
        picks: what methods that draw single weights anew note of that, for `Attachment.metrics`.
    """

    name: str
    parameter: Tensor
    learning_rate: float
    draw: Callable[[Generator], Tensor]
    forget: Callable[[], None]
    role: Role
    fan_in: int | None = None
    inputs_first: bool = False
    is_tied: bool = False
    layer: int | None = None
    state: dict[str, Tensor] = field(default_factory=dict)
    picks: Picks = field(init=False)

    def __post_init__(self) -> None:
        """Nothing has been picked so far."""
        self.picks = Picks(self.parameter.numel())


@dataclass(frozen=True, eq=False)
class Moment:
    """When a weight method acts, and on what.

    Attributes:
        step: number of the optimizer step, from 1; at a task change, how many have been made.
        weights: the parameters that it may edit, in the order of the model.
        generator: source of all its draws, on the host.
        buffers: by name, those of modules whose weights it may edit, such as running statistics. Only for methods with
            `edits_buffers`.
        features: runs the model on its last inputs and returns the activations of each group of units, of shape
            (observations, units), with autograd. Only for methods with `feature_examples`.
        losses: at a task change, losses of the new data under the present weights, one per batch, with autograd, as
            the user gave them; None if they were not given.
        over_ranks: the mean over the ranks of a data-parallel run of one thing per weight, of its shape, None where a
            rank has none. For what is computed from features or losses: those differ from rank to rank, where weights,
            gradients of the step, and draws are alike.
    """

    step: int
    weights: Sequence[Weight]
    generator: Generator
    buffers: dict[str, Tensor] = field(default_factory=dict)
    features: Callable[[], list[Tensor]] = list
    losses: Iterable[Tensor] | None = None
    over_ranks: Callable[[Sequence[Tensor | None]], list[Tensor | None]] = list


@dataclass(frozen=True)
class WeightMethod(Method):
    """Edits gradients before the optimizer's step, or weights before or after it, or at a task change. Override what
    applies. All calls are made without autograd.

    Attributes:
        needs_units: it asks which layer is the output, or how far a layer is from it.
        draws: it asks for new weights.
        reads_gradients: its rule looks at gradients, and does not only add to them.
        forgets: it makes the optimizer forget what it remembers of some parameters.
        edits_buffers: it asks for buffers.
        takes_whole: its rule is about a matrix as such, and makes no sense for the factors of a computed one.
        evaluated: entry of each weight's state with which the network is to be evaluated, see
            `Attachment.evaluation_weights`; None for the weights themselves.
    """

    needs_units: ClassVar[bool] = False
    draws: ClassVar[bool] = False
    reads_gradients: ClassVar[bool] = False
    forgets: ClassVar[bool] = False
    edits_buffers: ClassVar[bool] = False
    takes_whole: ClassVar[bool] = False
    evaluated: ClassVar[str | None] = None

    @property
    def edits_gradients(self) -> bool:
        """Whether `before_step` edits gradients. Optimizers that compute them several times in a step are refused then:
        they compare them with the loss, which does not know of it.
        """
        return False

    @property
    def acts_at_steps(self) -> bool:
        """Whether the method acts around the optimizer's steps."""
        kind = type(self)
        return kind.before_step is not WeightMethod.before_step or kind.after_step is not WeightMethod.after_step

    @property
    def acts_at_task_changes(self) -> bool:
        """Whether it must be told of task changes."""
        return type(self).task_changed is not WeightMethod.task_changed

    @property
    def feature_examples(self) -> int:
        """How many of the last inputs to keep for `Moment.features`."""
        return 0

    def check(self, weights: Sequence[Weight]) -> None:
        """Raise `ConfigError` if it cannot work on these."""

    def initial_state(self, weight: Weight) -> dict[str, Tensor]:
        """What to remember of one parameter, from its values at attach."""
        return {}

    def before_step(self, moment: Moment) -> None:
        """Edit gradients or weights in place, just before an optimizer step."""

    def after_step(self, moment: Moment) -> None:
        """Edit weights in place, just after an optimizer step."""

    def task_changed(self, moment: Moment) -> None:
        """Edit weights in place, at a task change."""
