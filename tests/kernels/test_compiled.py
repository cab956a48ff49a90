"""How the room compiles: nothing stale from disk, no meaning lost for NaN."""

import importlib.util
import os
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from regrow.kernels import compiled as room


def imported(name: str, path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_code_on_disk_is_not_used_once_any_file_of_the_room_has_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    caller, callee = tmp_path / "stale_caller.py", tmp_path / "stale_callee.py"
    caller.write_text(
        "from regrow.kernels.compiled import compiled\nimport stale_callee\ncallee = stale_callee.answer\n"
        "@compiled\ndef ask():\n    return callee()\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    answers = []
    for round_, answer in enumerate((41, 42)):
        callee.write_text(
            f"from regrow.kernels.compiled import compiled\n@compiled\ndef answer():\n    return {answer}\n"
        )
        # Python's own cache looks at whole seconds and sizes; both files are new to this test's second round.
        os.utime(callee, (round_, round_))
        monkeypatch.setattr(room, "sources", room.digest(tmp_path))
        monkeypatch.setitem(importlib.import_module("sys").modules, "stale_callee", imported("stale_callee", callee))
        answers.append(imported("stale_caller", caller).ask())
    assert answers == [41, 42]


def test_where_machine_code_cannot_be_kept_it_is_compiled_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("numba.core.caching.CacheImpl._locator_classes", [])
    assert room.compiled(lambda x: x + 1)(1) == 2


def test_nan_and_infinity_are_seen() -> None:
    @room.compiled
    def seen(x: np.float32) -> tuple[bool, bool, bool]:
        return bool(np.isfinite(x)), bool(np.isnan(x)), bool(x <= 0)

    assert [seen(np.float32(x)) for x in (1, np.nan, np.inf, -np.inf)] == [
        (True, False, False),
        (False, True, False),
        (False, False, False),
        (False, False, True),
    ]
