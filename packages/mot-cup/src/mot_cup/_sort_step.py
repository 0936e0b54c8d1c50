"""SORT in compiled code: any number of frames, one of them or a whole sequence.

Tracks are rows of arrays. A frame predicts all of them, drops those without a box, pairs the rest with the
detections, corrects the paired, begins tracks at detections left over, and drops those idle for too long.

Two guards are those of Bewley's code: an area or aspect that would fall to zero or below loses its velocity,
and a predicted state that is no box ends its track. A track is reported in frames in which it has a
detection, once it has had `min_hits` in a row beyond its first, or in the first `min_hits` frames.

Two rules are not Bewley's and off by default: a detection of a low score begins no track, and a track that
coasts is reported as predicted. Of tracks that may coast all detections count, in a row or not.
"""

from __future__ import annotations

import numpy as np

from mot_cup._association import FREE, IOU, Bools, associate, by_candidates, by_plain_overlap
from mot_cup._boxes import Floats
from mot_cup._compiled import compiled
from mot_cup._kalman import (
    DENSE,
    copy_row,
    enlarge,
    hold_sizes,
    measurement_variance,
    position_covariance,
    predict_dense,
    predict_split,
    start,
    update_dense,
    update_split,
)
from mot_cup._state_models import corners, measure
from mot_cup._tracks import Ints

# Columns of what a track counts: identity, detections in a row, class, frames without a detection.
ID, STREAK, CLASS, IDLE = range(4)
# Entries of what a tracker counts: tracks alive, the next identity, frames seen.
ALIVE, NEXT_ID, FRAME = range(3)
# Columns of what a run writes down of a detection, if it is to: the innovation, its covariance S, the
# positions that the track then has, their covariance, and its identity. The first two are NaN where it began
# a track, and all where it did not.
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
    begin_score: float,
    coast: float,
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
        Shape (n, 8), to be written: corners, identity, score, class, row in the frame. With `coast` of more
        rows, all that there can be.
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
    begin_score : float
        Least score of a detection that begins a track.
    coast : float
        Frames without a detection in which a track is reported.
    first_is_measured : bool
        Whether a covariance of the detection is also that of the track's first position.

    Returns
    -------
    filters, counts : ndarray of float64
        Those given, which are overwritten, or larger ones.
    ends : ndarray of int64
        Shape (frames,): how many rows of `out` there are after each frame.
    """
    z, partners = np.empty((len(rows), 4)), np.full(len(rows), FREE)
    for d in range(len(rows)):
        measure(model, rows, d, z)
    ends, frame = np.empty(len(steps), np.int64), 0
    while frame < len(steps):
        needed = tracker[ALIVE] + starts[frame + 1] - starts[frame]
        if needed > len(counts):
            capacity = max(2 * len(counts), needed)
            filters, counts = enlarge(filters, capacity), enlarge(counts, capacity)
        frame = _take(
            frame,
            filters,
            counts,
            tracker,
            rows,
            z,
            partners,
            starts,
            errors,
            steps,
            out,
            ends,
            trace,
            noise,
            stages,
            model,
            max_age,
            min_hits,
            per_class,
            begin_score,
            coast,
            first_is_measured,
        )
    return filters, counts, ends


@compiled
def _take(
    frame: int,
    filters: Floats,
    counts: Floats,
    tracker: Ints,
    rows: Floats,
    z: Floats,
    partners: Ints,
    starts: Ints,
    errors: Floats,
    steps: Floats,
    out: Floats,
    ends: Ints,
    trace: Floats,
    noise: Floats,
    stages: Floats,
    model: int,
    max_age: float,
    min_hits: int,
    per_class: bool,
    begin_score: float,
    coast: float,
    first_is_measured: bool,
) -> int:
    """Take frames from one on while there is room for their tracks, and return the next.

    What is called for every frame calls nothing in turn, and no array is named anew: numba would count
    arrays in and out, which takes longer than all of the rest.
    """
    capacity, dense = len(counts), filters.shape[1] == DENSE
    boxes, classes, row_of = np.empty((capacity, 4)), counts[:, CLASS], np.empty(capacity, np.int64)
    marks, untaken = np.empty(capacity, np.int64), np.zeros(capacity, np.bool_)
    plain = len(stages) == 1 and stages[0, 0] == IOU
    while frame < len(steps):
        first, last = starts[frame], starts[frame + 1]
        if tracker[ALIVE] + last - first > capacity:
            break
        hold_sizes(filters, tracker[ALIVE], steps[frame])
        if dense:
            predict_dense(filters, tracker[ALIVE], noise, steps[frame])
        else:
            predict_split(filters, tracker[ALIVE], noise, steps[frame])
        _drop_without_box(filters, counts, tracker, boxes, model, steps[frame], coast > 0)
        # As `associate` does with this one stage.
        if not plain or not by_plain_overlap(
            stages[0, 1],
            rows,
            first,
            last,
            boxes,
            tracker[ALIVE],
            classes,
            per_class,
            partners,
            untaken,
            marks,
        ):
            _associate(
                stages,
                plain,
                rows[first:last],
                z[first:last],
                boxes[: tracker[ALIVE]],
                classes[: tracker[ALIVE]],
                filters,
                noise,
                errors[first:last] if len(errors) else errors,
                per_class,
                partners[first:last],
                untaken[: tracker[ALIVE]],
            )
        if len(trace):
            _write_innovations(trace, filters, partners, z, first, last, noise, errors)
        if dense:
            update_dense(filters, partners, z, first, last, noise, errors)
        else:
            update_split(filters, partners, z, first, last, noise, errors)
        _begin(
            filters,
            counts,
            tracker,
            rows,
            z,
            partners,
            row_of,
            first,
            last,
            noise,
            errors,
            begin_score,
            first_is_measured,
        )
        if len(trace):
            _write_posteriors(trace, filters, counts, partners, first, last)
        reported = ends[frame - 1] if frame else 0
        ends[frame] = _report(
            filters, counts, tracker, rows, row_of, first, out, reported, model, max_age, min_hits, coast
        )
        frame += 1
    return frame


@compiled
def _drop_without_box(
    filters: Floats,
    counts: Floats,
    tracker: Ints,
    boxes: Floats,
    model: int,
    dt: float,
    all_hits: bool,
) -> None:
    """Write the boxes of predicted tracks, and drop those that have none."""
    kept = 0
    for t in range(tracker[ALIVE]):
        if counts[t, IDLE] > 0 and not all_hits:
            counts[t, STREAK] = 0
        counts[t, IDLE] += dt
        if corners(model, filters, t, boxes, kept):
            if t != kept:
                copy_row(filters, t, kept)
                copy_row(counts, t, kept)
            kept += 1
    tracker[ALIVE] = kept


@compiled
def _associate(
    stages: Floats,
    plain: bool,
    rows: Floats,
    z: Floats,
    boxes: Floats,
    classes: Floats,
    filters: Floats,
    noise: Floats,
    errors: Floats,
    per_class: bool,
    partners: Ints,
    untaken: Bools,
) -> None:
    if plain:
        by_candidates(
            IOU,
            stages[0, 1],
            rows,
            z,
            boxes,
            classes,
            filters,
            noise,
            errors,
            per_class,
            partners,
            untaken,
        )
    else:
        partners[:] = associate(stages, rows, z, boxes, classes, filters, noise, errors, per_class)


@compiled
def _begin(
    filters: Floats,
    counts: Floats,
    tracker: Ints,
    rows: Floats,
    z: Floats,
    partners: Ints,
    row_of: Ints,
    first: int,
    last: int,
    noise: Floats,
    errors: Floats,
    begin_score: float,
    first_is_measured: bool,
) -> None:
    """Note what tracks have a detection, and begin tracks at the others."""
    alive = tracker[ALIVE]
    for t in range(alive):
        row_of[t] = FREE
    for d in range(first, last):
        t = partners[d]
        if t == FREE and rows[d, 4] < begin_score:
            continue
        if t == FREE:
            t = partners[d] = alive
            alive += 1
            start(filters, t, z, d, noise, errors, first_is_measured)
            counts[t, ID], counts[t, STREAK] = tracker[NEXT_ID], 0
            tracker[NEXT_ID] += 1
        else:
            counts[t, STREAK] += 1
        counts[t, CLASS], counts[t, IDLE], row_of[t] = rows[d, 5], 0.0, d
    tracker[ALIVE] = alive


@compiled
def _report(
    filters: Floats,
    counts: Floats,
    tracker: Ints,
    rows: Floats,
    row_of: Ints,
    first: int,
    out: Floats,
    reported: int,
    model: int,
    max_age: float,
    min_hits: int,
    coast: float,
) -> int:
    """Write the tracks of a frame after so many rows, drop those that are idle, and return the rows then."""
    tracker[FRAME] += 1
    kept = 0
    for t in range(tracker[ALIVE]):
        d = row_of[t]
        confirmed = counts[t, STREAK] >= min_hits or tracker[FRAME] <= min_hits
        due = confirmed and (d != FREE or counts[t, IDLE] <= coast)
        if due and corners(model, filters, t, out, reported):
            out[reported, 4], out[reported, 5] = counts[t, ID], rows[d, 4] if d != FREE else 0.0
            out[reported, 6], out[reported, 7] = counts[t, CLASS], d - first if d != FREE else -1
            reported += 1
        if counts[t, IDLE] <= max_age:
            if t != kept:
                copy_row(filters, t, kept)
                copy_row(counts, t, kept)
            kept += 1
    tracker[ALIVE] = kept
    return reported


@compiled
def _write_innovations(
    trace: Floats,
    filters: Floats,
    partners: Ints,
    z: Floats,
    first: int,
    last: int,
    noise: Floats,
    errors: Floats,
) -> None:
    trace[first:last, :STATE] = np.nan
    for d in range(first, last):
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
def _write_posteriors(
    trace: Floats, filters: Floats, counts: Floats, partners: Ints, first: int, last: int
) -> None:
    trace[first:last, STATE:] = np.nan
    for d in range(first, last):
        if partners[d] == FREE:
            continue
        trace[d, OWNER] = counts[partners[d], ID]
        for i in range(4):
            trace[d, STATE + i] = filters[partners[d], i]
            for j in range(4):
                trace[d, POSTERIOR + 4 * i + j] = position_covariance(filters, partners[d], i, j)
