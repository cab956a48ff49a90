"""Curves made up for the report: a baseline that falls, others that do not."""

import numpy as np
import polars as pl
import pytest

FALL = {"backprop": 0.14, "cbp": -0.01, "l2": 0.0}


def _curves(methods=("backprop", "cbp", "l2"), seeds=5, tasks=60, fall=None, noise=0.003):
    rows = []
    for method in methods:
        share = FALL.get(method, 0.0) if fall is None else fall
        for seed in range(seeds):
            random = np.random.default_rng([seed, len(method)])
            accuracy = 0.9 - share * np.linspace(0, 1, tasks) + noise * random.normal(size=tasks)
            for task in range(tasks):
                dormant = 0.1 + 0.4 * task / tasks if method == "backprop" else 0.0
                values = (accuracy[task], dormant, 20 - 5 * dormant, 0.05 + 0.1 * dormant, 10 * task, 0.5 * (task + 1))
                rows.append(("permuted-digits", "smoke", method, seed, "fused", task, *values))
    keys = ["study", "scale", "method", "seed", "engine", "task"]
    measures = ["accuracy", "dormant", "effective_rank", "weight_magnitude", "replacements", "seconds"]
    return pl.DataFrame(rows, schema=keys + measures, orient="row")


@pytest.fixture
def curves():
    return _curves


@pytest.fixture
def begun(curves):
    """Seed 4 has stopped after 20 tasks, and no run of l2 is done: they have 30, 31, ... tasks."""
    return curves().filter(
        ~((pl.col("seed") == 4) & (pl.col("task") >= 20) & (pl.col("method") != "l2")),
        ~((pl.col("method") == "l2") & (pl.col("task") >= 30 + pl.col("seed"))),
    )
