"""The command ``mot-cup calibrate``: conformal quantiles of a detector from detections and their truth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from mot_cup._boxes import Space
from mot_cup._detections import Detections
from mot_cup._tracks import Tracks
from mot_cup.conformal import PAPER_LEVEL, Calibration, Region, calibrate, match, pooled
from mot_cup.io import read_detections, read_tracks, read_v2xsim
from tenfold import SettingError
from tenfold.experiment import Table
from tenfold.experiment.cli import show


def calibrate_command(
    detections: Annotated[
        list[Path],
        typer.Argument(help="Files of detections with variances, or V2X-Sim's folder.", metavar="DET..."),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="The calibration to write.")],
    truth: Annotated[
        list[Path] | None, typer.Option("--gt", help="Truth of each file, in the same order; repeatable.")
    ] = None,
    level: Annotated[float, typer.Option(help="Nominal coverage.")] = PAPER_LEVEL,
    space: Annotated[Space, typer.Option(help="Dimensions of the intervals.")] = "xywh",
    region: Annotated[Region, typer.Option(help="Level of each dimension, or of all four at once.")] = "each",
    per_class: Annotated[bool, typer.Option("--per-class", help="Quantiles of every class.")] = False,
    iou: Annotated[float, typer.Option(help="Overlap from which a detection is matched.")] = 0.3,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Calibrate the variances of a detector on detections that are matched to truth.

    The coverage is of matched detections, and of scenes like these.
    """
    matches = pooled([match(found, true, iou) for found, true in read_pairs(detections, truth or [])])
    made = calibrate(matches, level=level, space=space, region=region, per_class=per_class)
    made.save(output)
    show([calibration_table(made)], Console())


def calibration_table(calibration: Calibration) -> Table:
    """Tabulate the factors of standard deviations: a row for a class, a column for a dimension."""
    names: Sequence[str] = (
        ["all"] if calibration.classes is None else [str(number) for number in calibration.classes]
    )
    factors = calibration.quantiles / calibration.deviations
    rows = [
        [name, f"{size:,}", *(f"{factor:.3g}" for factor in row)]
        for name, size, row in zip(names, calibration.sizes.tolist(), factors.tolist(), strict=True)
    ]
    title = (
        f"what multiplies standard deviations, at {100 * calibration.level:g} % of matched detections, "
        f"{calibration.region}"
    )
    corners = ["x1", "y1", "x2", "y2"]
    dimensions = corners if calibration.space == "xyxy" else list(calibration.space)
    return Table(title, ["class", "matched", *dimensions], rows)


def read_pairs(
    detections: Sequence[Path], truth: Sequence[Path]
) -> list[tuple[Mapping[int, Detections], Tracks]]:
    """Read detections and the truth of each, or all of V2X-Sim's folder.

    Raises
    ------
    DataError
        A file is missing or malformed.
    SettingError
        There are more files of the one than of the other.
    """
    if len(detections) == 1 and detections[0].is_dir() and not truth:
        return [(item.detections, item.truth) for item in read_v2xsim(detections[0])]
    if len(detections) != len(truth):
        raise SettingError(
            f"{len(detections)} files of detections and {len(truth)} of truth",
            "one of truth for each",
            "Repeat --gt in the order of the detections.",
        )
    return [
        (read_detections(found), read_tracks(true)) for found, true in zip(detections, truth, strict=True)
    ]
