"""The random numbers of one task, reachable without going through the tasks before it."""

import operator

import numpy as np

from regrow.errors import ConfigError


def generator(seed: int, *key: int) -> np.random.Generator:
    """Return the generator that belongs to `seed` and `key`, always in the same state."""
    return np.random.default_rng([seed, *key])


def whole_number(name: str, value: int, least: int) -> int:
    """Return `value` as a plain int.

    Raises:
        ConfigError: it is not a whole number, or below `least`.
    """
    try:
        number = operator.index(value)
    except TypeError:
        raise ConfigError(f"{name}={value!r} is not a whole number: pass an int of at least {least}.") from None
    if number < least:
        raise ConfigError(f"{name}={number} is too small: it must be at least {least}.")
    return number
