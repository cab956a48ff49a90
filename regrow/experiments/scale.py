"""How large a study is run, and with which settings."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from regrow.errors import ConfigError, nearest


@dataclass(frozen=True)
class Scale:
    """How large a study is run.

    Attributes:
        summary: what to expect, in a few words.
        seeds: which seeds by default.
        problem: every number that determines a run beside its methods, its seed and its engine (`RunSpec.problem`);
            "tasks" is always among them. An arm may have some of them in its own way, but all have as many tasks.
        caption: what the problem is, for the figure; that of the study if empty.
    """

    summary: str
    seeds: range
    problem: Mapping[str, Any]
    caption: str = ""


def with_changes(name: str, scale: Scale, changes: Sequence[str]) -> Scale:
    """Change settings of a scale.

    Args:
        name: what the scale is called, for the errors.
        scale: the scale.
        changes: each "setting=value", with the value in JSON or, if it is no JSON, as it stands.

    Raises:
        ConfigError: there is no such setting, or the value is of another kind than the one of the scale.
    """
    problem = dict(scale.problem)
    for change in changes:
        setting, _, text = change.partition("=")
        if setting not in problem:
            raise ConfigError(f"The scale {name} has no setting {setting!r}; {nearest(setting, problem)}")
        problem[setting] = _like(problem[setting], text, f"{name}+{change}")
    return replace(scale, problem=problem)


def _like(present: Any, text: str, place: str) -> Any:
    try:
        value = json.loads(text)
    except ValueError:
        value = text
    if type(present) is float and type(value) is int:
        value = float(value)
    if type(value) is not type(present):
        raise ConfigError(
            f"{place} gives a {type(value).__name__}, but the setting is a {type(present).__name__} such as "
            f"{json.dumps(present)}."
        )
    return value
