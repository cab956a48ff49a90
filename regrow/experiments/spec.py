"""What determines a run: everything that its result depends on, and nothing else."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from regrow.errors import StoreError

Engine = Literal["fused", "plain", "batched"]
Settings = dict[str, Any]
FORMAT = 1
"""Of the folders of runs. A later one is to be written into the spec as "format"; without it, it is 1."""


@dataclass(frozen=True, eq=False)
class RunSpec:
    """One cell of a study. The run is a pure function of this; its folder is named by `key`.

    Attributes:
        study: name of the study.
        scale: name of the scale, "smoke", "laptop" or "paper".
        method: what the figure calls the method.
        methods: the methods in their order, each {"name": registered name, "settings": all its hyperparameters}.
        seed: draws the stream, the network and the methods. The same for all methods of a study, so that they
            can be compared in pairs.
        engine: "fused", "plain" or "batched", decided before the run.
        problem: every other number: length, data, network, optimizer, what is measured. JSON values only.
        beside: further seeds that the batched engine learns side by side with the first; none for the other engines.
    """

    study: str
    scale: str
    method: str
    methods: tuple[Settings, ...]
    seed: int
    engine: Engine
    problem: Mapping[str, Any]
    beside: tuple[int, ...] = ()

    @property
    def seeds(self) -> tuple[int, ...]:
        """All seeds of the run."""
        return (self.seed, *self.beside)

    @property
    def title(self) -> str:
        """What a message calls the run."""
        if self.beside:
            return f"{self.method}, {len(self.seeds)} seeds from {self.seed}"
        return f"{self.method}, seed {self.seed}"

    @property
    def key(self) -> str:
        """16 hexadecimal digits of the SHA-256 of the canonical JSON."""
        return hashlib.sha256(self.to_json()).hexdigest()[:16]

    @property
    def tasks(self) -> int:
        """How many tasks the run has."""
        return int(self.problem["tasks"])

    def to_json(self) -> bytes:
        """Canonical JSON: keys sorted, no blanks, one line; "beside" only if there are such seeds."""
        values = {name: value for name, value in asdict(self).items() if name != "beside" or value}
        return json.dumps(values, sort_keys=True, separators=(",", ":"), allow_nan=False).encode() + b"\n"

    @classmethod
    def from_json(cls, data: bytes, place: str) -> "RunSpec":
        """Read what `to_json` wrote.

        Args:
            data: the bytes.
            place: where they come from, for the error.

        Raises:
            StoreError: it is not a spec, or one of a newer regrow.
        """
        try:
            values = {"beside": ()} | json.loads(data)
            written = values.get("format", FORMAT)
            if written <= FORMAT:
                return cls(**{item.name: values.pop(item.name) for item in fields(cls)}, **values)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise StoreError(
                f"{place} does not hold the spec of a run ({type(error).__name__}: {error}): delete its folder to run "
                "it again."
            ) from error
        raise StoreError(
            f"{place} was written by a newer regrow (format {written}; this one reads up to {FORMAT}): update regrow."
        )
