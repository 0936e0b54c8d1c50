"""What trackers are given: checked, and laid out for compiled code.

A detection is a row of six numbers: corners, score, class. Errors are their covariances in the coordinates
of a state model, of shape (n, 4, 4), or (0, 4, 4) where they are not used.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from mot_cup._boxes import Floats, Space, jacobian
from mot_cup._compiled import compiled
from mot_cup._detections import Detections, DetectionSequence, unchecked
from mot_cup._noise import PaperCompat, Uncertainty
from mot_cup._tracks import Ints, Tracks
from tenfold import DataError, SettingError

NO_ERRORS = np.empty((0, 4, 4))
OFF_DIAGONAL = ~np.eye(4, dtype=bool)


class Frames(NamedTuple):
    """Detections of a sequence.

    Attributes
    ----------
    numbers : ndarray of int64
        Shape (frames,).
    steps : ndarray of float64
        Shape (frames,): frames since the frame before.
    starts : ndarray of int64
        Shape (frames + 1,): each frame's first row, and the number of rows.
    rows : ndarray of float64
        Shape (n, 6): corners, score, class.
    errors : ndarray of float64
        Shape (n, 4, 4) or (0, 4, 4).
    """

    numbers: Ints
    steps: Floats
    starts: Ints
    rows: Floats
    errors: Floats


def rows_of(detections: ArrayLike | Detections, unit: str) -> Floats:
    """Return detections as rows, of shape (n, 6).

    Parameters
    ----------
    detections : array_like or Detections
        An array is as `Detections.from_array` takes it, in the tracker's unit.
    unit : str
        The tracker's.

    Raises
    ------
    DataError
        As `Detections.from_array`.
    SettingError
        The detections are in another unit.
    """
    if isinstance(detections, Detections):
        check_unit(detections.unit, unit)
        return detections.rows
    values = np.asarray(detections, dtype=np.float64)
    if values.size == 0:
        return np.empty((0, 6))
    if values.ndim == 2 and 4 <= values.shape[1] <= 6:
        rows = np.empty((len(values), 6))
        rows[:, 4], rows[:, 5] = 1.0, 0.0
        rows[:, : values.shape[1]] = values
        if _fine(rows):
            return rows
    return rows_of(Detections.from_array(values, unit), unit)


def check_unit(came: str, unit: str) -> None:
    """Refuse detections in another unit than the tracker's."""
    if came != unit:
        raise SettingError(
            f"detections in {came} for a tracker in {unit}",
            "the same unit",
            "Convert the boxes, and their covariances by to_unit, or make the tracker with that unit.",
        )


def pack(
    frames: Sequence[Detections] | Mapping[int, Detections],
    times: ArrayLike | None,
    unit: str,
    uncertainty: Uncertainty,
    space: Space,
) -> Frames:
    """Return the detections of a sequence as arrays.

    Parameters
    ----------
    frames : sequence of Detections, or mapping of int to Detections
        A sequence is numbered from 1. In a mapping the numbers between the least and the greatest that are
        missing are frames without detections; its order does not matter.
    times : array_like or None
        When each frame was taken, in frames. None for frames at even distances.
    unit : str
    uncertainty : {"off", "covariance"} or PaperCompat
    space : {"xyxy", "xywh", "xyah", "xysr"}
        Coordinates of the state.

    Raises
    ------
    DataError
        A frame number is not whole, times do not increase or are not one for each frame, or covariances are
        wanted and missing.
    SettingError
        Detections are in another unit.
    """
    if isinstance(frames, DetectionSequence):
        numbers, starts = frames.layout
        present = [frames.detections]
    else:
        numbers, given = _numbered(frames)
        present = [detections for detections in given if detections is not None]
        starts = np.zeros(len(given) + 1, np.int64)
        np.cumsum([0 if each is None else len(each.rows) for each in given], out=starts[1:])
    for other in {detections.unit for detections in present}:
        check_unit(other, unit)
    parts = [detections.rows for detections in present]
    rows = parts[0] if len(parts) == 1 else np.concatenate(parts) if parts else np.empty((0, 6))
    steps, errors = _steps(times, len(numbers)), _errors_of(present, rows, uncertainty, space)
    return Frames(numbers, steps, starts, rows, errors)


def _numbered(
    frames: Sequence[Detections] | Mapping[int, Detections],
) -> tuple[Ints, Sequence[Detections | None]]:
    """Return the numbers of all frames, and the detections of those that there are."""
    if not isinstance(frames, Mapping):
        return np.arange(1, len(frames) + 1), frames
    if not all(isinstance(number, int | np.integer) for number in frames):
        wrong = next(number for number in frames if not isinstance(number, int | np.integer))
        raise DataError(f"a frame {wrong!r}", "whole numbers", "Number the frames; give times apart.")
    numbers = np.arange(min(frames), max(frames) + 1) if frames else np.arange(0)
    return numbers, [frames.get(number) for number in numbers.tolist()]


def _steps(times: ArrayLike | None, frames: int) -> Floats:
    if times is None:
        return np.ones(frames)
    values = np.asarray(times, dtype=np.float64)
    if values.shape != (frames,):
        raise DataError(
            f"times of shape {values.shape} for {frames} frames",
            f"shape ({frames},)",
            "Give one for each frame, those without detections too.",
        )
    steps = np.diff(values, prepend=values[:1] - 1)
    if not (np.isfinite(steps) & (steps > 0)).all():
        frame = int(np.argmin(np.isfinite(steps) & (steps > 0)))
        raise DataError(
            f"time {values[frame]} after {values[max(frame - 1, 0)]}",
            "times that increase",
            "Sort the frames.",
        )
    return steps


def check_step(dt: float | None) -> float:
    """Return a step in frames, 1 by default.

    Raises
    ------
    DataError
        It is not positive and finite.
    """
    if dt is None:
        return 1.0
    if not 0 < dt < np.inf:
        raise DataError(
            f"a frame {dt} frames after the last", "a positive number", "Give the frames in order of time."
        )
    return float(dt)


def errors_of(detections: object, rows: Floats, uncertainty: Uncertainty, space: Space) -> Floats:
    """Return the covariances of one frame in the state's coordinates, as `Frames` has them."""
    if uncertainty == "off":
        return NO_ERRORS
    return _errors_of([detections] if isinstance(detections, Detections) else [], rows, uncertainty, space)


def _errors_of(frames: Sequence[Detections], rows: Floats, uncertainty: Uncertainty, space: Space) -> Floats:
    if uncertainty == "off" or len(rows) == 0:
        return NO_ERRORS
    known = [(len(frame), frame.covariance) for frame in frames if len(frame)]
    covariances = [covariance for _, covariance in known if covariance is not None]
    if len(covariances) < len(known) or not known:
        raise DataError(
            "detections without a covariance",
            "one for each, as uncertainty is on",
            'Give Detections with one, or make the tracker with uncertainty="off".',
        )
    errors = np.empty((len(rows), 4, 4))
    if len({covariance.space for covariance in covariances}) == 1:
        matrices = np.concatenate([covariance.matrices for covariance in covariances])
        errors[:] = _in_space(rows, matrices, covariances[0].space, space)
    else:
        first = 0
        for covariance in covariances:
            last = first + len(covariance)
            errors[first:last] = _in_space(rows[first:last], covariance.matrices, covariance.space, space)
            first = last
    if isinstance(uncertainty, PaperCompat):
        variances = np.diagonal(errors, axis1=1, axis2=2) * uncertainty.scales(space)
        errors = variances[:, :, None] * np.eye(4)
    return errors


def _in_space(rows: Floats, matrices: Floats, source: Space, target: Space) -> Floats:
    """Return covariances in other coordinates, symmetric to the last bit."""
    if source == target:
        return matrices
    boxes = rows[:, :4]
    change = jacobian(boxes, target) @ np.linalg.inv(jacobian(boxes, source))
    moved = change @ matrices @ change.transpose(0, 2, 1)
    return (moved + moved.transpose(0, 2, 1)) / 2


def tracks_of(numbers: Ints, ends: Ints, out: Floats) -> Tracks:
    """Return what compiled code reports of a sequence.

    Parameters
    ----------
    numbers : ndarray of int64
        Of the frames, of shape (frames,).
    ends : ndarray of int64
        Shape (frames,): how many rows of `out` there are after each frame.
    out : ndarray of float64
        Shape (n, 8): corners, identity, score, class, row.
    """
    reported = out[: ends[-1] if len(ends) else 0]
    whole = reported[:, 4:].astype(np.int64)
    return unchecked(
        Tracks,
        frames=np.repeat(numbers, np.diff(ends, prepend=0)),
        ids=whole[:, 0],
        boxes=reported[:, :4],
        scores=reported[:, 5],
        classes=whole[:, 2],
        rows=whole[:, 3],
    )


def correlated(errors: Floats) -> bool:
    """Return whether any two coordinates are."""
    return len(errors) > 0 and bool(errors[:, OFF_DIAGONAL].any())


@compiled
def _fine(rows: Floats) -> bool:
    for row in range(len(rows)):
        for column in range(4):
            if not np.isfinite(rows[row, column]):
                return False
        if not (rows[row, 2] > rows[row, 0] and rows[row, 3] > rows[row, 1]):
            return False
        if np.isnan(rows[row, 4]) or rows[row, 5] != np.floor(rows[row, 5]) or not np.isfinite(rows[row, 5]):
            return False
    return True
