"""A user's own state model: one filterpy filter a track.

The state is the user's; the measurement is a box in one of the parametrisations of `mot_cup._boxes`, and H x
is the box that a filter expects. Association, beginning and end of tracks are as in `mot_cup._sort_step`,
except that a size is not kept from falling to zero: `FilterpyModel.move` may do so.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from mot_cup._association import FREE, associate
from mot_cup._boxes import Floats, Space, check_space, from_space, to_space
from mot_cup._kalman import DENSE
from mot_cup._tracks import Ints
from tenfold import SettingError

NO_NOISE = np.zeros((5, 4, 2))


@dataclass(frozen=True)
class FilterpyModel:
    """A state model of filterpy's `KalmanFilter`, or of what has its ``x, P, H, R, predict, update``.

    Parameters
    ----------
    make : callable
        Returns the filter of a track, given the measurement that begins it, of shape (4,), and its
        covariance, of shape (4, 4), or None if unknown.
    space : {"xyxy", "xywh", "xyah", "xysr"}
        What the four coordinates of a measurement are.
    move : callable, optional
        Called with a filter and the frames to its next prediction, to set what depends on them (F, Q).
        Without it every frame has to follow the last by one.

    Raises
    ------
    UnknownNameError
        There is no such parametrisation.
    """

    make: Callable[[Floats, Floats | None], Any]
    space: Space = "xywh"
    move: Callable[[Any, float], None] | None = None

    def __post_init__(self) -> None:
        check_space(self.space)


@dataclass
class _Track:
    filter: Any
    identity: int
    class_: float
    streak: int = 0
    idle: float = 0.0


class FilterpyTracks:
    """Tracks of a tracker, each with a filter of its own.

    Parameters
    ----------
    model : FilterpyModel
    stages : ndarray of float64
        Shape (k, 2), of `mot_cup._association.stage_table`.
    max_age : float
    min_hits : int
    per_class : bool
    """

    def __init__(
        self, model: FilterpyModel, stages: Floats, max_age: float, min_hits: int, per_class: bool
    ) -> None:
        self.model = model
        self.stages = stages
        self.max_age, self.min_hits, self.per_class = max_age, min_hits, per_class
        self.tracks: list[_Track] = []
        self.frame, self.next_id = 0, 1

    def run(self, rows: Floats, starts: Ints, errors: Floats, steps: Floats, out: Floats) -> Ints:
        """Take frames, as `mot_cup._sort_step.run` does: write `out`, and return the ends of frames in it."""
        z, reported = to_space(rows[:, :4], self.model.space), 0
        ends = np.zeros(len(steps), np.int64)
        for frame, dt in enumerate(steps.tolist()):
            part = slice(starts[frame], starts[frame + 1])
            for row in self._step(rows[part], z[part], errors[part] if len(errors) else None, dt):
                out[reported] = row
                reported += 1
            ends[frame] = reported
        return ends

    def _step(self, rows: Floats, z: Floats, errors: Floats | None, dt: float) -> list[Floats]:
        self.frame += 1
        boxes = self._predict(dt)
        partners = self._associate(rows, z, boxes, errors)
        seen: dict[int, int] = {}
        for d, t in enumerate(partners.tolist()):
            if t == FREE:
                t = len(self.tracks)
                made = self.model.make(z[d], None if errors is None else errors[d])
                self.tracks.append(_Track(made, self.next_id, rows[d, 5]))
                self.next_id += 1
            else:
                track = self.tracks[t]
                track.filter.update(z[d].reshape(4, 1), R=None if errors is None else errors[d])
                track.streak += 1
                track.idle, track.class_ = 0.0, rows[d, 5]
            seen[t] = d
        out = []
        for t, d in sorted(seen.items()):
            track = self.tracks[t]
            box = self._boxes([track])[0]
            if (track.streak >= self.min_hits or self.frame <= self.min_hits) and np.isfinite(box).all():
                out.append(np.array([*box, track.identity, rows[d, 4], rows[d, 5], d]))
        self.tracks = [track for track in self.tracks if track.idle <= self.max_age]
        return out

    def _predict(self, dt: float) -> Floats:
        if self.model.move is None and dt != 1:
            raise SettingError(
                f"a step of {dt} frames", "steps of 1 for a model without `move`", "Give the model one."
            )
        for track in self.tracks:
            if self.model.move is not None:
                self.model.move(track.filter, dt)
            track.filter.predict()
            if track.idle > 0:
                track.streak = 0
            track.idle += dt
        boxes = self._boxes(self.tracks)
        fine = np.isfinite(boxes).all(1) & (boxes[:, 2:] > boxes[:, :2]).all(1)
        kept = np.flatnonzero(fine)
        self.tracks = [self.tracks[t] for t in kept]
        return np.ascontiguousarray(boxes[kept])

    def _boxes(self, tracks: list[_Track]) -> Floats:
        expected = np.array([(track.filter.H @ track.filter.x).ravel() for track in tracks]).reshape(-1, 4)
        return from_space(expected, self.model.space)

    def _associate(self, rows: Floats, z: Floats, boxes: Floats, errors: Floats | None) -> Ints:
        filters = np.zeros((len(self.tracks), DENSE))
        for row, track in zip(filters, self.tracks, strict=True):
            of = track.filter
            row[:4] = (of.H @ of.x).ravel()
            row[8:].reshape(8, 8)[:4, :4] = of.H @ of.P @ of.H.T
        if errors is None and self.tracks:
            errors = np.tile(np.asarray(self.tracks[0].filter.R, dtype=np.float64), (len(rows), 1, 1))
        classes = np.array([track.class_ for track in self.tracks])
        return associate(
            self.stages,
            rows,
            np.ascontiguousarray(z),
            boxes,
            classes,
            filters,
            NO_NOISE,
            np.empty((0, 4, 4)) if errors is None else errors,
            self.per_class,
        )
