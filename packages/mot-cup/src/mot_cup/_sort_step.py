"""One frame of SORT in compiled code, and a sequence of them.

Tracks are rows of arrays. A frame predicts all of them, drops those without a box, pairs the rest with the
detections, corrects the paired, begins tracks at detections left over, and drops those idle for too long.

Two guards are those of Bewley's code: an area or aspect that would fall to zero or below loses its velocity,
and a predicted state that is no box ends its track. A track is reported in frames in which it has a
detection, once it has had `min_hits` in a row, or in the first `min_hits` frames of the sequence.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from mot_cup._association import FREE, associate
from mot_cup._boxes import Floats
from mot_cup._compiled import compiled
from mot_cup._kalman import Filters, make_filters, measurement_covariance, predict, start, update
from mot_cup._state_models import corners, measure
from mot_cup._tracks import Ints

# Columns of what a track counts.
ID, STREAK, CLASS = range(3)
# Entries of what a tracker counts.
LIVE, NEXT_ID, FRAME = range(3)


class Rules(NamedTuple):
    """Settings of a tracker, as compiled code reads them.

    Attributes
    ----------
    max_age : float
        Frames that a track may be without a detection.
    min_hits : int
    model : int
        State model.
    per_class : bool
    first_is_measured : bool
        Whether a covariance of the detection is also that of the track's first position.
    stages : ndarray of float64
        Shape (k, 2), of `mot_cup._association.stage_table`.
    noise : ndarray of float64
        Shape (5, 4, 2).
    """

    max_age: float
    min_hits: int
    model: int
    per_class: bool
    first_is_measured: bool
    stages: Floats
    noise: Floats


class Live(NamedTuple):
    """Tracks of a tracker.

    Attributes
    ----------
    filters : Filters
    counts : ndarray of int64
        Shape (capacity, 3): identity, detections in a row, class.
    idle : ndarray of float64
        Shape (capacity,): frames since the last detection.
    tracker : ndarray of int64
        Tracks alive, next identity, frames seen.
    """

    filters: Filters
    counts: Ints
    idle: Floats
    tracker: Ints


class Trace(NamedTuple):
    """What a run writes down beside the boxes; each array has a row a detection, or none if not wanted.

    Attributes
    ----------
    covariances : ndarray of float64
        Shape (n, 4, 4): of the reported boxes, in the order of the report.
    innovations : ndarray of float64
        Shape (n, 4), NaN where a detection began a track.
    spreads : ndarray of float64
        Shape (n, 4, 4): covariances S of the innovations.
    """

    covariances: Floats
    innovations: Floats
    spreads: Floats


def make_live(capacity: int = 32, dense: bool = False) -> Live:
    """Return a tracker without tracks."""
    return Live(
        make_filters(capacity, dense),
        np.zeros((capacity, 3), np.int64),
        np.zeros(capacity),
        np.array([0, 1, 0]),
    )


def make_trace(rows: int) -> Trace:
    """Return room for what a run of so many detections writes down."""
    return Trace(np.zeros((rows, 4, 4)), np.full((rows, 4), np.nan), np.full((rows, 4, 4), np.nan))


@compiled
def room_for(live: Live, more: int) -> Live:
    """Return the same tracks with room for more, at least twice as much if there was too little."""
    filters, counts, idle, tracker = live
    capacity = len(idle)
    if tracker[LIVE] + more <= capacity:
        return live
    wanted = max(2 * capacity, tracker[LIVE] + more)
    dense = len(filters.dense) > 0
    means = np.zeros((wanted, 8))
    means[:capacity] = filters.means
    split_form, dense_form = (
        np.zeros((0 if dense else wanted, 4, 3)),
        np.zeros((wanted if dense else 0, 8, 8)),
    )
    split_form[: len(filters.split)] = filters.split
    dense_form[: len(filters.dense)] = filters.dense
    new_counts, new_idle = np.zeros((wanted, 3), np.int64), np.zeros(wanted)
    new_counts[:capacity], new_idle[:capacity] = counts, idle
    return Live(Filters(means, split_form, dense_form), new_counts, new_idle, tracker)


@compiled
def step(rules: Rules, live: Live, rows: Floats, errors: Floats, dt: float, out: Floats, trace: Trace) -> int:
    """Take one frame, and return how many boxes are reported.

    Parameters
    ----------
    rules : Rules
    live : Live
        Of room for all detections.
    rows : ndarray of float64
        Shape (n, 6): corners, score, class.
    errors : ndarray of float64
        Covariances in the state's coordinates, of shape (n, 4, 4), or (0, 4, 4).
    dt : float
        Frames since the last.
    out : ndarray of float64
        Shape (n, 8): corners, identity, score, class, row.
    trace : Trace
    """
    filters, counts, idle, tracker = live
    means = filters.means
    model, noise = rules.model, rules.noise
    tracker[FRAME] += 1
    alive = tracker[LIVE]
    for t in range(alive):
        for j in (2, 3):
            if means[t, j] + dt * means[t, j + 4] <= 0:
                means[t, j + 4] = 0.0
    predict(filters, alive, noise, dt)
    boxes, kept = np.empty((alive, 4)), 0
    for t in range(alive):
        if idle[t] > 0:
            counts[t, STREAK] = 0
        idle[t] += dt
        if corners(model, means, t, boxes, kept):
            if t != kept:
                _move(live, t, kept)
            kept += 1
    alive = kept

    z = np.empty((len(rows), 4))
    for d in range(len(rows)):
        measure(model, rows, d, z)
    boxes, classes = boxes[:alive], counts[:alive, CLASS]
    partners = associate(rules.stages, rows, z, boxes, classes, filters, noise, errors, rules.per_class)
    if len(trace.innovations):
        _write_innovations(trace, filters, partners, z, noise, errors)
    update(filters, partners, z, noise, errors)
    row_of = np.full(alive + len(rows), -1)
    for d in range(len(rows)):
        t = partners[d]
        if t == FREE:
            t = alive
            alive += 1
            start(filters, t, z, d, noise, errors, rules.first_is_measured)
            counts[t, ID], counts[t, STREAK] = tracker[NEXT_ID], 0
            tracker[NEXT_ID] += 1
        else:
            counts[t, STREAK] += 1
        counts[t, CLASS], idle[t], row_of[t] = int(rows[d, 5]), 0.0, d

    reported = kept = 0
    for t in range(alive):
        d = row_of[t]
        confirmed = counts[t, STREAK] >= rules.min_hits or tracker[FRAME] <= rules.min_hits
        if d >= 0 and confirmed and corners(model, means, t, out, reported):
            out[reported, 4], out[reported, 5] = counts[t, ID], rows[d, 4]
            out[reported, 6], out[reported, 7] = rows[d, 5], d
            if len(trace.covariances):
                _write_covariance(trace, filters, t, reported)
            reported += 1
        if idle[t] <= rules.max_age:
            if t != kept:
                _move(live, t, kept)
            kept += 1
    tracker[LIVE] = kept
    return reported


@compiled
def run(
    rules: Rules,
    live: Live,
    rows: Floats,
    starts: Ints,
    errors: Floats,
    steps: Floats,
    out: Floats,
    trace: Trace,
) -> tuple[Live, Ints]:
    """Take the frames of a sequence.

    Parameters
    ----------
    rules, live, rows, errors, out, trace
        As for `step`, of all frames.
    starts : ndarray of int64
        Shape (frames + 1,): the first row of each frame, and the number of rows.
    steps : ndarray of float64
        Shape (frames,): each frame's dt.

    Returns
    -------
    live : Live
    ends : ndarray of int64
        Shape (frames,): how many rows of `out` there are after each frame.
    """
    ends, reported = np.empty(len(steps), np.int64), 0
    for frame in range(len(steps)):
        first, last = starts[frame], starts[frame + 1]
        live = room_for(live, last - first)
        frame_errors = errors[first:last] if len(errors) else errors
        frame_trace = Trace(
            trace.covariances[reported:], trace.innovations[first:last], trace.spreads[first:last]
        )
        reported += step(
            rules, live, rows[first:last], frame_errors, steps[frame], out[reported:], frame_trace
        )
        ends[frame] = reported
    return live, ends


@compiled
def _move(live: Live, source: int, target: int) -> None:
    filters, counts, idle, _ = live
    filters.means[target] = filters.means[source]
    if len(filters.dense):
        filters.dense[target] = filters.dense[source]
    else:
        filters.split[target] = filters.split[source]
    counts[target] = counts[source]
    idle[target] = idle[source]


@compiled
def _write_innovations(
    trace: Trace, filters: Filters, partners: Ints, z: Floats, noise: Floats, errors: Floats
) -> None:
    r = np.empty((4, 4))
    for d in range(len(partners)):
        t = partners[d]
        if t == FREE:
            continue
        measurement_covariance(noise, errors, d, filters.means[t, 3], r)
        for i in range(4):
            trace.innovations[d, i] = z[d, i] - filters.means[t, i]
            for j in range(4):
                trace.spreads[d, i, j] = position_covariance(filters, t, i, j) + r[i, j]


@compiled
def _write_covariance(trace: Trace, filters: Filters, t: int, row: int) -> None:
    for i in range(4):
        for j in range(4):
            trace.covariances[row, i, j] = position_covariance(filters, t, i, j)


@compiled
def position_covariance(filters: Filters, track: int, i: int, j: int) -> float:
    """Return one entry of the covariance of a track's four positions."""
    if len(filters.dense):
        return filters.dense[track, i, j]
    return filters.split[track, i, 0] if i == j else 0.0
