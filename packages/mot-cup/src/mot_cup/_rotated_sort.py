"""SORT for rotated boxes: a Kalman filter of place, size, heading and velocity, and the boxes' overlap.

The state is (x, y, w, l, theta, v_x, v_y), the measurement its first five. Time counts in frames:

    place     moves with the velocity, which white accelerations disturb
    w, l      wander slowly, as what is seen of a car's size does
    theta     wanders; no turn rate is kept

All tracks are corrected at once. Two traps are in the heading: it is an angle, so innovations are wrapped;
and detectors mistake a car's front for its rear. A heading more than a quarter turn off its track's is taken
to be reversed, and when more of a track's detections were reversed than not, it is the track that is turned.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mot_cup._assignment import assign_within
from mot_cup._boxes import Floats
from mot_cup._rotated import RotatedDetections, bounding_boxes, resolve_flips, rotated_iou, wrap
from mot_cup._tracker import check_life
from mot_cup._tracks import Ints, Tracks
from mot_cup.fusion import Association
from tenfold import DataError, SettingError, UnknownNameError

GATE = 18.205136741736066
"""Squared Mahalanobis distance that 0.27 % of right pairs exceed: chi-square of 5 dimensions."""
OVERLAP = 0.1
SIZE, STATE = 5, 7
SMALLEST = 1e-3
"""Of the size that a filter may shrink a box to, in the boxes' unit."""


@dataclass(frozen=True)
class RotatedNoise:
    """Standard deviations of the filter, in the boxes' unit, radians and frames.

    Parameters
    ----------
    measurement : tuple of float
        Of x, y, w, l, theta of a detection, where it has no covariance.
    acceleration : float
        Of each component of the velocity's change in a frame.
    size, heading : float
        Of their changes in a frame.
    speed : float
        Of each component of a new track's velocity.

    Raises
    ------
    SettingError
        A number is negative or not finite, or one of the measurement's is 0.
    """

    measurement: tuple[float, float, float, float, float] = (1.0, 1.0, 1.0, 1.0, 0.1)
    acceleration: float = 0.5
    size: float = 0.05
    heading: float = 0.05
    speed: float = 4.0

    def __post_init__(self) -> None:
        if len(self.measurement) != SIZE or not all(0 < value < np.inf for value in self.measurement):
            raise SettingError(f"measurement {self.measurement}", "five positive numbers", "Correct them.")
        for name in ("acceleration", "size", "heading", "speed"):
            if not 0 <= getattr(self, name) < np.inf:
                raise SettingError(f"{name} is {getattr(self, name)}", "0 or more", "Correct it.")


@dataclass(frozen=True)
class RotatedTracks:
    """Rotated boxes with identities over frames, sorted by frame.

    Attributes
    ----------
    frames, ids : ndarray of int64
        Shape (n,).
    boxes : ndarray of float64
        x, y, w, l, theta, of shape (n, 5).
    scores : ndarray of float64
        Shape (n,).
    classes, rows : ndarray of int64
        Shape (n,); the row in its frame of the detection that the box was updated by.
    """

    frames: Ints
    ids: Ints
    boxes: Floats
    scores: Floats
    classes: Ints
    rows: Ints

    def __len__(self) -> int:
        return len(self.frames)

    def axis_aligned(self) -> Tracks:
        """Return the smallest axis-aligned boxes around these."""
        return Tracks(self.frames, self.ids, bounding_boxes(self.boxes), self.scores, self.classes, self.rows)


class RotatedSort:
    """Simple online and realtime tracking of rotated boxes.

    Parameters
    ----------
    max_age : float
        Frames that a track is kept without a detection.
    min_hits : int
        Detections in a row, beyond its first, after which a track is reported; in the first `min_hits` frames
        all are.
    association : {"iou", "mahalanobis"}
        Overlap of rotated boxes, or distance in units of the innovation's covariance.
    limit : float, optional
        Least overlap, 0.1 by default, or greatest squared distance, 18.2 by default.
    noise : RotatedNoise, optional
    uncertainty : {"off", "covariance"}
        ``"covariance"``: that of each detection is R, and P of a new track's box.
    per_class : bool
        A track is of one class and takes detections of that class alone.
    unit : str
        Of length. Detections in another are refused.

    Raises
    ------
    SettingError, UnknownNameError
        A setting is impossible.
    """

    def __init__(
        self,
        *,
        max_age: float = 1,
        min_hits: int = 3,
        association: Association = "iou",
        limit: float | None = None,
        noise: RotatedNoise | None = None,
        uncertainty: str = "off",
        per_class: bool = False,
        unit: str = "px",
    ) -> None:
        check_life(max_age, min_hits)
        for kind, name, known in (
            ("association", association, ("iou", "mahalanobis")),
            ("uncertainty", uncertainty, ("off", "covariance")),
        ):
            if name not in known:
                raise UnknownNameError(kind, name, known)
        self.max_age = max_age
        self.min_hits = min_hits
        self.association: Association = association
        self.limit = limit if limit is not None else OVERLAP if association == "iou" else GATE
        self.noise = noise or RotatedNoise()
        self.uncertainty = uncertainty
        self.per_class = per_class
        self.unit = unit
        self.reset()

    def reset(self) -> None:
        """Forget all tracks and begin identities at 1 again."""
        self._next = 1
        self._frame = 0
        self._tracks = _Tracks.none()

    def update(self, detections: RotatedDetections, dt: float = 1.0) -> Floats:
        """Take one frame.

        Parameters
        ----------
        detections : RotatedDetections
            Call this for frames without detections too.
        dt : float
            Frames since the last call; it need not be whole.

        Returns
        -------
        ndarray of float64
            Shape (m, 9): x, y, w, l, theta, identity, score, class, and the row of the detection.

        Raises
        ------
        DataError
            `dt` is not positive, or covariances are wanted and missing or singular. Nothing has then changed.
        SettingError
            The detections are in another unit.
        """
        if not 0 < dt < np.inf:
            raise DataError(f"{dt} frames since the last", "a positive number", "Give frames in order.")
        if detections.unit != self.unit:
            raise SettingError(
                f"detections in {detections.unit}", f"in {self.unit}", "Convert them, or name their unit."
            )
        errors = self._errors(detections)
        self._frame += 1
        tracks = self._tracks.predicted(dt, self.noise)
        pairs = self._associate(tracks, detections, errors)
        matched, rows = np.flatnonzero(pairs >= 0), pairs[pairs >= 0]
        tracks.correct(matched, detections, rows, errors[rows])
        missed = tracks.missed + dt
        missed[matched] = 0
        tracks.missed, tracks.streak = missed, np.where(missed == 0, tracks.streak + 1, 0)
        fresh = np.setdiff1d(np.arange(len(detections)), rows)
        born = _Tracks.begin(self._next, detections, fresh, errors[fresh], self.noise.speed)
        self._next += len(fresh)
        tracks = tracks.joined(born)
        self._tracks = tracks.kept(tracks.missed <= self.max_age)
        return self._tracks.report(self.min_hits, self._frame)

    def track(self, frames: Sequence[RotatedDetections] | Mapping[int, RotatedDetections]) -> RotatedTracks:
        """Track a whole sequence from its beginning; this begins with `reset`.

        Parameters
        ----------
        frames : sequence of RotatedDetections, or mapping of int to RotatedDetections
            A sequence is numbered from 1. In a mapping the numbers between the least and the greatest that
            are missing are frames without detections.

        Raises
        ------
        DataError
            Covariances are wanted and missing or singular.
        SettingError
            Detections are in another unit.
        """
        self.reset()
        numbered = frames if isinstance(frames, Mapping) else dict(enumerate(frames, start=1))
        nothing = RotatedDetections(np.empty((0, 5)), covariance=np.empty((0, 5, 5)), unit=self.unit)
        numbers = range(min(numbered), max(numbered) + 1) if numbered else range(0)
        found = [self.update(numbered.get(number, nothing)) for number in numbers]
        rows = np.concatenate([np.empty((0, 9)), *found])
        whole = rows[:, 5:].astype(np.int64)
        counts = [len(item) for item in found]
        return RotatedTracks(
            np.repeat(np.array(numbers, dtype=np.int64), counts),
            whole[:, 0],
            rows[:, :5],
            rows[:, 6],
            whole[:, 2],
            whole[:, 3],
        )

    def _errors(self, detections: RotatedDetections) -> Floats:
        if self.uncertainty == "off":
            constant = np.diag(np.square(self.noise.measurement))
            return np.broadcast_to(constant, (len(detections), SIZE, SIZE))
        if detections.covariance is None:
            raise DataError("detections without covariances", "one for each", 'Or set uncertainty="off".')
        smallest = np.linalg.eigvalsh(detections.covariance)[:, 0]
        if not (smallest > 0).all():
            row = int(np.argmin(smallest))
            raise DataError(
                f"the covariance of row {row} is singular", "an error in every direction", "Add a variance."
            )
        return detections.covariance

    def _associate(self, tracks: _Tracks, detections: RotatedDetections, errors: Floats) -> Ints:
        """Return the row of the detection of every track, -1 where it has none."""
        if len(tracks) == 0 or len(detections) == 0:
            return np.full(len(tracks), -1)
        if self.association == "iou":
            cost, most = -rotated_iou(tracks.boxes(), detections.boxes), -self.limit
        else:
            off = detections.boxes - tracks.mean[:, None, :SIZE]
            off[..., 4] = wrap(
                resolve_flips(detections.boxes[:, 4], tracks.mean[:, None, 4]) - tracks.mean[:, None, 4]
            )
            expected = tracks.covariance[:, None, :SIZE, :SIZE] + errors
            cost = np.einsum("tdi,tdij,tdj->td", off, np.linalg.inv(expected), off)
            most = self.limit
        if self.per_class:
            cost = np.where(tracks.classes[:, None] == detections.classes, cost, np.inf)
        return assign_within(np.ascontiguousarray(cost), most)


@dataclass
class _Tracks:
    """Live tracks, a row each."""

    ids: Ints
    mean: Floats
    covariance: Floats
    missed: Floats
    streak: Ints
    upright: Ints
    scores: Floats
    classes: Ints
    rows: Ints

    @classmethod
    def none(cls) -> _Tracks:
        whole = np.empty(0, np.int64)
        empty = np.empty(0)
        mean, covariance = np.empty((0, STATE)), np.empty((0, STATE, STATE))
        return cls(whole, mean, covariance, empty, whole, whole, empty, whole, whole)

    @classmethod
    def begin(
        cls, first: int, detections: RotatedDetections, rows: Ints, errors: Floats, speed: float
    ) -> _Tracks:
        """Return tracks at rest where detections are."""
        count = len(rows)
        mean = np.hstack([detections.boxes[rows], np.zeros((count, 2))])
        mean[:, 4] = wrap(mean[:, 4])
        covariance = np.zeros((count, STATE, STATE))
        covariance[:, :SIZE, :SIZE] = errors
        covariance[:, [5, 6], [5, 6]] = speed**2
        return cls(
            first + np.arange(count),
            mean,
            covariance,
            np.zeros(count),
            np.zeros(count, np.int64),
            np.ones(count, np.int64),
            detections.scores[rows],
            detections.classes[rows],
            rows,
        )

    def __len__(self) -> int:
        return len(self.ids)

    def boxes(self) -> Floats:
        boxes = self.mean[:, :SIZE].copy()
        boxes[:, 2:4] = np.maximum(boxes[:, 2:4], SMALLEST)
        return boxes

    def predicted(self, dt: float, noise: RotatedNoise) -> _Tracks:
        move = np.eye(STATE)
        move[0, 5] = move[1, 6] = dt
        q = np.zeros((STATE, STATE))
        for place, velocity in ((0, 5), (1, 6)):
            q[place, place] = noise.acceleration**2 * dt**3 / 3
            q[place, velocity] = q[velocity, place] = noise.acceleration**2 * dt**2 / 2
            q[velocity, velocity] = noise.acceleration**2 * dt
        q[2, 2] = q[3, 3] = noise.size**2 * dt
        q[4, 4] = noise.heading**2 * dt
        values = vars(self) | {
            "mean": self.mean @ move.T,
            "covariance": move @ self.covariance @ move.T + q,
            "upright": self.upright.copy(),
            "scores": self.scores.copy(),
            "classes": self.classes.copy(),
            "rows": np.full(len(self), -1),
        }
        return _Tracks(**values)

    def correct(self, tracks: Ints, detections: RotatedDetections, rows: Ints, errors: Floats) -> None:
        """Correct some tracks by a detection each."""
        mean, covariance = self.mean[tracks], self.covariance[tracks]
        found = detections.boxes[rows]
        heading = resolve_flips(found[:, 4], mean[:, 4])
        off = found - mean[:, :SIZE]
        off[:, 4] = wrap(heading - mean[:, 4])
        gain = covariance[:, :, :SIZE] @ np.linalg.inv(covariance[:, :SIZE, :SIZE] + errors)
        mean = mean + np.einsum("nij,nj->ni", gain, off)
        left = np.eye(STATE) - gain @ np.eye(SIZE, STATE)
        covariance = left @ covariance @ left.transpose(0, 2, 1) + gain @ errors @ gain.transpose(0, 2, 1)

        upright = self.upright[tracks] + np.where(np.cos(heading - found[:, 4]) > 0, 1, -1)
        mean[:, 4] = wrap(mean[:, 4] + np.where(upright < 0, np.pi, 0.0))
        self.mean[tracks], self.covariance[tracks] = mean, covariance
        self.upright[tracks] = np.abs(upright)
        self.scores[tracks], self.classes[tracks] = detections.scores[rows], detections.classes[rows]
        self.rows[tracks] = rows

    def joined(self, other: _Tracks) -> _Tracks:
        pairs = zip(vars(self).values(), vars(other).values(), strict=True)
        return _Tracks(*(np.concatenate(pair) for pair in pairs))

    def kept(self, which: NDArray[np.bool_]) -> _Tracks:
        return _Tracks(*(values[which] for values in vars(self).values()))

    def report(self, min_hits: int, frame: int) -> Floats:
        shown = (self.missed == 0) & ((self.streak >= min_hits) | (frame <= min_hits))
        columns = (self.ids, self.scores, self.classes, self.rows)
        result: Floats = np.column_stack([self.boxes(), *columns])[shown]
        return result
