"""What a method is: a frozen set of hyperparameters with a rule. Everything else is inherited.

`UnitMethod` scores and replaces units; `WeightMethod` edits gradients or weights. Hooks, state, devices,
checkpoints and surgery live once, in `regrow.attachment`; a new method writes its rule only. Defining a
subclass with `name=` registers it: there is no list to edit and no factory that knows methods.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar, NamedTuple

from regrow.errors import ConfigError, nearest


class Variant(NamedTuple):
    """Another method of the same class: what sets it apart, what it does and what that costs, as for `Method`."""

    settings: Mapping[str, Any]
    line: str
    cost: str


@dataclass(frozen=True)
class Method:
    """A way to keep a network plastic: a `UnitMethod` or a `WeightMethod`.

    Attributes:
        name: under which `attach` and the command know it.
        reference: where it comes from: authors, year, place.
        cost: what it does at each step, or when it acts, that takes time; `python -m benchmarks.overhead` measures it.
        off: settings with which training is, bit for bit, what it is without the method.
        brisk: settings with which a small network shows it at work within a few dozen steps, where its defaults do not.
        variants: settings that make another method of it, by its name. Each is known and tested as a method is.
    """

    name: ClassVar[str] = ""
    reference: ClassVar[str] = ""
    cost: ClassVar[str] = ""
    off: ClassVar[Mapping[str, Any]]
    brisk: ClassVar[Mapping[str, Any]] = {}
    variants: ClassVar[Mapping[str, Variant]] = {}
    registry: ClassVar[dict[str, type["Method"]]] = {}

    def __init_subclass__(cls, name: str = "", **keywords: Any) -> None:
        """Register a method under its command-line name; bases have none."""
        super().__init_subclass__(**keywords)
        if not name:
            return
        known = methods_by_name()
        for own in (name, *_variants_of(cls)):
            if own in known:
                raise ConfigError(f"Two methods are called {own!r}: {known[own][0].__name__} and {cls.__name__}.")
        if not hasattr(cls, "off"):
            raise ConfigError(f"{cls.__name__} must say in `off` with which settings it does nothing.")
        cls.name = name
        Method.registry[name] = cls

    def settings(self) -> dict[str, Any]:
        """The hyperparameters, by field name."""
        return {item.name: getattr(self, item.name) for item in fields(self)}


def methods_by_name() -> dict[str, tuple[type[Method], Mapping[str, Any]]]:
    """All that is registered, in order: a class, and the settings that make a variant of it; none for the class itself.
    Variants come last.
    """
    kinds = sorted(Method.registry.items())
    own: dict[str, tuple[type[Method], Mapping[str, Any]]] = {name: (kind, {}) for name, kind in kinds}
    return own | {name: (kind, each.settings) for _, kind in kinds for name, each in sorted(_variants_of(kind).items())}


def _variants_of(kind: type[Method]) -> Mapping[str, Variant]:
    """Without those of the classes that it is derived from."""
    own: Mapping[str, Variant] = vars(kind).get("variants", {})
    return own


def method_named(name: str, **settings: Any) -> Method:
    """Build a registered method, or a variant of one, from its name.

    Raises:
        ConfigError: no method has that name, or one of the settings is not a field of it.
    """
    registered = methods_by_name()
    if name not in registered:
        raise ConfigError(f"There is no method {name!r}; {nearest(name, registered)}")
    kind, extra = registered[name]
    known = [item.name for item in fields(kind)]
    for key in settings:
        if key not in known:
            raise ConfigError(f"{kind.__name__} has no setting {key!r}; {nearest(key, known)}")
    return kind(**{**extra, **settings})


def check_share(method: Method, setting: str) -> None:
    """Raise unless the setting is a number in [0, 1]."""
    value = getattr(method, setting)
    if not _is_number(value) or not 0 <= value <= 1:  # also refuses NaN
        raise ConfigError(f"{type(method).__name__}.{setting} is a share and must lie in [0, 1], but is {value!r}.")


def check_count(method: Method, setting: str, least: int = 0) -> None:
    """Raise unless the setting is a whole number of at least `least`."""
    value = getattr(method, setting)
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ConfigError(
            f"{type(method).__name__}.{setting} must be a whole number of at least {least}, but is {value!r}."
        )


def check_amount(method: Method, setting: str) -> None:
    """Raise unless the setting is a finite number of at least 0."""
    value = getattr(method, setting)
    if not _is_number(value) or not 0 <= value < float("inf"):
        raise ConfigError(f"{type(method).__name__}.{setting} must be a finite number ≥ 0, but is {value!r}.")


def _is_number(value: object) -> bool:
    """Whether it is a plain number, as the state that names the settings can hold it."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def check_choice(method: Method, setting: str, choices: tuple[str, ...]) -> None:
    """Raise unless the setting is one of the choices."""
    value = getattr(method, setting)
    if value not in choices:
        raise ConfigError(f"{type(method).__name__}.{setting} cannot be {value!r}; {nearest(str(value), choices)}")
