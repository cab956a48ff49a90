"""The page on defects of other implementations names tests that exist."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
ROW = re.compile(r"\| (\d+) \| (.+) \| (.+) \|")
TEST = re.compile(r"`(tests/[\w/]+\.py)::(test_\w+)`")


def rows() -> dict[int, str]:
    """The tests of each defect, as they are named in its row."""
    lines = (ROOT / "docs" / "traps.md").read_text().splitlines()
    return {int(found[1]): found[3] for line in lines if (found := ROW.fullmatch(line))}


def functions_in(path: Path) -> set[str]:
    """Names of the test functions of a file."""
    return {node.name for node in ast.parse(path.read_text()).body if isinstance(node, ast.FunctionDef)}


def test_no_defect_is_left_out_and_each_has_a_test() -> None:
    assert list(rows()) == list(range(1, 34))
    assert all(TEST.search(tests) for tests in rows().values())


def test_every_test_that_is_named_exists() -> None:
    named = {tuple(found) for tests in rows().values() for found in TEST.findall(tests)}
    assert len(named) == len({name for row in rows().values() for name in re.findall(r"`(\S+)`", row)})
    missing = [f"{file}::{test}" for file, test in sorted(named) if test not in functions_in(ROOT / file)]
    assert not missing
