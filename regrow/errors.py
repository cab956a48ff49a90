"""Every error that regrow raises on purpose.

One base, `RegrowError`, with the standard exception beside it, so that both `except RegrowError` and
`except ValueError` work. A message says what was wrong, where, with which value, and what to do next.
"""

import difflib
from collections.abc import Iterable


class RegrowError(Exception):
    """Base of all errors that regrow raises on purpose."""


class ConfigError(RegrowError, ValueError):
    """A hyperparameter, a name or a combination of arguments cannot be used."""


class ModelError(RegrowError, ValueError):
    """The network, its example or its optimizer cannot be served as given."""


class StateError(RegrowError, RuntimeError):
    """Saved state does not fit, or an operation came at the wrong time."""


class StoreError(RegrowError, OSError):
    """A run folder cannot be read or written."""


class DataError(RegrowError, FileNotFoundError):
    """A data set is not there or not readable."""


class DependencyError(RegrowError, ImportError):
    """A package that an extra of regrow installs is not there."""


def nearest(name: str, known: Iterable[str]) -> str:
    """Say which known name is closest to `name`, and list them all.

    Returns a sentence to append to an error message.
    """
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return f"{hint}Known: {', '.join(names)}."
