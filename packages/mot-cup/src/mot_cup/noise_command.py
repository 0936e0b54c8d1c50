"""The command ``mot-cup noise``: a filter's noise by maximum likelihood from detections and their truth."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.console import Console

from mot_cup import likelihood
from mot_cup._noise import Noise
from mot_cup._state_models import StateModel
from mot_cup.calibrate_command import read_pairs
from mot_cup.conformal import Calibration
from mot_cup.identities import relink
from tenfold.experiment import Table
from tenfold.experiment.cli import show

ROWS: Mapping[str, str] = {
    "measurement": "of a measurement",
    "process": "of a frame's change",
    "process_velocity": "of a frame's change of the velocity",
    "first_velocity": "of the first velocity",
}


def noise_command(
    detections: Annotated[
        list[Path], typer.Argument(help="Files of detections, or V2X-Sim's folder.", metavar="DET...")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="The noise to write.")],
    truth: Annotated[
        list[Path] | None, typer.Option("--gt", help="Truth of each file, in the same order; repeatable.")
    ] = None,
    state: Annotated[StateModel, typer.Option(help="State model of the filter.")] = "xywh",
    covariances: Annotated[
        bool, typer.Option(help="Measurements have the detections' covariances, where all have one.")
    ] = True,
    calibration: Annotated[
        Path | None, typer.Option(help="Calibrate them first, by a file that mot-cup calibrate wrote.")
    ] = None,
    mend: Annotated[
        bool, typer.Option("--relink", help="Give the truth new identities, from its boxes.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Fit the noise of a tracker's filter to detections that are matched to truth.

    Deviations are fractions of the height; of xysr, which has none, constants. mot-cup track --noise uses it.
    """
    known = Calibration.load(calibration) if calibration else None
    parts = []
    for found, true in read_pairs(detections, truth or []):
        frames = {frame: known.apply(some) for frame, some in found.items()} if known else found
        objects = relink(true) if mend else true
        parts.append(likelihood.observations(frames, objects, state, covariances=covariances))
    observed = likelihood.pooled(parts)
    fitted = likelihood.fit(observed, of_height=state != "xysr")
    likelihood.save(output, fitted, state)
    show([noise_table(fitted, state, len(observed))], Console())


def noise_table(noise: Noise, state: StateModel, boxes: int) -> Table:
    """Tabulate standard deviations: a row for a kind, a column for a coordinate."""
    relative = state != "xysr"
    suffix, unit = ("_fraction", "fractions of the height") if relative else ("", "pixels")
    rows = [
        [title, *(f"{value:.3g}" for value in np.sqrt(getattr(noise, f"{kind}{suffix}")))]
        for kind, title in ROWS.items()
    ]
    return Table(f"standard deviations of {boxes:,} boxes, {unit}", ["", *state], rows)
