"""Arrays in, arrays out: means over stretches of tasks, and how sure a mean over seeds is."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

_RESAMPLES = 9_999


class Interval(NamedTuple):
    """A mean over seeds and the bounds of its 95 % interval, of one shape; the bounds of one seed are NaN."""

    mean: Array
    low: Array
    high: Array


def mean_interval(values: Array) -> Interval:
    """Return the mean over the first axis with its 95 % bootstrap interval (percentile method, 9,999 resamples).

    Whole runs are resampled, with fixed random numbers: the same values always give the same interval.

    Args:
        values: [seeds, ...]. Where one is NaN, mean and bounds are NaN.
    """
    seeds = len(values)
    mean = values.mean(axis=0)
    if seeds < 2:
        return Interval(mean, np.full_like(mean, np.nan), np.full_like(mean, np.nan))
    # A resample is how often it holds each run, so that all resampled means are one matrix product.
    counts = np.random.default_rng(0).multinomial(seeds, np.full(seeds, 1 / seeds), size=_RESAMPLES)
    means = counts.astype(np.float64) @ values.reshape(seeds, -1) / seeds
    low, high = np.quantile(means, [0.025, 0.975], axis=0)
    return Interval(mean, low.reshape(mean.shape), high.reshape(mean.shape))


def standard_error(values: Array) -> Interval:
    """Return the mean over the first axis, and one standard error of it (ddof 1) below and above.

    Args:
        values: [seeds, ...]. Where one is NaN, mean and bounds are NaN.
    """
    seeds = len(values)
    mean = values.mean(axis=0)
    error = values.std(axis=0, ddof=1) / np.sqrt(seeds) if seeds > 1 else np.full_like(mean, np.nan)
    return Interval(mean, mean - error, mean + error)


def bin_width(tasks: int, points: int = 50) -> int:
    """Return the smallest of 1, 2, 5, 10, 20, 50, ... that cuts `tasks` into at most `points` bins."""
    width, steps = 1, (2.0, 2.5, 2.0)
    for turn in range(10**6):
        if tasks <= width * points:
            break
        width = int(width * steps[turn % 3])
    return width


def bin_means(values: Array, width: int) -> Array:
    """Return the means of `values` [seeds, tasks] over stretches of `width` tasks: [seeds, bins].

    The last bin may hold fewer tasks. NaN are left out of a mean; the mean of nothing is NaN.
    """
    seeds, tasks = values.shape
    bins = -(-tasks // width)
    padded = np.full((seeds, bins * width), np.nan)
    padded[:, :tasks] = values
    return nan_mean(padded.reshape(seeds, bins, width))


def bin_centres(tasks: int, width: int) -> Array:
    """Return where the bins lie on an axis of tasks numbered from 1: [bins]."""
    first = np.arange(0, tasks, width)
    last = np.minimum(first + width, tasks)
    return (first + 1 + last) / 2


def nan_mean(values: Array) -> Array:
    """Return the mean over the last axis without NaN; the mean of nothing is NaN."""
    there = np.isfinite(values)
    count = there.sum(axis=-1)
    total = np.where(there, values, 0.0).sum(axis=-1)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)
