"""The command ``mot-cup track``: detections in files to tracks in files."""

from __future__ import annotations

import dataclasses
import inspect
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_type_hints

import numpy as np
import typer
from rich.console import Console
from rich.progress import track as progress

from mot_cup import likelihood
from mot_cup._bytetrack import ByteTrack
from mot_cup._detections import Detections
from mot_cup._noise import BYTETRACK_PAPER_FACTORS, PAPER_FACTORS, PaperCompat
from mot_cup._ocsort import OCSort
from mot_cup._sort import Sort
from mot_cup._tracks import Tracks
from mot_cup.conformal import Calibration
from mot_cup.io import read_detections, write_mot_tracks
from tenfold import DataError, SettingError
from tenfold.experiment import Table
from tenfold.experiment.cli import override, show, write_document

TRACKERS: dict[str, Any] = {"sort": Sort, "bytetrack": ByteTrack, "ocsort": OCSort}
Uncertain = Literal["off", "covariance", "conformal", "paper"]


def track_command(
    detections: Annotated[
        Path, typer.Argument(help="Detections: a file, or a folder of SEQUENCE/det/det.txt or SEQUENCE.txt.")
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Tracks to write: a file, or a folder for a folder.")
    ],
    tracker: Annotated[Literal["sort", "bytetrack", "ocsort"], typer.Option(help="Which tracker.")] = "sort",
    uncertainty: Annotated[
        Uncertain,
        typer.Option(
            help="What the detections' covariances are for: nothing, the filter, the filter once they are "
            "calibrated, or what the paper's authors do."
        ),
    ] = "off",
    calibration: Annotated[
        Path | None, typer.Option(help="For conformal: a file that mot-cup calibrate wrote.")
    ] = None,
    noise: Annotated[
        Path | None,
        typer.Option(help="The filter's noise, and with it its state: a file that mot-cup noise wrote."),
    ] = None,
    begin_score: Annotated[
        float | None, typer.Option(help="For sort: detections of a lower score begin no track.")
    ] = None,
    coast: Annotated[
        float | None,
        typer.Option(help="For sort: frames in which a track is reported after its last detection."),
    ] = None,
    min_score: Annotated[float, typer.Option(help="Leave out detections of a lower score.")] = -np.inf,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="Change a setting of the tracker; repeatable."),
    ] = None,
    json: Annotated[str | None, typer.Option("--json", help="Write the figures here; - for stdout.")] = None,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Track whole sequences, and write them in MOTChallenge's format.

    Detections are in the format of MOTChallenge, KITTI or V2X-Sim, or in that of mot-cup simulate. Frames
    that a file does not have between its first and its last are frames without detections.
    """
    if (calibration is None) != (uncertainty != "conformal"):
        raise SettingError(
            f"uncertainty {uncertainty} and the calibration {calibration}",
            "a calibration with conformal, and with nothing else",
            "Make one by mot-cup calibrate, or leave it out.",
        )
    known = Calibration.load(calibration) if calibration else None
    own = {"begin_score": begin_score, "coast": coast}
    given = [f"{name}={value}" for name, value in own.items() if value is not None]
    if tracker != "sort" and given:
        raise SettingError(f"--begin-score or --coast with {tracker}", "with sort alone", "Leave them out.")
    chosen = make(tracker, uncertainty, [*(settings or []), *given], noise)
    console = Console(stderr=True)
    rows = []
    # A thread that draws may collect what LLVM left, and wait for ever for the lock of a compilation.
    for name, (source, target) in progress(
        files(detections, output).items(), "tracking", console=console, transient=True, auto_refresh=False
    ):
        frames: Mapping[int, Detections] = read_detections(source)
        if min_score > -np.inf:
            frames = {frame: some[some.scores >= min_score] for frame, some in frames.items()}
        if known:
            frames = {frame: known.apply(some) for frame, some in frames.items()}
        start = time.perf_counter()
        tracks: Tracks = chosen.track(frames)
        seconds = time.perf_counter() - start
        write_mot_tracks(target, tracks)
        rows.append(_row(name, frames, tracks, seconds))
    document = {"tracker": tracker, "uncertainty": uncertainty, "sequences": rows}
    show([track_table(document)], Console(stderr=json == "-"))
    write_document(document, json)


def make(tracker: str, uncertainty: str, assignments: Sequence[str], noise: Path | None = None) -> Any:
    """Return a tracker with some of its settings changed, those that are numbers, words or switches.

    Parameters
    ----------
    tracker : {"sort", "bytetrack", "ocsort"}
    uncertainty : {"off", "covariance", "conformal", "paper"}
    assignments : sequence of str
        ``NAME=VALUE``.
    noise : Path, optional
        A file with the filter's noise, and its state.

    Raises
    ------
    DataError
        The noise cannot be read.
    SettingError, UnknownNameError
        A setting is unknown or impossible.
    """
    kind = TRACKERS[tracker]
    hints = get_type_hints(kind.__init__)
    fields = [
        (name, hints[name], dataclasses.field(default=parameter.default))
        for name, parameter in inspect.signature(kind).parameters.items()
        if isinstance(parameter.default, bool | int | float | str) and name != "uncertainty"
    ]
    values = override(dataclasses.make_dataclass("Settings", fields, frozen=True)(), assignments)
    chosen = vars(values)
    if noise:
        chosen["noise"], chosen["state"] = likelihood.load(noise)
    if uncertainty == "paper":
        if tracker == "ocsort":
            raise SettingError("the paper's uncertainty in OC-SORT", "sort or bytetrack", "Use covariance.")
        factors = PAPER_FACTORS if tracker == "sort" else BYTETRACK_PAPER_FACTORS
        return kind(**chosen, uncertainty=PaperCompat(factors["upper bound"]))
    return kind(**chosen, uncertainty="off" if uncertainty == "off" else "covariance")


def files(detections: Path, output: Path) -> dict[str, tuple[Path, Path]]:
    """Return, by sequence, the file to read and the file to write."""
    if not detections.exists():
        raise DataError(f"no file or folder {detections}", "an existing one", "Correct the path.")
    if detections.is_file():
        return {_sequence(detections): (detections, output)}
    found = {path.parent.parent.name: path for path in sorted(detections.glob("*/det/det.txt"))}
    found = found or {path.stem: path for path in sorted(detections.glob("*.txt"))}
    if not found:
        raise DataError(
            f"no detections in {detections}", "SEQUENCE/det/det.txt or SEQUENCE.txt", "Correct the path."
        )
    return {name: (path, output / f"{name}.txt") for name, path in found.items()}


def track_table(document: Mapping[str, Any]) -> Table:
    """Tabulate the document of the command: a row for each sequence."""
    columns = ["sequence", "frames", "detections", "boxes", "identities", "frames a second"]
    rows = [
        [
            row["sequence"],
            *(f"{row[name]:,}" for name in columns[1:5]),
            f"{row['frames'] / max(row['seconds'], 1e-9):,.0f}",
        ]
        for row in document["sequences"]
    ]
    return Table(f"{document['tracker']}, uncertainty {document['uncertainty']}", columns, rows)


def _sequence(path: Path) -> str:
    return path.parent.parent.resolve().name if path.name == "det.txt" else path.stem


def _row(name: str, frames: Mapping[int, Detections], tracks: Tracks, seconds: float) -> dict[str, Any]:
    return {
        "sequence": name,
        "frames": max(frames) - min(frames) + 1 if frames else 0,
        "detections": sum(map(len, frames.values())),
        "boxes": len(tracks),
        "identities": len(set(tracks.ids.tolist())),
        "seconds": seconds,
    }
