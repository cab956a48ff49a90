"""The rules of the house: who imports whom, how large a file may grow, how wide the front door is."""

import ast
import subprocess
import sys
from pathlib import Path

import regrow

ROOT = Path(__file__).parent.parent
SOURCES = sorted((ROOT / "regrow").rglob("*.py"))


def test_rooms_import_from_floors_below_only() -> None:
    """The contract stands in pyproject.toml."""
    command = [Path(sys.executable).with_name("lint-imports"), "--config", ROOT / "pyproject.toml", "--no-cache"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env={"PYTHONPATH": str(ROOT)})
    assert result.returncode == 0, result.stdout + result.stderr
    assert "1 kept, 0 broken" in result.stdout


def test_every_room_stands_in_the_contract_and_in_the_docs() -> None:
    rooms = {path.name for path in (ROOT / "regrow").iterdir() if path.name not in ("__pycache__", "py.typed")}
    contract = (ROOT / "pyproject.toml").read_text()
    docs = (ROOT / "docs" / "architecture.md").read_text()
    for room in rooms - {"__init__.py"}:
        assert f'"{room.removesuffix(".py")}"' in contract
        assert f"| `{room}` |" in docs or f"| `{room}/` |" in docs


def test_a_file_can_be_read_in_one_sitting() -> None:
    long = {path.name: n for path in SOURCES if (n := len(path.read_text().splitlines())) > 500}
    assert not long


def test_there_is_no_drawer_for_odds_and_ends() -> None:
    assert not {path.stem for path in SOURCES} & {"utils", "util", "common", "helpers", "misc", "tools"}


def test_the_front_door_is_small_and_every_name_opens() -> None:
    assert len(regrow.__all__) <= 20
    for name in regrow.__all__:
        assert getattr(regrow, name).__doc__
    assert set(regrow.__all__) <= set(dir(regrow))


def test_names_for_type_checkers_are_the_names_at_run_time() -> None:
    tree = ast.parse((ROOT / "regrow" / "__init__.py").read_text())
    typed = {
        (alias.name, node.module)
        for branch in tree.body
        if isinstance(branch, ast.If)
        for node in branch.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert typed == set(regrow._HOME.items())


def test_importing_regrow_does_not_import_torch() -> None:
    code = "import sys, regrow; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_no_user_input_is_checked_with_assert_in_public_functions_of_the_boundary() -> None:
    """Where users' arguments come in, a failed check must be an error that helps."""
    for name in ("attachment/attach.py", "attachment/service.py", "methods/method.py", "cli.py"):
        tree = ast.parse((ROOT / "regrow" / name).read_text())
        assert not [node.lineno for node in ast.walk(tree) if isinstance(node, ast.Assert)], name


def test_the_quick_start_has_exactly_two_blocks_and_ci_runs_the_second() -> None:
    section = (ROOT / "README.md").read_text().split("\n## Quick start\n")[1].split("\n## ")[0]
    first, second = (block.split("```")[0] for block in section.split("```sh\n")[1:])
    assert section.count("```") == 4
    assert "regrow run permuted-digits" in first and "pytest" in second
    script = (ROOT / ".ci" / "run").read_text()
    extract = next(line for line in script.splitlines() if line.startswith("block="))
    printed = subprocess.run(["bash", "-c", f'{extract}; echo "$block"'], cwd=ROOT, capture_output=True, text=True)
    assert printed.stdout == second
