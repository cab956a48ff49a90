"""The options that docs/differences.md names are there."""

import re
import shlex
from pathlib import Path

import pytest

import regrow.methods
import regrow.studies  # noqa: F401 (registers them)
from regrow.experiments.study import study_named
from regrow.methods import Method

DOCUMENT = Path(__file__).parents[1] / "docs" / "differences.md"
ROWS = {
    cells[0].split()[0]: cells
    for line in DOCUMENT.read_text().splitlines()
    if re.match(r"\| D\d", line) and (cells := [cell.strip() for cell in line.strip("|").split("|")])
}
OPTIONS = [
    (row, option)
    for row, cells in ROWS.items()
    for option in re.findall(r"`([^`]+)`", cells[-1])
    if option != "--seeds"
]


def test_every_difference_has_its_row_and_every_row_its_option():
    assert list(ROWS) == [f"D{number}" for number in range(1, 22)]
    without = {row for row in ROWS if row not in dict(OPTIONS)}
    assert without == {"D8", "D16", "D18", "D21"}  # what changes no number, and what is no matter of the run
    assert all(len(cells) == 6 and all(cells) for cells in ROWS.values())


@pytest.mark.parametrize(("row", "option"), OPTIONS)
def test_an_option_is_there_and_is_not_the_default(row: str, option: str) -> None:
    if option.startswith("regrow run "):
        assert differs(*shlex.split(option)[2:])
        return
    method = eval(option, vars(regrow.methods))  # noqa: S307 (a line of our own document)
    assert isinstance(method, Method) and method != type(method)()


def differs(name: str, *words: str) -> bool:
    """Whether a command gives a study another problem than its scale has, or chooses a scale or an arm for it."""
    settings = dict(zip(words[::2], words[1::2], strict=True))
    study, scale = study_named(name), settings["--scale"]
    base = scale.partition("+")[0]
    arms = study.arms(base)
    if "--methods" in settings:
        chosen = settings["--methods"]
        return all(arm != arms[chosen] for name, arm in arms.items() if name != chosen)
    if scale == base:
        return study.scale(scale).problem != study.scale("paper").problem
    return study.scale(scale).problem != study.scale(base).problem
