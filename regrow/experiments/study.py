"""What a study is: a problem, a network and the methods that are compared on it, at one scale or several."""

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch

from regrow.errors import ConfigError, nearest
from regrow.experiments.arm import Arm
from regrow.experiments.counterpart import Counterpart
from regrow.experiments.course import Course
from regrow.experiments.scale import Scale, with_changes
from regrow.experiments.spec import Engine, RunSpec
from regrow.methods import Method, method_named

ENGINES = ("auto", "fused", "plain", "batched")


class Study(ABC):
    """A problem and all that is compared on it. A subclass with `name=` is registered under it."""

    name: ClassVar[str] = ""
    registry: ClassVar[dict[str, "Study"]] = {}

    summary: ClassVar[str]
    """One line for the list."""
    caption: ClassVar[str]
    """What the problem is, for the figure."""
    scales: ClassVar[Mapping[str, Scale]]
    missing_scales: ClassVar[Mapping[str, str]] = {}
    """Why it has no such scale."""

    def __init_subclass__(cls, name: str = "", **keywords: Any) -> None:
        """Register a study under its command-line name."""
        super().__init_subclass__(**keywords)
        if not name:
            return
        if name in Study.registry:
            raise ConfigError(
                f"Two studies are called {name!r}: {type(Study.registry[name]).__name__} and {cls.__name__}."
            )
        cls.name = name
        Study.registry[name] = cls()

    @abstractmethod
    def arms(self, scale: str) -> dict[str, Arm]:
        """Return what is compared, by its name in the figure."""

    @abstractmethod
    def course(self, spec: RunSpec) -> Course:
        """Begin a run."""

    @abstractmethod
    def origin(self, problem: Mapping[str, Any]) -> str:
        """Say what data is read, and from where."""

    def obstacle(self, engine: Engine, problem: Mapping[str, Any], methods: Sequence[Method]) -> str | None:
        """Why an engine cannot do a run: a clause to put after "because". None if it can."""
        return None if engine == "plain" else "it learns online only, one example after another"

    def counterparts(self, scale: str) -> tuple[Counterpart, ...]:
        """Return the figures of the article that can be drawn of a scale as well."""
        return ()

    def scale(self, name: str) -> Scale:
        """Return the scale of that name; "laptop+tasks=50+flip=all" is laptop with two of its settings changed.

        Raises:
            ConfigError: there is no such scale, or it has no such setting.
        """
        name, *changes = name.split("+")
        if name in self.scales:
            return with_changes(name, self.scales[name], changes)
        if name in self.missing_scales:
            raise ConfigError(
                f"The study {self.name} has no scale {name!r}: {self.missing_scales[name]} Choose "
                f"{' or '.join(self.scales)}."
            )
        raise ConfigError(f"The study {self.name} has no scale {name!r}; {nearest(name, self.scales)}")

    def caption_of(self, scale: str) -> str:
        """Return what figures of a scale say of the problem, with the settings that were changed; nothing for smoke.

        Raises:
            ConfigError: see `scale`.
        """
        name, *changes = scale.split("+")
        if name == "smoke":
            return ""
        words = self.scale(scale).caption or self.caption
        return " ".join([words, f"But {', '.join(changes)}."]) if changes else words

    def settled(self, problem: Mapping[str, Any]) -> Mapping[str, Any]:
        """Settle what a scale leaves to the machine, such as which images are there: a run depends on nothing else."""
        return problem

    def specs(
        self,
        scale: str,
        seeds: Sequence[int] | None = None,
        methods: Sequence[str] | None = None,
        engine: str = "auto",
        data: str | None = None,
    ) -> list[RunSpec]:
        """List the runs: all methods of the first seed, then of the second, and so on.

        Args:
            scale: name of a scale, as for `scale`. What an arm has in its own way, it keeps.
            seeds: which seeds; those of the scale if None.
            methods: the names of which arms; all if None.
            engine: "fused" or "plain"; "auto" takes the fused one where it can serve the methods; "batched" makes one
                run of all seeds of a method, on a GPU if there is one.
            data: which images, as for `streams.sources.load`; those of the scale if None.

        Raises:
            ConfigError: there is no such scale, method or engine, the engine cannot serve a method, or the study reads
                no images.
            DataError: the images are not there.
        """
        chosen = self.scale(scale)
        common = dict(chosen.problem)
        if data is not None:
            if "data" not in common:
                raise ConfigError(f"The study {self.name} reads no data, so it cannot use {data!r}: leave --data out.")
            common["data"] = data
        common = dict(self.settled(common))
        known = self.arms(scale.partition("+")[0])
        for name in methods or ():
            if name not in known:
                raise ConfigError(f"The study {self.name} has no method {name!r}; {nearest(name, known)}")
        if engine not in ENGINES:
            raise ConfigError(f"There is no engine {engine!r}; {nearest(engine, ENGINES)}")
        arms = {name: arm for name, arm in known.items() if methods is None or name in methods}
        problems = {name: {**common, **arm.changes} for name, arm in arms.items()}
        engines = {name: self._engine(name, problems[name], arm.methods, engine) for name, arm in arms.items()}
        every = chosen.seeds if seeds is None else seeds
        together: list[tuple[int, ...]] = [(seed,) for seed in every]
        if engine == "batched":
            together = [tuple(every)]
            device = {"device": "cuda" if torch.cuda.is_available() else "cpu"}
            problems = {name: {**problem, **device} for name, problem in problems.items()}
        return [
            RunSpec(
                self.name,
                scale,
                name,
                tuple(map(_plain, arm.methods)),
                seeds[0],
                engines[name],
                problems[name],
                seeds[1:],
            )
            for seeds in together
            for name, arm in arms.items()
        ]

    def _engine(self, name: str, problem: Mapping[str, Any], methods: Sequence[Method], asked: str) -> Engine:
        """Which engine does an arm."""
        if asked == "plain":
            return "plain"
        wanted: Engine = "batched" if asked == "batched" else "fused"
        obstacle = self.obstacle(wanted, problem, methods)
        if obstacle is None:
            return wanted
        if asked == "auto":
            return "plain"
        raise ConfigError(
            f"The {asked} engine cannot run {name}, because {obstacle}. Choose the engine auto or plain, or other arms."
        )


def study_named(name: str) -> Study:
    """Return a registered study.

    Raises:
        ConfigError: no study has that name.
    """
    if name not in Study.registry:
        raise ConfigError(f"There is no study {name!r}; {nearest(name, Study.registry)}")
    return Study.registry[name]


def methods_of(spec: RunSpec) -> list[Method]:
    """Build the methods of a run."""
    return [method_named(method["name"], **method["settings"]) for method in spec.methods]


def why_plain(spec: RunSpec) -> str | None:
    """Why the fused engine cannot do a run: a clause to put after "because". None if it can."""
    return study_named(spec.study).obstacle("fused", spec.problem, methods_of(spec))


def _plain(method: Method) -> dict[str, Any]:
    return {"name": method.name, "settings": dataclasses.asdict(method)}
