import json
import pickle
from pathlib import Path

import pytest

from tenfold import (
    CheckpointError,
    DataError,
    OutputError,
    SettingError,
    TenfoldError,
    UnknownNameError,
)
from tenfold.experiment import Claim, Record, Table, estimate, interval, read_records, write_json

CONTRACT = [
    "schema",
    "package",
    "version",
    "versions",
    "command",
    "dataset",
    "seed",
    "settings",
    "hardware",
    "started",
    "wall_seconds",
    "cpu_seconds",
    "peak_bytes",
    "history",
    "metrics",
    "claims",
]


def record(**changes: object) -> Record:
    fields = {
        "package": "p",
        "version": "1",
        "versions": {"python": "3.11"},
        "command": "p run",
        "dataset": "digits",
        "seed": 0,
        "settings": {"a": [1, 2]},
        "hardware": {"threads": 1},
        "started": "2026-01-01T00:00:00+00:00",
        "wall_seconds": 1.0,
        "cpu_seconds": 1.0,
        "peak_bytes": 1,
        "history": {"loss": [0.1, 0.2]},
        "metrics": {"accuracy": 97.0},
        "claims": [Claim.at_least("faster", paper=3.0, ours=2.5, unit="x")],
    }
    return Record(**{**fields, **changes})  # type: ignore[arg-type]


def test_the_document_has_the_contracts_keys_and_survives_a_round_trip(tmp_path: Path) -> None:
    original = record()
    original.write(tmp_path / "r.json")
    document = json.loads((tmp_path / "r.json").read_text())
    assert sorted(document) == sorted(CONTRACT)
    assert list(document["claims"][0]) == ["name", "paper", "ours", "unit", "holds", "note"]
    assert read_records(tmp_path / "r.json") == [original]


def test_a_list_of_records_is_read(tmp_path: Path) -> None:
    write_json(tmp_path / "r.json", [record().as_dict(), record(seed=1).as_dict()])
    assert [item.seed for item in read_records(tmp_path / "r.json")] == [0, 1]


@pytest.mark.parametrize(
    ("claim", "holds"),
    [
        (Claim.at_least("a", paper=3.0, ours=3.0), True),
        (Claim.at_least("a", paper=3.0, ours=2.999), False),
        (Claim.at_most("a", paper=3.0, ours=3.0), True),
        (Claim.at_most("a", paper=3.0, ours=3.001), False),
    ],
)
def test_whether_a_claim_holds_follows_from_its_figures(claim: Claim, holds: bool) -> None:
    assert claim.holds is holds


def test_results_leave_out_time_and_place() -> None:
    assert record().results() == record(wall_seconds=9.0, started="later", hardware={}).results()
    assert record().results() != record(metrics={"accuracy": 97.1}).results()


@pytest.mark.parametrize("text", ["", "{", "[1", '{"schema": "other"}'])
def test_a_bad_record_file_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "r.json").write_text(text)
    with pytest.raises(DataError, match="record"):
        read_records(tmp_path / "r.json")


def test_nan_is_refused_and_the_old_file_kept(tmp_path: Path) -> None:
    record().write(tmp_path / "r.json")
    with pytest.raises(ValueError, match="JSON"):
        record(metrics={"a": float("nan")}).write(tmp_path / "r.json")
    assert read_records(tmp_path / "r.json") == [record()]


def test_interval_covers_the_mean_and_needs_two_values() -> None:
    low, high = interval([1.0, 2.0, 3.0, 4.0])
    assert 1.0 <= low < 2.5 < high <= 4.0
    assert interval([1.0, 2.0, 3.0, 4.0]) == (low, high)
    assert interval([2.0, 2.0]) == (2.0, 2.0)
    assert all(end != end for end in interval([2.0]))


def test_estimate_as_text() -> None:
    assert estimate([]) == "–"
    assert estimate([2.0]) == "2.00"
    assert estimate([2.0, 2.0], 1) == "2.0 [2.0, 2.0]"


def test_table_as_markdown() -> None:
    assert Table("T", ["a", "b"], [["x", "1"]]).markdown().splitlines() == [
        "**T**",
        "",
        "| a | b |",
        "| --- | ---: |",
        "| x | 1 |",
    ]


@pytest.mark.parametrize("kind", [TenfoldError, SettingError, DataError, CheckpointError, OutputError])
def test_errors_name_what_came_expected_and_to_do_and_cross_processes(kind: type[TenfoldError]) -> None:
    error = kind("a came", "b", "Do c.")
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is kind
    assert str(copy) == str(error) == "a came; expected b. Do c."


def test_an_unknown_name_suggests_the_nearest() -> None:
    error = UnknownNameError("data set", "mnist5k", ["mnist-5k", "digits"])
    assert "Did you mean 'mnist-5k'?" in str(error)
    assert "digits" in str(UnknownNameError("data set", "zzz", ["digits"]))
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
