"""V2X-Sim's detections with uncertainties and its truth, as the paper's authors distribute them.

A line of detections has 14 values,

    frame, -1, left, top, width, height, score, -1, -1, -1, v_x, v_y, v_s, v_r

with boxes in pixels of a quarter of a metre of the bird's-eye view, and v the logarithms of the variances of
the centre x and y, the area s = w h and the ratio r = w / h, in metres: exp(v_x) in m^2, exp(v_s) in m^4.
They become `BoxCovariance.diagonal(exp(v), "xysr", "m")`; ``to_unit("px", 4)`` makes them those of the boxes
in pixels. Two things are to be known of the files:

- s and r are of the car's own width and length, while the box of a line is the upright one around the car. Of
  a car along an axis s is the same, and r the same or its inverse; of another car neither is. Where a box is
  wider than high, v_r is of the inverse of its ratio, whose errors are smaller by the square of the ratio.
- The files were made with y turned over, from the wrong end of the box: top = 255 - (lowest y), to which the
  height is then added. So the box of a line is the true one moved by its own height, truth and detections
  alike, and an error of the height is one of the centre too (0.23 m in y, where x has 0.10). ``upright``
  moves every box back; then y has 0.09, and of the truth's cars, which cannot overlap, half as many seem to.
  Figures to be held against published ones need the files as they are.

``upright`` mends both, the second by taking the variance of 1 / r to that of r, its r^4-fold.

The log-variances are those of the detector, much too small; calibrate them (`mot_cup.conformal`).
Truth is in MOTChallenge's format. Its identities are not to be trusted: see `mot_cup.identities`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from mot_cup._boxes import Floats
from mot_cup._detections import BoxCovariance, Detections, DetectionSequence
from mot_cup._lines import read_lines, write_lines
from mot_cup._mot import (
    SequenceInfo,
    check_frame_order,
    read_mot_tracks,
    read_sequence_info,
)
from mot_cup._tracks import Tracks
from tenfold import DataError, SettingError

PIXELS_PER_METRE = 4.0


@dataclass(frozen=True)
class V2XSimSequence:
    """What one agent sees of one scene.

    Attributes
    ----------
    agent, scene : int
    detections : mapping from frame to Detections
    truth : Tracks
    info : SequenceInfo
    """

    agent: int
    scene: int
    detections: Mapping[int, Detections]
    truth: Tracks
    info: SequenceInfo


def read_v2xsim(
    folder: Path, *, unit: Literal["px", "m"] = "px", upright: bool = False
) -> list[V2XSimSequence]:
    """Read the validation sequences of V2X-Sim: ``val_det/tracking*/det_*.txt`` and ``gt/V2X-val*/*``.

    Parameters
    ----------
    folder : Path
        That holds ``val_det`` and ``gt``.
    unit, upright
        As for `read_v2xsim_detections`.

    Returns
    -------
    list of V2XSimSequence
        By agent, then scene, without those of agents that are not in the scene, whose files are empty.

    Raises
    ------
    DataError
        There are no detections, a file is missing, or a line is wrong; the error names file and line.
    """
    found = {
        (int(path.parent.name.removeprefix("tracking")), int(path.stem.removeprefix("det_"))): path
        for path in folder.glob("val_det/tracking*/det_*.txt")
    }
    if not found:
        raise DataError(
            f"no val_det/tracking*/det_*.txt in {folder}",
            "the folder of V2X-Sim's files",
            "Correct the path.",
        )
    sequences = []
    for agent, scene in sorted(found):
        beside = folder / "gt" / f"V2X-val{agent}" / str(scene)
        detections = read_v2xsim_detections(found[agent, scene], unit=unit, upright=upright)
        truth = read_mot_tracks(beside / "gt" / "gt.txt")
        if detections or len(truth):
            boxes = _place(truth.boxes, unit, upright)
            info = read_sequence_info(beside / "seqinfo.ini")
            sequences.append(V2XSimSequence(agent, scene, detections, replace(truth, boxes=boxes), info))
    return sequences


def read_v2xsim_detections(
    path: Path, *, unit: Literal["px", "m"] = "px", upright: bool = False
) -> DetectionSequence:
    """Read detections of V2X-Sim with their covariances.

    Parameters
    ----------
    path : Path
    unit : {"px", "m"}
        Of the boxes and of their covariances. In pixels of 0.25 m the boxes are those of the file and the
        covariances are converted, in metres the other way round.
    upright : bool
        Undo the move of every box by its height, and take the variance of the car's ratio to the box's.

    Returns
    -------
    DetectionSequence
        In order of frames; covariances are of ``xysr``.

    Raises
    ------
    DataError
        The file is missing, or a line is truncated, malformed, not finite, out of order, a copy of another,
        or of a box without area or a variance beyond floating point. The error names the file and the line.
    SettingError
        The unit is another.
    """
    if unit not in ("px", "m"):
        raise SettingError(f"unit {unit!r}", "px or m", "Convert the boxes and covariances yourself.")
    lines = read_lines(path, ",", (14,))
    lines.check_finite(range(14))
    frames = lines.whole(0, "the frame", 1)
    corner, size = lines.values[:, 2:4], lines.values[:, 4:6]
    lines.check((size > 0).all(1), "a positive width and height")
    logarithms = lines.values[:, 10:]
    lines.check((np.abs(logarithms) < 300).all(1), "logarithms of variances")
    check_frame_order(lines, frames)
    lines.check_distinct()
    variances = np.exp(logarithms)
    if upright:
        variances[:, 3] *= np.maximum(size[:, 0] / size[:, 1], 1) ** 4
    covariance = BoxCovariance.diagonal(variances, "xysr", "m")
    if unit == "px":
        covariance = covariance.to_unit("px", PIXELS_PER_METRE)
    boxes = _place(np.concatenate([corner, corner + size], axis=1), unit, upright)
    return DetectionSequence(frames, Detections(boxes, lines.values[:, 6], None, covariance, unit))  # type: ignore[arg-type]


def write_v2xsim_detections(path: Path, detections: Mapping[int, Detections]) -> None:
    """Write detections with covariances in V2X-Sim's format, in order of frames.

    Parameters
    ----------
    path : Path
    detections : mapping from frame to Detections
        In pixels of 0.25 m or in metres. Of a covariance, taken to x, y, s, r, the variances alone are kept;
        classes are not.

    Raises
    ------
    DataError
        Detections of a frame have no covariance, or a variance of zero.
    SettingError
        The unit is another.
    OutputError
        The file cannot be written.
    """
    rows: list[list[float | int]] = []
    for frame in sorted(detections):
        found = detections[frame]
        if found.unit not in ("px", "m"):
            raise SettingError(
                f"detections in {found.unit}", "in px of 0.25 m, or in m", "Convert boxes and covariances."
            )
        each = 1 if found.unit == "px" else PIXELS_PER_METRE
        corner, size = each * found.boxes[:, :2], each * (found.boxes[:, 2:] - found.boxes[:, :2])
        variances = _variances(frame, found)
        columns = (corner.tolist(), size.tolist(), found.scores.tolist(), np.log(variances).tolist())
        for place, sides, score, logarithms in zip(*columns, strict=True):
            rows.append([frame, -1, *place, *sides, score, -1, -1, -1, *logarithms])
    write_lines(path, rows, ",")


def _variances(frame: int, found: Detections) -> Floats:
    """Return the variances of x, y, s and r in metres, of shape (n, 4)."""
    if found.covariance is None:
        raise DataError(
            f"detections without covariances in frame {frame}", "a covariance", "Use write_mot_detections."
        )
    covariance = found.covariance.to_space(found.boxes, "xysr")
    if found.unit == "px":
        covariance = covariance.to_unit("m", 1 / PIXELS_PER_METRE)
    variances = np.diagonal(covariance.matrices, axis1=1, axis2=2)
    if not (variances > 0).all():
        raise DataError(
            f"a variance of {variances.min()} in frame {frame}",
            "positive variances",
            "The format holds logarithms.",
        )
    return variances


def _place(boxes: Floats, unit: str, upright: bool) -> Floats:
    """Return boxes of the files in a unit, moved back by their heights if upright."""
    placed = boxes.copy()
    if upright:
        placed[:, [1, 3]] -= (boxes[:, 3] - boxes[:, 1])[:, None]
    return placed / PIXELS_PER_METRE if unit == "m" else placed
