"""What the reference trackers made of the real sequences, and the same of our tracks: golden/README.md."""

from __future__ import annotations

import hashlib
import json
import os
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mot_cup import Detections, Tracks

FOLDER = Path(__file__).parents[1] / "golden"
DATA = Path(os.environ.get("TENFOLD_DATA", "")) / "tracking"
needs_sequences = pytest.mark.skipif(
    not ((DATA / "sort_mot15").is_dir() and (DATA / "v2xsim" / "val_det").is_dir()),
    reason="the MOT15 and V2X-Sim detections are not in TENFOLD_DATA/tracking",
)


def golden(name: str) -> dict[str, Any]:
    """Return one reference run: its settings and a summary of each sequence."""
    document: dict[str, Any] = json.loads((FOLDER / f"{name}.json").read_text())
    return document


def summary(tracks: Tracks) -> dict[str, Any]:
    """Return row count, identity partition and coordinate sums of tracks, as the golden files hold them."""
    order = np.lexsort((tracks.boxes[:, 0], tracks.rows, tracks.frames))
    first: dict[int, int] = {}
    lines = [
        f"{tracks.frames[k]} {tracks.rows[k]} {first.setdefault(int(tracks.ids[k]), len(first))}\n"
        for k in order
    ]
    return {
        "rows": len(tracks),
        "identities": len(first),
        "partition": hashlib.sha256("".join(lines).encode()).hexdigest(),
        "sums": tracks.boxes.sum(0).tolist(),
    }


def assert_same(tracks: Tracks, expected: dict[str, Any]) -> None:
    """Hold tracks to a golden summary: partitions exactly, sums to 1e-9 for every box in them."""
    found = summary(tracks)
    for key in ("rows", "identities", "partition"):
        assert found[key] == expected[key], key
    np.testing.assert_allclose(found["sums"], expected["sums"], rtol=0, atol=1e-9 * max(1, len(tracks)))


@cache
def rows_of(sequence: str) -> tuple[np.ndarray, ...]:
    """Return the rows of every frame from 1 on: x1, y1, x2, y2, score, and what else the file has."""
    source, *rest = sequence.split("/")
    if source == "mot15":
        path = DATA / "sort_mot15" / rest[0] / "det" / "det.txt"
    else:
        path = DATA / "v2xsim" / "val_det" / rest[0] / f"{rest[1]}.txt"
    table = np.loadtxt(path, delimiter=",", ndmin=2)
    table[:, 4:6] += table[:, 2:4]
    frames = range(1, int(table[:, 0].max()) + 1)
    return tuple(table[table[:, 0] == frame, 2:] for frame in frames)


def detections_of(sequence: str) -> list[Detections]:
    """Return the detections of every frame from 1 on, without covariances."""
    return [Detections.from_array(rows[:, :5]) for rows in rows_of(sequence)]
