"""ByteTrack in compiled code: any number of frames, one of them or a whole sequence.

Tracks are rows of arrays, each unconfirmed (begun in the last frame), tracked or lost. A frame

1. predicts the tracked and the lost, the lost without the velocity of their height;
2. pairs both with the detections of high score;
3. pairs the tracked left over with those of low score; by a measure of the user's, with all that is left;
   and those still left are lost;
4. pairs the unconfirmed with the high ones left, where they were last seen; those left end;
5. begins tracks at the high ones left, and ends lost tracks that are too old or lie on a tracked one.

Pairs are those of most gain under a limit (`mot_cup._assignment`). Costs are 1 - o s of the overlap o and the
score s, in step 3 and where scores are not to count 1 - o.

Some of what the reference does is by accident, and kept. A score that equals the threshold is neither high
nor low. A lost track that has become too old stays for one more frame, and if it is found in it, is ended the
next time that it is lost. Only a detection is used once here where the paper's code can give one of low score
to two tracks.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mot_cup._assignment import assign_within
from mot_cup._association import (
    FREE,
    GIOU,
    IOU,
    NLL,
    Bools,
    distance,
    generalised_overlap,
    overlap,
    published_nll,
)
from mot_cup._boxes import Floats
from mot_cup._compiled import compiled
from mot_cup._kalman import PROCESS, copy_filter, enlarge, predict, start, update
from mot_cup._state_models import corners, measure
from mot_cup._tracks import Ints

# Columns of what is noted of a track: identity, state, class, whether it once was lost for too long, times of
# the first and the last detection, and the first one's four variances.
ID, STATE, CLASS, OUTLIVED, BEGUN, SEEN, ORIGIN, NOTES = 0, 1, 2, 3, 4, 5, 6, 10
# States of a track and levels of a score, each a bit, so that a pairing can name several.
UNCONFIRMED, TRACKED, LOST, ENDED = 1, 2, 4, 8
HIGH, LOW, LEAST, NEITHER = 1, 2, 4, 8
# Entries of what a tracker counts: tracks alive, the next identity, frames seen, the time in frames.
ALIVE, NEXT_ID, FRAME, CLOCK = range(4)
# Entries of the limits: of scores; of the costs of pairs; frames that a track may be lost; what overlaps add
# to widths and heights; of the measure for what is left over.
LEAST_HIGH, LEAST_LOW, LEAST_NEW, FIRST, SECOND, THIRD, DUPLICATE, MAX_LOST, EDGE, LEFTOVER = range(10)
# Costs of a pair beside the measures of `mot_cup._association`: 1 - o s and 1 - o.
FUSED, PLAIN = -3, -2
# Column of the velocity of a height.
CLIMB = 7


@compiled
def run(
    filters: Floats,
    notes: Floats,
    tracker: Floats,
    rows: Floats,
    starts: Ints,
    errors: Floats,
    steps: Floats,
    out: Floats,
    noise: Floats,
    limits: Floats,
    model: int,
    leftover: int,
    fuse_score: bool,
    per_class: bool,
    first_is_process: bool,
    predict_all: bool,
) -> tuple[Floats, Floats, Ints]:
    """Take frames.

    Parameters
    ----------
    filters : ndarray of float64
        Shape (capacity, SPLIT or DENSE), of `mot_cup._kalman`.
    notes : ndarray of float64
        Shape (capacity, NOTES).
    tracker : ndarray of float64
        Tracks alive, next identity, frames seen, time.
    rows, starts, errors, steps, out, noise, model
        As for `mot_cup._sort_step.run`.
    limits : ndarray of float64
        Shape (10,).
    leftover : int
        Measure of the pairings of what is left over, or `FREE` for none.
    fuse_score : bool
    per_class : bool
    first_is_process : bool
        Whether the variances of a track's first detection are also those of the process of its position.
    predict_all : bool
        Whether unconfirmed tracks are predicted too.

    Returns
    -------
    filters, notes : ndarray of float64
        Those given, which are overwritten, or larger ones.
    ends : ndarray of int64
        Shape (frames,): how many rows of `out` there are after each frame.
    """
    z, levels = np.empty((len(rows), 4)), np.empty(len(rows), np.int64)
    for d in range(len(rows)):
        measure(model, rows, d, z)
        levels[d] = _level(rows[d, 4], limits)
    boxes, row_of = np.empty((len(notes), 4)), np.empty(len(notes), np.int64)
    ends, reported = np.empty(len(steps), np.int64), 0
    alive = int(tracker[ALIVE])
    by_score = FUSED if fuse_score else PLAIN
    for frame in range(len(steps)):
        first, last = starts[frame], starts[frame + 1]
        tracker[FRAME] += 1
        tracker[CLOCK] += steps[frame]
        if alive + last - first > len(notes):
            capacity = max(2 * len(notes), alive + last - first)
            filters, notes = enlarge(filters, capacity), enlarge(notes, capacity)
            boxes, row_of = np.empty((len(notes), 4)), np.empty(len(notes), np.int64)
        _advance(filters, notes, boxes, alive, model, noise, steps[frame], first_is_process, predict_all)

        now, its_z, its_levels = rows[first:last], z[first:last], levels[first:last]
        its_errors = errors[first:last] if len(errors) else errors
        partners, taken = np.full(last - first, FREE), np.zeros(alive, np.bool_)
        for states, wanted, kind, limit in (
            (TRACKED | LOST, HIGH, by_score, limits[FIRST]),
            (TRACKED, LOW, PLAIN, limits[SECOND]),
            (TRACKED, HIGH | LOW | LEAST, leftover, limits[LEFTOVER]),
            (UNCONFIRMED, HIGH, by_score, limits[THIRD]),
            (UNCONFIRMED, HIGH | LOW, leftover, limits[LEFTOVER]),
        ):
            if kind == FREE:
                continue
            left = _chosen(notes[:alive, STATE], states, taken)
            free = _chosen(its_levels, wanted, partners != FREE)
            if len(left) and len(free):
                cost = _costs(
                    kind,
                    limit,
                    left,
                    free,
                    filters,
                    notes,
                    boxes,
                    now,
                    its_z,
                    noise,
                    its_errors,
                    limits[EDGE],
                    per_class,
                )
                pairs = assign_within(cost, -limit if kind in (IOU, GIOU) else limit)
                for i in range(len(left)):
                    if pairs[i] != FREE:
                        partners[free[pairs[i]]], taken[left[i]] = left[i], True

        update(filters, partners, its_z, 0, last - first, noise, its_errors)
        for t in range(alive):
            row_of[t] = FREE
            if not taken[t]:
                _lose(notes, t, tracker[CLOCK], limits[MAX_LOST])
        for d in range(last - first):
            t = partners[d]
            if t == FREE and its_levels[d] == HIGH and now[d, 4] >= limits[LEAST_NEW]:
                t = alive
                alive += 1
                start(filters, t, its_z, d, noise, its_errors, True)
                _begin(notes, t, tracker, its_errors, d)
            elif t != FREE:
                notes[t, STATE] = TRACKED
            if t != FREE:
                notes[t, CLASS], notes[t, SEEN], row_of[t] = now[d, 5], tracker[CLOCK], d
        _end_duplicates(filters, notes, boxes, alive, model, limits, per_class)

        kept = 0
        for t in range(alive):
            if notes[t, STATE] == ENDED:
                continue
            if notes[t, STATE] == TRACKED and corners(model, filters, t, out, reported):
                d = row_of[t]
                out[reported, 4], out[reported, 5] = notes[t, ID], now[d, 4]
                out[reported, 6], out[reported, 7] = now[d, 5], d
                reported += 1
            if t != kept:
                copy_filter(filters, t, filters, kept)
                copy_filter(notes, t, notes, kept)
            kept += 1
        alive = kept
        ends[frame] = reported
    tracker[ALIVE] = alive
    return filters, notes, ends


@compiled
def _level(score: float, limits: Floats) -> int:
    if score > limits[LEAST_HIGH]:
        return HIGH
    if score <= limits[LEAST_LOW]:
        return LEAST
    return LOW if score < limits[LEAST_HIGH] else NEITHER


@compiled
def _advance(
    filters: Floats,
    notes: Floats,
    boxes: Floats,
    alive: int,
    model: int,
    noise: Floats,
    dt: float,
    first_is_process: bool,
    predict_all: bool,
) -> None:
    """Predict tracks, and write their boxes."""
    moving = 0
    for t in range(alive):
        if notes[t, STATE] == LOST:
            filters[t, CLIMB] = 0.0
        # Unconfirmed tracks are the youngest, and so the last.
        if predict_all or notes[t, STATE] != UNCONFIRMED:
            moving += 1
    if first_is_process:
        own = noise.copy()
        for t in range(moving):
            for j in range(4):
                own[PROCESS, j, 0], own[PROCESS, j, 1] = notes[t, ORIGIN + j], 0.0
            predict(filters[t : t + 1], 1, own, dt)
    else:
        predict(filters, moving, noise, dt)
    for t in range(alive):
        corners(model, filters, t, boxes, t)


@compiled
def _chosen(bits: NDArray[Any], wanted: int, taken: Bools) -> Ints:
    """Return the places of the bits that are wanted and not taken."""
    places, count = np.empty(len(bits), np.int64), 0
    for place in range(len(bits)):
        if int(bits[place]) & wanted and not taken[place]:
            places[count] = place
            count += 1
    return places[:count]


@compiled
def _costs(
    kind: int,
    limit: float,
    left: Ints,
    free: Ints,
    filters: Floats,
    notes: Floats,
    boxes: Floats,
    rows: Floats,
    z: Floats,
    noise: Floats,
    errors: Floats,
    edge: float,
    per_class: bool,
) -> Floats:
    cost, work = np.empty((len(left), len(free))), np.empty((10, 4))
    for i in range(len(left)):
        t = left[i]
        for k in range(len(free)):
            d = free[k]
            if per_class and notes[t, CLASS] != rows[d, 5]:
                cost[i, k] = np.inf
            elif kind == PLAIN:
                cost[i, k] = 1 - _overlap(boxes, t, rows, d, edge)
            elif kind == FUSED:
                cost[i, k] = 1 - (1 - (1 - _overlap(boxes, t, rows, d, edge))) * rows[d, 4]
            elif kind == IOU:
                cost[i, k] = -overlap(rows, d, boxes, t)
            elif kind == GIOU:
                cost[i, k] = -generalised_overlap(rows, d, boxes, t)
            elif kind == NLL:
                cost[i, k] = published_nll(filters, t, z, noise, errors, d)
            else:
                cost[i, k] = distance(kind, limit, filters, t, z, noise, errors, d, work)
    return cost


@compiled
def _lose(notes: Floats, t: int, now: float, max_lost: float) -> None:
    """Change the state of a track without a detection."""
    if notes[t, STATE] == UNCONFIRMED or notes[t, OUTLIVED] > 0:
        notes[t, STATE] = ENDED
        return
    if notes[t, STATE] == LOST and now - notes[t, SEEN] > max_lost:
        notes[t, OUTLIVED] = 1
    notes[t, STATE] = LOST


@compiled
def _begin(notes: Floats, t: int, tracker: Floats, errors: Floats, d: int) -> None:
    notes[t, ID], notes[t, OUTLIVED], notes[t, BEGUN] = tracker[NEXT_ID], 0, tracker[CLOCK]
    notes[t, STATE] = TRACKED if tracker[FRAME] == 1 else UNCONFIRMED
    for j in range(4):
        notes[t, ORIGIN + j] = errors[d, j, j] if len(errors) else 0.0
    tracker[NEXT_ID] += 1


@compiled
def _end_duplicates(
    filters: Floats, notes: Floats, boxes: Floats, alive: int, model: int, limits: Floats, per_class: bool
) -> None:
    """End the shorter-lived of a lost track and another that lies on it, the other where they are equal."""
    ended = np.zeros(alive, np.bool_)
    lost = 0
    for t in range(alive):
        lost += notes[t, STATE] == LOST
    if lost == 0:
        return
    for t in range(alive):
        corners(model, filters, t, boxes, t)
    for q in range(alive):
        if notes[q, STATE] != LOST:
            continue
        for p in range(alive):
            if notes[p, STATE] in (LOST, ENDED) or (per_class and notes[p, CLASS] != notes[q, CLASS]):
                continue
            if 1 - _overlap(boxes, p, boxes, q, limits[EDGE]) < limits[DUPLICATE]:
                longer = notes[p, SEEN] - notes[p, BEGUN] > notes[q, SEEN] - notes[q, BEGUN]
                ended[q if longer else p] = True
    for t in range(alive):
        if ended[t]:
            notes[t, STATE] = ENDED


@compiled
def _overlap(a: Floats, p: int, b: Floats, q: int, edge: float) -> float:
    """Return the intersection of two boxes over their union, every width and height longer by an edge."""
    w = min(a[p, 2], b[q, 2]) - max(a[p, 0], b[q, 0]) + edge
    if w <= 0:
        return 0.0
    h = min(a[p, 3], b[q, 3]) - max(a[p, 1], b[q, 1]) + edge
    if h <= 0:
        return 0.0
    area = (a[p, 2] - a[p, 0] + edge) * (a[p, 3] - a[p, 1] + edge)
    return float(w * h / (area + (b[q, 2] - b[q, 0] + edge) * (b[q, 3] - b[q, 1] + edge) - w * h))
