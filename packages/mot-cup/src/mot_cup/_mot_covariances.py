"""Detections with covariances in a file: MOTChallenge's columns, and ten more.

A line is

    frame, -1, left, top, width, height, score, class, -1, -1, xx, xy, xw, xh, yy, yw, yh, ww, wh, hh

with the covariances of the errors of the centre x and y, the width w and the height h, in squares of the
boxes' unit. A reader of MOTChallenge's files that takes no notice of further columns reads the boxes.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from mot_cup._boxes import to_space
from mot_cup._detections import ROUNDING, BoxCovariance, Detections, DetectionSequence
from mot_cup._lines import read_lines, write_lines
from mot_cup._mot import check_frame_order
from tenfold import DataError

WIDTH = 20
UPPER = np.triu_indices(4)


def read_mot_covariances(path: Path, *, unit: str = "px") -> DetectionSequence:
    """Read detections with covariances.

    Parameters
    ----------
    path : Path
    unit : str
        Of length, of the boxes in the file.

    Returns
    -------
    DetectionSequence
        In order of frames; frames without detections are absent. Covariances are of ``xywh``.

    Raises
    ------
    DataError
        The file is missing, or a line is truncated, malformed, not finite, out of order, a copy of another,
        of a box without area, or has a covariance with a negative eigenvalue. The error names the file and
        the line.
    """
    lines = read_lines(path, ",", (WIDTH,))
    lines.check_finite(range(WIDTH))
    frames = lines.whole(0, "the frame", 0)
    corner, size = lines.values[:, 2:4], lines.values[:, 4:6]
    lines.check((size > 0).all(1), "a positive width and height")
    classes = np.maximum(lines.whole(7, "the class", -1), 0)
    check_frame_order(lines, frames)
    lines.check_distinct()
    matrices = np.zeros((len(lines), 4, 4))
    matrices[:, *UPPER] = lines.values[:, 10:]
    matrices += np.triu(matrices, 1).transpose(0, 2, 1)
    scale = np.abs(matrices).max((1, 2), initial=0)
    lines.check(
        np.linalg.eigvalsh(matrices)[:, 0] >= -ROUNDING * scale, "a covariance, no negative eigenvalue"
    )
    boxes = np.concatenate([corner, corner + size], axis=1)
    return DetectionSequence(
        frames,
        Detections(boxes, lines.values[:, 6], classes, BoxCovariance(matrices, "xywh", unit), unit),
    )


def write_mot_covariances(path: Path, detections: Mapping[int, Detections]) -> None:
    """Write detections with covariances, in order of frames.

    Raises
    ------
    DataError
        Detections have no covariances.
    OutputError
        The file cannot be written.
    """
    rows = []
    for frame in sorted(detections):
        found = detections[frame]
        if found.covariance is None:
            raise DataError(
                f"frame {frame} without covariances",
                "a covariance for every box",
                "Write plain detections by write_mot_detections.",
            )
        upper = found.covariance.to_space(found.boxes, "xywh").matrices[:, *UPPER]
        sizes = to_space(found.boxes, "xywh")[:, 2:]
        columns = (found.boxes[:, :2], sizes, found.scores, found.classes, upper)
        for corner, size, score, kind, errors in zip(*(column.tolist() for column in columns), strict=True):
            rows.append([frame, -1, *corner, *size, score, kind, -1, -1, *errors])
    write_lines(path, rows, ",")
