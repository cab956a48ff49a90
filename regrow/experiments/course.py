"""What a run does, piece after piece."""

from typing import Any, NamedTuple, Protocol

from regrow.experiments.store import Row

_PIECE_SECONDS = 1.0  # about so long, so that a checkpoint or a budget need not wait for the end of a long task


class Piece(NamedTuple):
    """Some work that was done.

    Attributes:
        seconds: of training in it.
        row: what was found, if it ended a task.
    """

    seconds: float
    row: Row | None


class Course(Protocol):
    """A run between its beginning and its end. It can be saved between two pieces of work, and where these end changes
    no bit of the result.
    """

    @property
    def progress(self) -> float:
        """The share of its work that is done, in [0, 1]."""

    def advance(self) -> Piece:
        """Do the next piece of work: a task, or about a second's worth of a long one."""

    def state_dict(self) -> dict[str, Any]:
        """Everything that `load_state_dict` needs for going on with the same bits: nested dicts and lists of tensors,
        numbers, strings and None.
        """

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` of a course of the same spec returned."""


class Pace:
    """How much makes up a piece of about a second, going by the pieces so far."""

    def __init__(self, first: int) -> None:
        self.amount = first

    def passed(self, amount: int, seconds: float) -> None:
        """Note how long an amount took; the next piece has at most four times as much."""
        if seconds > 0:
            self.amount = max(1, min(4 * self.amount, int(amount * _PIECE_SECONDS / seconds)))
