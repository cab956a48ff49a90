"""The benchmark of `find_units` on its smallest setting: the form of what it finds, no times."""

import pytest
import torch
from torch import nn

from benchmarks import tracing


@pytest.mark.parametrize("name", tracing.DEEP)
def test_time_over_depth(name: str) -> None:
    rows = tracing.over_depth(name, [1, 2], rounds=2)
    assert [(row["network"], row["layers"]) for row in rows] == [(name, 1), (name, 2)]
    assert rows[0]["ratio per layer"] == 1
    for row in rows:
        assert row["milliseconds per layer"] * row["layers"] == pytest.approx(1000 * row["seconds"])


def test_time_and_memory_of_a_network() -> None:
    found = tracing.weigh(lambda: (nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2)), {"input": torch.randn(2, 3)}))
    assert (found["parameters"], found["groups"]) == (26, 2)
    assert found.keys() == {"parameters", "groups", "seconds", "CPU seconds", "MiB above the model"}


def test_table_has_a_row_for_each_case() -> None:
    rows = tracing.over_depth("MLP, width 64", [1, 2], rounds=2)
    large = {"network": "GPT-2", "parameters": 124.4e6, "groups": 37, "seconds": 4.0, "CPU seconds": 5.0}
    found = {"depth": rows, "large": [large | {"MiB above the model": 700.0}], "environment": {"cpu": "one"}}
    text = tracing.table(found)
    assert text.count("MLP, width 64") == 2
    assert "124.4M      37     4.00   5.00        700" in text
    assert text.endswith("cpu: one")
