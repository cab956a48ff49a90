"""The example scripts, each in a process of its own, for a few steps."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
STEPS = {
    "stable_baselines3_ppo": (2048, r"[1-9]\d* units replaced\nreturn after 2048 steps: \d+ ± \d+\n$"),
    "stable_baselines3_sac": (
        1000,
        r"actor: ([1-9]\d*) units replaced, the last ([1-9]\d*) since load\ncritic: .*\nreturn after 1000 steps: -\d+",
    ),
}


def test_every_example_is_run() -> None:
    assert {file.stem for file in (ROOT / "examples").glob("*.py")} == set(STEPS)


@pytest.mark.parametrize("name", STEPS)
def test_example(name: str) -> None:
    steps, printed = STEPS[name]
    command = [sys.executable, "-W", "error", "-P", str(ROOT / "examples" / f"{name}.py"), str(steps)]
    result = subprocess.run(command, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert re.search(printed, result.stdout), result.stdout
