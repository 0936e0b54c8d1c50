"""SORT in compiled code: any number of frames, one of them or a whole sequence.

Tracks are rows of arrays. A frame predicts all of them, drops those without a box, pairs the rest with the
detections, corrects the paired, begins tracks at detections left over, and drops those idle for too long.

Two guards are those of Bewley's code: an area or aspect that would fall to zero or below loses its velocity,
and a predicted state that is no box ends its track. A track is reported in frames in which it has a
detection, once it has had `min_hits` in a row beyond its first, or in the first `min_hits` frames.
"""

from __future__ import annotations

import numpy as np

from mot_cup._association import FREE, IOU, associate, by_plain_overlap
from mot_cup._boxes import Floats
from mot_cup._compiled import compiled
from mot_cup._kalman import (
    copy_filter,
    enlarge,
    measurement_variance,
    position_covariance,
    predict,
    start,
    update,
)
from mot_cup._state_models import corners, measure
from mot_cup._tracks import Ints

# Columns of what a track counts: identity, detections in a row, class, frames without a detection.
ID, STREAK, CLASS, IDLE = range(4)
# Entries of what a tracker counts: tracks alive, the next identity, frames seen.
ALIVE, NEXT_ID, FRAME = range(3)
# Columns of what a run writes down of a detection, if it is to: the innovation, its covariance S, the
# positions that the track then has, their covariance, and its identity. The first two are NaN where it began
# a track.
INNOVATION, SPREAD, STATE, POSTERIOR, OWNER, TRACE = 0, 4, 20, 24, 40, 41


@compiled
def run(
    filters: Floats,
    counts: Floats,
    tracker: Ints,
    rows: Floats,
    starts: Ints,
    errors: Floats,
    steps: Floats,
    out: Floats,
    trace: Floats,
    noise: Floats,
    stages: Floats,
    model: int,
    max_age: float,
    min_hits: int,
    per_class: bool,
    first_is_measured: bool,
) -> tuple[Floats, Floats, Ints]:
    """Take frames.

    Parameters
    ----------
    filters : ndarray of float64
        Shape (capacity, SPLIT or DENSE), of `mot_cup._kalman`.
    counts : ndarray of float64
        Shape (capacity, 4): identity, detections in a row, class, frames since the last detection.
    tracker : ndarray of int64
        Tracks alive, next identity, frames seen.
    rows : ndarray of float64
        Detections of all frames, of shape (n, 6): corners, score, class.
    starts : ndarray of int64
        Shape (frames + 1,): the first row of each frame, and the number of rows.
    errors : ndarray of float64
        Covariances in the state's coordinates, of shape (n, 4, 4), or (0, 4, 4).
    steps : ndarray of float64
        Shape (frames,): frames since the frame before.
    out : ndarray of float64
        Shape (n, 8), to be written: corners, identity, score, class, row in the frame.
    trace : ndarray of float64
        Shape (n, TRACE), to be written, or (0, TRACE) for nothing.
    noise : ndarray of float64
        Shape (5, 4, 2).
    stages : ndarray of float64
        Shape (k, 2), of `mot_cup._association.stage_table`.
    model : int
        State model.
    max_age : float
        Frames that a track may be without a detection.
    min_hits : int
    per_class : bool
    first_is_measured : bool
        Whether a covariance of the detection is also that of the track's first position.

    Returns
    -------
    filters, counts : ndarray of float64
        Those given, which are overwritten, or larger ones.
    ends : ndarray of int64
        Shape (frames,): how many rows of `out` there are after each frame.
    """
    z = np.empty((len(rows), 4))
    for d in range(len(rows)):
        measure(model, rows, d, z)
    boxes, row_of = np.empty((len(counts), 4)), np.empty(len(counts), np.int64)
    untaken, plain = np.zeros(len(counts), np.bool_), len(stages) == 1 and stages[0, 0] == IOU
    ends, reported = np.empty(len(steps), np.int64), 0
    alive, next_id, seen = tracker[ALIVE], tracker[NEXT_ID], tracker[FRAME]
    for frame in range(len(steps)):
        first, last = starts[frame], starts[frame + 1]
        seen += 1
        if alive + last - first > len(counts):
            capacity = max(2 * len(counts), alive + last - first)
            filters, counts = enlarge(filters, capacity), enlarge(counts, capacity)
            boxes, row_of = np.empty((capacity, 4)), np.empty(capacity, np.int64)
            untaken = np.zeros(capacity, np.bool_)
        alive = _advance(filters, counts, boxes, alive, model, noise, steps[frame])
        its_errors = errors[first:last] if len(errors) else errors
        partners = np.full(last - first, FREE)
        # As `associate` would begin, without what it takes to call it in every frame.
        if not plain or not by_plain_overlap(
            stages[0, 1],
            rows[first:last],
            boxes[:alive],
            counts[:alive, CLASS],
            per_class,
            partners,
            untaken[:alive],
        ):
            partners = associate(
                stages,
                rows[first:last],
                z[first:last],
                boxes[:alive],
                counts[:alive, CLASS],
                filters,
                noise,
                its_errors,
                per_class,
            )
        if len(trace):
            _write_innovations(trace[first:last], filters, partners, z[first:last], noise, its_errors)
        update(filters, partners, z[first:last], noise, its_errors)
        row_of[:alive] = -1
        for d in range(first, last):
            t = partners[d - first]
            if t == FREE:
                t = partners[d - first] = alive
                alive += 1
                start(filters, t, z, d, noise, errors, first_is_measured)
                counts[t, ID], counts[t, STREAK] = next_id, 0
                next_id += 1
            else:
                counts[t, STREAK] += 1
            counts[t, CLASS], counts[t, IDLE], row_of[t] = rows[d, 5], 0.0, d
        if len(trace):
            _write_posteriors(trace[first:last], filters, counts, partners)
        kept = 0
        for t in range(alive):
            d = row_of[t]
            confirmed = counts[t, STREAK] >= min_hits or seen <= min_hits
            if d >= 0 and confirmed and corners(model, filters, t, out, reported):
                out[reported, 4], out[reported, 5] = counts[t, ID], rows[d, 4]
                out[reported, 6], out[reported, 7] = rows[d, 5], d - first
                reported += 1
            if counts[t, IDLE] <= max_age:
                if t != kept:
                    _move(filters, counts, t, kept)
                kept += 1
        alive = kept
        ends[frame] = reported
    tracker[ALIVE], tracker[NEXT_ID], tracker[FRAME] = alive, next_id, seen
    return filters, counts, ends


@compiled
def _advance(
    filters: Floats, counts: Floats, boxes: Floats, alive: int, model: int, noise: Floats, dt: float
) -> int:
    """Predict tracks and write their boxes, drop those that are none, and return how many are left."""
    for t in range(alive):
        for j in (2, 3):
            if filters[t, j] + dt * filters[t, j + 4] <= 0:
                filters[t, j + 4] = 0.0
    predict(filters, alive, noise, dt)
    kept = 0
    for t in range(alive):
        if counts[t, IDLE] > 0:
            counts[t, STREAK] = 0
        counts[t, IDLE] += dt
        if corners(model, filters, t, boxes, kept):
            if t != kept:
                _move(filters, counts, t, kept)
            kept += 1
    return kept


@compiled
def _move(filters: Floats, counts: Floats, source: int, target: int) -> None:
    copy_filter(filters, source, filters, target)
    copy_filter(counts, source, counts, target)


@compiled
def _write_innovations(
    trace: Floats, filters: Floats, partners: Ints, z: Floats, noise: Floats, errors: Floats
) -> None:
    trace[:, :STATE] = np.nan
    for d in range(len(partners)):
        t = partners[d]
        if t == FREE:
            continue
        for i in range(4):
            trace[d, INNOVATION + i] = z[d, i] - filters[t, i]
            for j in range(4):
                own = errors[d, i, j] if len(errors) else 0.0
                trace[d, SPREAD + 4 * i + j] = position_covariance(filters, t, i, j) + own
            if len(errors) == 0:
                trace[d, SPREAD + 5 * i] += measurement_variance(noise, errors, d, i, filters[t, 3])


@compiled
def _write_posteriors(trace: Floats, filters: Floats, counts: Floats, partners: Ints) -> None:
    for d in range(len(partners)):
        trace[d, OWNER] = counts[partners[d], ID]
        for i in range(4):
            trace[d, STATE + i] = filters[partners[d], i]
            for j in range(4):
                trace[d, POSTERIOR + 4 * i + j] = position_covariance(filters, partners[d], i, j)
