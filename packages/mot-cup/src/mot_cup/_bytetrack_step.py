"""One frame of ByteTrack in compiled code, and a sequence of them.

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

from typing import NamedTuple

import numpy as np

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
from mot_cup._kalman import (
    PROCESS,
    copy_filter,
    enlarge,
    make_filters,
    predict,
    start,
    update,
)
from mot_cup._state_models import corners, measure
from mot_cup._tracks import Ints

# Columns of what a track counts, and its states.
ID, STATE, CLASS, OUTLIVED = range(4)
UNCONFIRMED, TRACKED, LOST = range(3)
# Columns of a track's times, and entries of a tracker's.
BEGUN, SEEN = range(2)
# Entries of what a tracker counts.
LIVE, NEXT_ID, FRAME = range(3)
# Height among the velocities of a state.
VELOCITY_OF_HEIGHT = 7


class Rules(NamedTuple):
    """Settings of a tracker, as compiled code reads them.

    Attributes
    ----------
    high, low, new : float
        Scores: above `high` is high, between `low` and `high` low; `new` is the least that begins a track.
    first_limit, second_limit, unconfirmed_limit : float
        Greatest costs of a pair.
    duplicate_limit : float
        Of two boxes whose 1 - o is less, one is a duplicate.
    max_lost : float
        Frames that a track may be lost.
    edge : float
        What overlaps add to widths and heights.
    fuse_score : bool
    leftover : int
        Measure of the last association of step 3, or `FREE` for none.
    leftover_limit : float
    model : int
        State model.
    per_class : bool
    first_is_measured : bool
        Whether a covariance of the detection is also that of the track's first position.
    first_is_process : bool
        Whether the variances of a track's first detection are also those of the process of its position.
    predict_unconfirmed : bool
    noise : ndarray of float64
        Shape (5, 4, 2).
    """

    high: float
    low: float
    new: float
    first_limit: float
    second_limit: float
    unconfirmed_limit: float
    duplicate_limit: float
    max_lost: float
    edge: float
    fuse_score: bool
    leftover: int
    leftover_limit: float
    model: int
    per_class: bool
    first_is_measured: bool
    first_is_process: bool
    predict_unconfirmed: bool
    noise: Floats


class Live(NamedTuple):
    """Tracks of a tracker.

    Attributes
    ----------
    filters : ndarray of float64
        Shape (capacity, SPLIT or DENSE), of `mot_cup._kalman`.
    counts : ndarray of int64
        Shape (capacity, 4): identity, state, class, whether it once was lost for too long.
    times : ndarray of float64
        Shape (capacity, 2): of the first and of the last detection.
    origins : ndarray of float64
        Shape (capacity, 4): variances of the first detection.
    tracker : ndarray of int64
        Tracks alive, next identity, frames seen.
    clock : ndarray of float64
        Shape (1,): the present time in frames.
    """

    filters: Floats
    counts: Ints
    times: Floats
    origins: Floats
    tracker: Ints
    clock: Floats


class Pairs(NamedTuple):
    """What the associations of a frame share: settings, tracks, detections, and who is paired.

    Attributes
    ----------
    rules : Rules
    counts : ndarray of int64
        Of the tracks, as `Live` has them.
    boxes : ndarray of float64
        Corners of the tracks, of shape (m, 4).
    rows : ndarray of float64
        Detections, of shape (n, 6).
    partners : ndarray of int64
        Each detection's track or `FREE`.
    taken : ndarray of bool
        Whether a track has a detection.
    """

    rules: Rules
    counts: Ints
    boxes: Floats
    rows: Floats
    partners: Ints
    taken: Bools


def make_live(capacity: int = 32) -> Live:
    """Return a tracker without tracks."""
    return Live(
        make_filters(capacity),
        np.zeros((capacity, 4), np.int64),
        np.zeros((capacity, 2)),
        np.zeros((capacity, 4)),
        np.array([0, 1, 0]),
        np.zeros(1),
    )


@compiled
def room_for(live: Live, more: int) -> Live:
    """Return the same tracks with room for more, at least twice as much if there was too little."""
    capacity = len(live.counts)
    if live.tracker[LIVE] + more <= capacity:
        return live
    wanted = max(2 * capacity, live.tracker[LIVE] + more)
    counts, times, origins = np.zeros((wanted, 4), np.int64), np.zeros((wanted, 2)), np.zeros((wanted, 4))
    counts[:capacity], times[:capacity], origins[:capacity] = live.counts, live.times, live.origins
    return Live(enlarge(live.filters, wanted), counts, times, origins, live.tracker, live.clock)


@compiled
def step(rules: Rules, live: Live, rows: Floats, errors: Floats, dt: float, out: Floats) -> int:
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
    """
    filters, counts, tracker = live.filters, live.counts, live.tracker
    n, m = len(rows), tracker[LIVE]
    tracker[FRAME] += 1
    live.clock[0] += dt
    boxes = _predict(rules, live, dt)
    z = np.empty((n, 4))
    for d in range(n):
        measure(rules.model, rows, d, z)
    partners, taken = np.full(n, FREE), np.zeros(m, np.bool_)
    score, before = rows[:, 4], counts[:m, STATE].copy()
    high, low = score > rules.high, (score > rules.low) & (score < rules.high)
    unconfirmed, tracked = before == UNCONFIRMED, before == TRACKED

    pairs = Pairs(rules, counts, boxes, rows, partners, taken)
    _pair(pairs, ~unconfirmed, high, rules.first_limit, rules.fuse_score)
    _pair(pairs, tracked, low, rules.second_limit, False)
    if rules.leftover != FREE:
        _pair_leftover(pairs, tracked, score != rules.high, filters, z, errors)
    _pair(pairs, unconfirmed, high, rules.unconfirmed_limit, rules.fuse_score)
    if rules.leftover != FREE:
        _pair_leftover(pairs, unconfirmed, high | low, filters, z, errors)

    update(filters, partners, z, rules.noise, errors)
    row_of, ended = np.full(m + n, FREE), np.zeros(m + n, np.bool_)
    for d in range(n):
        t = partners[d]
        if t == FREE and high[d] and score[d] >= rules.new:
            t = tracker[LIVE]
            tracker[LIVE] += 1
            _begin(rules, live, t, z, errors, d)
        elif t != FREE:
            counts[t, STATE] = TRACKED
        if t != FREE:
            counts[t, CLASS], live.times[t, SEEN], row_of[t] = int(rows[d, 5]), live.clock[0], d
    for t in range(m):
        if taken[t]:
            continue
        if unconfirmed[t]:
            ended[t] = True
            continue
        counts[t, STATE] = LOST
        ended[t] = counts[t, OUTLIVED] > 0
        if not tracked[t] and live.clock[0] - live.times[t, SEEN] > rules.max_lost:
            counts[t, OUTLIVED] = 1
    _end_duplicates(rules, live, ended)

    reported = kept = 0
    for t in range(tracker[LIVE]):
        if ended[t]:
            continue
        if counts[t, STATE] == TRACKED:
            d = row_of[t]
            corners(rules.model, filters, t, out, reported)
            out[reported, 4], out[reported, 5] = counts[t, ID], rows[d, 4]
            out[reported, 6], out[reported, 7] = rows[d, 5], d
            reported += 1
        if t != kept:
            _move(live, t, kept)
        kept += 1
    tracker[LIVE] = kept
    return reported


@compiled
def run(
    rules: Rules, live: Live, rows: Floats, starts: Ints, errors: Floats, steps: Floats, out: Floats
) -> tuple[Live, Ints]:
    """Take the frames of a sequence.

    Parameters
    ----------
    rules, live, rows, errors, out
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
        reported += step(rules, live, rows[first:last], frame_errors, steps[frame], out[reported:])
        ends[frame] = reported
    return live, ends


@compiled
def _predict(rules: Rules, live: Live, dt: float) -> Floats:
    """Move the tracks on, and return the corners of all."""
    filters, counts = live.filters, live.counts
    boxes, noise, moving = np.empty((live.tracker[LIVE], 4)), rules.noise, 0
    for t in range(len(boxes)):
        if counts[t, STATE] == LOST:
            filters[t, VELOCITY_OF_HEIGHT] = 0.0
        # Unconfirmed tracks are the youngest, and so the last.
        if counts[t, STATE] != UNCONFIRMED or rules.predict_unconfirmed:
            moving += 1
    if rules.first_is_process:
        noise = noise.copy()
        for t in range(moving):
            noise[PROCESS, :, 0], noise[PROCESS, :, 1] = live.origins[t], 0.0
            predict(filters[t : t + 1], 1, noise, dt)
    else:
        predict(filters, moving, noise, dt)
    for t in range(len(boxes)):
        corners(rules.model, filters, t, boxes, t)
    return boxes


@compiled
def _pair(pairs: Pairs, tracks: Bools, detections: Bools, limit: float, fuse_score: bool) -> None:
    """Pair tracks and detections that are not yet, by overlap."""
    rules, counts, boxes, rows, partners, taken = pairs
    left: Ints = np.flatnonzero(tracks & ~taken)
    free: Ints = np.flatnonzero(detections & (partners == FREE))
    if len(left) == 0 or len(free) == 0:
        return
    cost = np.empty((len(left), len(free)))
    for i, t in enumerate(left):
        for k, d in enumerate(free):
            cost[i, k] = 1 - _overlap(boxes, t, rows, d, rules.edge)
            if fuse_score:
                cost[i, k] = 1 - (1 - cost[i, k]) * rows[d, 4]
            if rules.per_class and counts[t, CLASS] != int(rows[d, 5]):
                cost[i, k] = np.inf
    _take(assign_within(cost, limit), left, free, partners, taken)


@compiled
def _pair_leftover(
    pairs: Pairs, tracks: Bools, detections: Bools, filters: Floats, z: Floats, errors: Floats
) -> None:
    """Pair tracks and detections that are not yet, by the measure for what is left over."""
    rules, counts, boxes, rows, partners, taken = pairs
    left: Ints = np.flatnonzero(tracks & ~taken)
    free: Ints = np.flatnonzero(detections & (partners == FREE))
    if len(left) == 0 or len(free) == 0:
        return
    kind, limit, noise = rules.leftover, rules.leftover_limit, rules.noise
    cost, work = np.empty((len(left), len(free))), np.empty((10, 4))
    for i, t in enumerate(left):
        for k, d in enumerate(free):
            if kind == IOU:
                cost[i, k] = -overlap(rows, d, boxes, t)
            elif kind == GIOU:
                cost[i, k] = -generalised_overlap(rows, d, boxes, t)
            elif kind == NLL:
                cost[i, k] = published_nll(filters, t, z, noise, errors, d)
            else:
                cost[i, k] = distance(kind, limit, filters, t, z, noise, errors, d, work)
            if rules.per_class and counts[t, CLASS] != int(rows[d, 5]):
                cost[i, k] = np.inf
    _take(assign_within(cost, -limit if kind in (IOU, GIOU) else limit), left, free, partners, taken)


@compiled
def _take(chosen: Ints, left: Ints, free: Ints, partners: Ints, taken: Bools) -> None:
    for i, t in enumerate(left):
        if chosen[i] >= 0:
            partners[free[chosen[i]]], taken[t] = t, True


@compiled
def _begin(rules: Rules, live: Live, t: int, z: Floats, errors: Floats, d: int) -> None:
    counts, tracker = live.counts, live.tracker
    start(live.filters, t, z, d, rules.noise, errors, rules.first_is_measured)
    for j in range(4):
        live.origins[t, j] = errors[d, j, j] if len(errors) else 0.0
    counts[t, ID], counts[t, OUTLIVED] = tracker[NEXT_ID], 0
    counts[t, STATE] = TRACKED if tracker[FRAME] == 1 else UNCONFIRMED
    live.times[t, BEGUN] = live.clock[0]
    tracker[NEXT_ID] += 1


@compiled
def _end_duplicates(rules: Rules, live: Live, ended: Bools) -> None:
    """End the shorter-lived of a lost track and another that lies on it, the other where they are equal."""
    total = live.tracker[LIVE]
    states = live.counts[:total, STATE]
    lost: Ints = np.flatnonzero((states == LOST) & ~ended[:total])
    if len(lost) == 0:
        return
    boxes = np.empty((total, 4))
    for t in range(total):
        corners(rules.model, live.filters, t, boxes, t)
    others: Ints = np.flatnonzero((states != LOST) & ~ended[:total])
    lives = live.times[:total, SEEN] - live.times[:total, BEGUN]
    for p in others:
        for q in lost:
            if rules.per_class and live.counts[p, CLASS] != live.counts[q, CLASS]:
                continue
            if 1 - _overlap(boxes, p, boxes, q, rules.edge) < rules.duplicate_limit:
                ended[q if lives[p] > lives[q] else p] = True


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


@compiled
def _move(live: Live, source: int, target: int) -> None:
    copy_filter(live.filters, source, live.filters, target)
    live.counts[target], live.times[target] = live.counts[source], live.times[source]
    live.origins[target] = live.origins[source]
