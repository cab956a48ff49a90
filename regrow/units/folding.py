"""Names that differ in one running number are said once: `h.0.mlp`, `h.1.mlp`, `h.2.mlp` become `h.0–2.mlp`."""

import re
from collections.abc import Collection, Hashable, Iterator, Sequence
from dataclasses import dataclass

# A number that ends a part of a dotted name. Not one in a range, which has been folded before.
_NUMBER = re.compile(r"(?<![\d–])(?:0|[1-9]\d*)(?![\dA-Za-z–])")
_BETWEEN = "\x1f"  # texts; it parts words, too


@dataclass(frozen=True)
class Fold:
    """Several rows of texts that are one.

    Attributes:
        texts: the texts, with `first–last` where a number runs.
        members: the places of the rows for which it stands, ascending.
        lengths: how many numbers each range has, the innermost first; none if it stands for one row. All
            ranges of one length run together.
    """

    texts: tuple[str, ...]
    members: tuple[int, ...]
    lengths: tuple[int, ...] = ()

    @property
    def joined(self) -> str:
        """All texts in one."""
        return _BETWEEN.join(self.texts)

    @property
    def numbers(self) -> tuple[int, ...]:
        """All numbers that may run, in order."""
        return tuple(int(found) for found in _NUMBER.findall(self.joined))


def fold(
    rows: Sequence[tuple[str, ...]], alike: Sequence[Hashable] | None = None, taken: Collection[int] = ()
) -> list[Fold]:
    """Fold rows of texts that are equal but for numbers, each of which is one greater in each further row, or equal.

    Nothing is lost: putting the first, second, ... number of each range in its place gives the rows. Where ranges
    nest, as in `stages.0–3.blocks.0–1`, each number of the one meets each of the other; they are then of
    different lengths, so that ranges of other texts can be told to run with the one or the other.

    Args:
        rows: the texts of each row, of which the first is its name.
        alike: for each row, what must be equal for two rows to be folded.
        taken: numbers of rows that must not be folded into one, as ranges of that length mean something else.

    Returns:
        In order of first members. A row that is like no other stands for itself.
    """
    kinds = alike or [None] * len(rows)
    folds = [Fold(texts, (place,)) for place, texts in enumerate(rows)]
    while len(once := _fold_once(folds, kinds, taken)) < len(folds):
        folds = once
    return folds


def _fold_once(folds: Sequence[Fold], kinds: Sequence[Hashable], taken: Collection[int]) -> list[Fold]:
    """Fold over the innermost number that runs."""
    similar: dict[Hashable, list[Fold]] = {}
    for row in folds:
        key = (kinds[row.members[0]], row.lengths, len(row.texts), _NUMBER.sub("\0", row.joined))
        similar.setdefault(key, []).append(row)
    folded = [
        found
        for rows in similar.values()
        for run, step in _runs(sorted(rows, key=lambda row: row.numbers))
        for found in _merge(run, step, taken)
    ]
    return sorted(folded, key=lambda row: row.members)


def _runs(rows: Sequence[Fold]) -> Iterator[tuple[Sequence[Fold], tuple[int, ...]]]:
    """The longest stretches in which each row is one same step from the one before."""
    start = 0
    while start < len(rows):
        end = start + 1
        step: tuple[int, ...] = ()
        while end < len(rows):
            found = _step(rows[end - 1], rows[end])
            if not found or step not in ((), found):
                break
            step, end = found, end + 1
        yield rows[start:end], step
        start = end


def _step(one: Fold, following: Fold) -> tuple[int, ...]:
    """By how much each number grows from one row to the next; nothing if no number runs."""
    step = tuple(after - before for before, after in zip(one.numbers, following.numbers, strict=True))
    words = [place for place, word in enumerate(one.joined.split()) for _ in _NUMBER.findall(word)]
    running = [word for word, change in zip(words, step, strict=True) if change]
    # Two in one word would be read as each number of the one with each of the other.
    clear = len(set(running)) == len(running)
    return step if running and clear and set(step) <= {0, 1} else ()


def _merge(run: Sequence[Fold], step: tuple[int, ...], taken: Collection[int]) -> Sequence[Fold]:
    """One row in the place of a run, if that is shorter and clear."""
    count, first = len(run), run[0]
    starts = {number for number, change in zip(first.numbers, step, strict=False) if change}
    # Two rows whose numbers are shifted against each other are better read as they are.
    if count < (2 if len(starts) == 1 else 3) or count in (*first.lengths, *taken):
        return run
    changes = iter(step)
    joined = _NUMBER.sub(lambda found: _range(int(found[0]), count) if next(changes) else found[0], first.joined)
    members = tuple(sorted(member for row in run for member in row.members))
    return [Fold(tuple(joined.split(_BETWEEN)), members, (*first.lengths, count))]


def _range(first: int, count: int) -> str:
    return f"{first}–{first + count - 1}"
