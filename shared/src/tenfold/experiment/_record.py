"""The run record: one JSON document a run, a public contract."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tenfold.errors import DataError
from tenfold.experiment._checkpoint import write_whole

SCHEMA = "tenfold.record/1"


@dataclass(frozen=True)
class Claim:
    """A figure of the paper beside ours; whether it holds follows from the two.

    Build one with `Claim.at_least` or `Claim.at_most`.
    """

    name: str
    paper: float
    ours: float
    unit: str
    holds: bool
    note: str

    @classmethod
    def at_least(cls, name: str, *, paper: float, ours: float, unit: str = "", note: str = "") -> Claim:
        """Claim that holds when our figure is not below the paper's."""
        return cls(name, paper, ours, unit, ours >= paper, note)

    @classmethod
    def at_most(cls, name: str, *, paper: float, ours: float, unit: str = "", note: str = "") -> Claim:
        """Claim that holds when our figure is not above the paper's."""
        return cls(name, paper, ours, unit, ours <= paper, note)


@dataclass
class Record:
    """What one run did and found.

    Attributes
    ----------
    schema : str
        Version of this contract.
    package, version : str
        Distribution that ran and its version.
    versions : dict of str to str
        Python, the distribution's requirements as installed, and ``git``: the commit of a
        source checkout, with ``+changes`` when its files differ from it.
    command : str
        The command that gives this record again.
    dataset : str
        Name and variant of the data set, empty when there is none.
    seed : int
    settings : dict
        Every setting with its value.
    hardware : dict
        What `tenfold.hardware.describe` said, and ``threads``: the threads used.
    started : str
        ISO 8601, UTC.
    wall_seconds, cpu_seconds : float
        Summed over interruptions.
    peak_bytes : int
        Largest resident memory of the process during the run.
    history : dict of str to list of float
        Metrics over time.
    metrics : dict of str to float
        Final metrics.
    claims : list of Claim
    """

    package: str
    version: str
    versions: dict[str, str]
    command: str
    dataset: str
    seed: int
    settings: dict[str, Any]
    hardware: dict[str, Any]
    started: str
    wall_seconds: float
    cpu_seconds: float
    peak_bytes: int
    history: dict[str, list[float]] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    claims: list[Claim] = field(default_factory=list)
    schema: str = SCHEMA

    def as_dict(self) -> dict[str, Any]:
        """Return the record as plain JSON values, the schema first."""
        return {"schema": self.schema, **dataclasses.asdict(self)}

    @classmethod
    def from_dict(cls, document: dict[str, Any]) -> Record:
        """Rebuild a record from `as_dict`.

        Raises
        ------
        DataError
            A key is missing or unknown, or the schema is another one.
        """
        names = {item.name for item in dataclasses.fields(cls)}
        if document.get("schema") != SCHEMA or set(document) != names:
            wrong = sorted(set(document) ^ names)
            raise DataError(
                f"a record of schema {document.get('schema')!r}"
                + (f", keys amiss: {wrong}" if wrong else ""),
                f"schema {SCHEMA!r} with exactly its keys",
                "Run the experiment again with this version.",
            )
        claims = [Claim(**claim) for claim in document["claims"]]
        return cls(**{**document, "claims": claims})

    def results(self) -> dict[str, Any]:
        """Return what a repetition must reproduce bit for bit: all but times, memory and place."""
        kept = ("package", "dataset", "seed", "settings", "history", "metrics", "claims")
        return {key: value for key, value in self.as_dict().items() if key in kept}

    def write(self, path: Path) -> None:
        """Write the record as JSON, whole or not at all (`OutputError` when it cannot be)."""
        write_json(path, self.as_dict())


def write_json(path: Path, document: Any) -> None:
    """Write a JSON document whole or not at all; NaN and infinity are refused.

    Raises
    ------
    OutputError
        The file cannot be written.
    """
    text = as_json(document)
    write_whole(path, lambda temporary: _write_text(temporary, text))


def as_json(document: Any) -> str:
    """Return the text of a JSON document; NaN and infinity are refused."""
    return json.dumps(document, indent=1, allow_nan=False, ensure_ascii=False) + "\n"


def read_records(path: Path) -> list[Record]:
    """Read the records of one file: a single record, or the list that a sweep wrote.

    Raises
    ------
    DataError
        The file is missing, not JSON, or not of the contract's shape.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(
            f"run record {path} cannot be read ({error})",
            "a JSON file written by `--json`",
            "Run the command of that experiment again.",
        ) from error
    documents: Sequence[dict[str, Any]] = document if isinstance(document, list) else [document]
    return [Record.from_dict(item) for item in documents]


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
