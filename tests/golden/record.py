"""Record runs anew: `python -m tests.golden.record [method ...]`, all methods by default.

A change of numbers that is wanted is named in CHANGELOG.md.
"""

import json
import sys
from typing import Any

import torch

from tests.conformance.cases import METHODS
from tests.golden.trace import path_of, trace_of


def main(names: list[str]) -> None:
    """Write the traces of some methods, and say which of them are other than before."""
    torch.set_num_threads(1)
    path_of("").parent.mkdir(exist_ok=True)
    for name in names or METHODS:
        path, text = path_of(name), _text(trace_of(name))
        before = path.read_text() if path.exists() else None
        path.write_text(text)
        print(f"{name}: {'new' if before is None else 'as it was' if before == text else 'changed'}")


def _text(trace: dict[str, Any]) -> str:
    """JSON with a line for each entry, so that a diff shows what changed."""
    parts = [f"{json.dumps(key)}: {_lines(value)}" for key, value in trace.items()]
    return "{\n" + ",\n".join(parts) + "\n}\n"


def _lines(value: Any) -> str:
    if not value or not isinstance(value, dict | list):
        return json.dumps(value)
    if isinstance(value, list):
        return "[\n" + ",\n".join(f"  {json.dumps(entry)}" for entry in value) + "\n]"
    entries = [f"  {json.dumps(key)}: {json.dumps(entry)}" for key, entry in value.items()]
    return "{\n" + ",\n".join(entries) + "\n}"


if __name__ == "__main__":
    main(sys.argv[1:])
