"""One frame of OC-SORT in compiled code, and a sequence of them.

It is SORT (`mot_cup._sort_step`) with three things that trust the detections more than the filter:

momentum   a pair costs -(o + w s a): o the overlap, s the score, and a in [-1/2, 1/2] how well the way from
           the track's detection `delta_t` frames ago to this one agrees with the direction that the track
           moved in. As in SORT, where overlaps alone leave no choice they decide.
recovery   what is left over is paired once more, by the overlap with the track's last detection.
re-update  a track that is found after k - 1 frames without a detection goes back to the state of its last,
           and from there through k boxes on the straight line (of centre, width, height) to the new one.

The reference then corrects by the new detection a second time, and in the recovery takes a track of one
detection for the point (-1, -1), which has an overlap with nothing but a generalised overlap with boxes near.
Both are kept, except where the detections bring their covariances: there a detection counts once, and the box
at a fraction u of the way has the covariance of what it is, (1 - u)^2 R_last + u^2 R_new.

Here boxes of negative coordinates are boxes; the reference takes one whose numbers add up to less than zero
for none.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from mot_cup._assignment import assign
from mot_cup._association import FREE, GIOU, Bools, generalised_overlap, overlap
from mot_cup._boxes import Floats
from mot_cup._compiled import compiled
from mot_cup._kalman import (
    copy_filter,
    enlarge,
    make_filters,
    predict,
    start,
    update,
)
from mot_cup._state_models import XYAH, XYSR, corners, measure
from mot_cup._tracks import Ints

# Columns of what a track counts: GAP is frames since its last detection.
ID, HITS, STREAK, CLASS, AGE, GAP = range(6)
# Entries of what a tracker counts.
LIVE, NEXT_ID, FRAME = range(3)
# The reference's guards against division by zero.
TINY = 1e-6


class Rules(NamedTuple):
    """Settings of a tracker, as compiled code reads them.

    Attributes
    ----------
    high, low : float
        Scores: above `high` is high, between `low` and `high` low.
    use_low : bool
    limit : float
        Least overlap of a pair.
    inertia : float
        What multiplies the agreement of directions.
    recovery : int
        Measure of the pairing of what is left over: `mot_cup._association.IOU` or `GIOU`.
    max_age : float
    min_hits : int
    model : int
        State model.
    per_class : bool
    as_published : bool
        Whether the reference's accidents are kept.
    report_state : bool
        Whether the boxes reported are the filter's, and not the detections.
    noise : ndarray of float64
        Shape (5, 4, 2).
    """

    high: float
    low: float
    use_low: bool
    limit: float
    inertia: float
    recovery: int
    max_age: float
    min_hits: int
    model: int
    per_class: bool
    as_published: bool
    report_state: bool
    noise: Floats


class Live(NamedTuple):
    """Tracks of a tracker.

    Attributes
    ----------
    filters : ndarray of float64
        Shape (capacity, SPLIT or DENSE), of `mot_cup._kalman`.
    observed : ndarray of float64
        Filters as they were at the last detection.
    counts : ndarray of int64
        Shape (capacity, 6): identity, detections after the first, detections in a row, class, frames, frames
        since the last detection.
    idle : ndarray of float64
        Shape (capacity,): time since the last detection, in frames.
    directions : ndarray of float64
        Shape (capacity, 2): unit vector in x and y, 0 where unknown.
    last : ndarray of float64
        Shape (capacity, 4): corners of the last detection after the first.
    last_errors : ndarray of float64
        Shape (capacity, 4, 4): its covariance.
    window : ndarray of float64
        Shape (capacity, delta_t, 2): centres of the last detections after the first; that of age a is in a
        modulo delta_t.
    ages : ndarray of int64
        Shape (capacity, delta_t): at which they were, -1 for none.
    tracker : ndarray of int64
        Tracks alive, next identity, frames seen.
    """

    filters: Floats
    observed: Floats
    counts: Ints
    idle: Floats
    directions: Floats
    last: Floats
    last_errors: Floats
    window: Floats
    ages: Ints
    tracker: Ints


class Pairs(NamedTuple):
    """What the associations of a frame share: settings, tracks, detections, and who is paired.

    Attributes
    ----------
    rules : Rules
    counts : ndarray of int64
        Of the tracks, as `Live` has them.
    rows : ndarray of float64
        Detections, of shape (n, 6).
    partners : ndarray of int64
        Each detection's track or `FREE`.
    taken : ndarray of bool
        Whether a track has a detection.
    """

    rules: Rules
    counts: Ints
    rows: Floats
    partners: Ints
    taken: Bools


def make_live(delta_t: int, capacity: int = 32) -> Live:
    """Return a tracker without tracks."""
    return Live(
        make_filters(capacity),
        make_filters(capacity),
        np.zeros((capacity, 6), np.int64),
        np.zeros(capacity),
        np.zeros((capacity, 2)),
        np.zeros((capacity, 4)),
        np.zeros((capacity, 4, 4)),
        np.zeros((capacity, delta_t, 2)),
        np.full((capacity, delta_t), -1),
        np.array([0, 1, 0]),
    )


@compiled
def room_for(live: Live, more: int) -> Live:
    """Return the same tracks with room for more, at least twice as much if there was too little."""
    now, delta_t = live.ages.shape
    if live.tracker[LIVE] + more <= now:
        return live
    wanted = max(2 * now, live.tracker[LIVE] + more)
    counts, idle = np.zeros((wanted, 6), np.int64), np.zeros(wanted)
    directions, last, last_errors = np.zeros((wanted, 2)), np.zeros((wanted, 4)), np.zeros((wanted, 4, 4))
    window, ages = np.zeros((wanted, delta_t, 2)), np.full((wanted, delta_t), -1)
    counts[:now], idle[:now], directions[:now] = live.counts, live.idle, live.directions
    last[:now], last_errors[:now] = live.last, live.last_errors
    window[:now], ages[:now] = live.window, live.ages
    filters, observed = enlarge(live.filters, wanted), enlarge(live.observed, wanted)
    return Live(filters, observed, counts, idle, directions, last, last_errors, window, ages, live.tracker)


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
    tracker[FRAME] += 1
    boxes = _predict(rules, live, dt)
    n, m = len(rows), tracker[LIVE]
    z = np.empty((n, 4))
    for d in range(n):
        _measure(rules.model, rows, d, z)
    partners, taken = np.full(n, FREE), np.zeros(m, np.bool_)
    score, observed = rows[:, 4], counts[:m, HITS] > 0
    high, low = score > rules.high, (score > rules.low) & (score < rules.high)
    pairs = Pairs(rules, counts, rows, partners, taken)
    _pair_by_momentum(pairs, live, boxes, high)
    if rules.use_low:
        _pair_leftover(pairs, boxes, np.ones(m, np.bool_), low)
    _pair_leftover(pairs, live.last, observed | rules.as_published, high)

    for d in range(n):
        t = partners[d]
        if t != FREE and counts[t, GAP] > 1 and counts[t, HITS] > 0:
            _retrace(rules, live, t, rows, errors, d)
    update(filters, partners, z, rules.noise, errors)
    row_of = np.full(m + n, FREE)
    for d in range(n):
        t = partners[d]
        if t == FREE and high[d]:
            t = tracker[LIVE]
            tracker[LIVE] += 1
            _begin(rules, live, t, z, errors, d)
        elif t != FREE:
            _note(live, t, rows, errors, d)
        if t != FREE:
            counts[t, CLASS], counts[t, GAP], live.idle[t], row_of[t] = int(rows[d, 5]), 0, 0.0, d

    reported = kept = 0
    for t in range(tracker[LIVE]):
        confirmed = counts[t, STREAK] >= rules.min_hits or tracker[FRAME] <= rules.min_hits
        d = row_of[t]
        if d != FREE and confirmed:
            if rules.report_state or counts[t, HITS] == 0:
                corners(rules.model, filters, t, out, reported)
            else:
                out[reported, :4] = rows[d, :4]
            out[reported, 4], out[reported, 5] = counts[t, ID], rows[d, 4]
            out[reported, 6], out[reported, 7] = rows[d, 5], d
            reported += 1
        if live.idle[t] <= rules.max_age:
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
    """Move the tracks on, drop those that are no box, and return the corners of the others."""
    filters, counts, tracker = live.filters, live.counts, live.tracker
    alive = tracker[LIVE]
    for t in range(alive):
        _hold_size(filters, t, dt)
    predict(filters, alive, rules.noise, dt)
    boxes, kept = np.empty((alive, 4)), 0
    for t in range(alive):
        if live.idle[t] > 0:
            counts[t, STREAK] = 0
        live.idle[t] += dt
        counts[t, AGE] += 1
        counts[t, GAP] += 1
        if corners(rules.model, filters, t, boxes, kept):
            if t != kept:
                _move(live, t, kept)
            kept += 1
    tracker[LIVE] = kept
    return boxes[:kept]


@compiled
def _hold_size(filters: Floats, t: int, dt: float) -> None:
    """Stop a size that would fall to zero or below."""
    for j in (2, 3):
        if filters[t, j] + dt * filters[t, j + 4] <= 0:
            filters[t, j + 4] = 0.0


@compiled
def _pair_by_momentum(pairs: Pairs, live: Live, boxes: Floats, detections: Bools) -> None:
    rules, counts, rows, partners, taken = pairs
    free: Ints = np.flatnonzero(detections)
    m = len(boxes)
    if m == 0 or len(free) == 0:
        return
    overlaps, chosen = np.zeros((len(free), m)), np.full(len(free), FREE)
    seen, clear, unique = np.zeros(m, np.bool_), 0, True
    for k, d in enumerate(free):
        for t in range(m):
            if rules.per_class and counts[t, CLASS] != int(rows[d, 5]):
                continue
            overlaps[k, t] = overlap(rows, d, boxes, t)
            if overlaps[k, t] > rules.limit:
                unique = unique and chosen[k] == FREE and not seen[t]
                chosen[k], seen[t] = t, True
                clear += 1
    if clear == 0 or not unique:
        chosen = assign(_momentum_cost(rules, live, overlaps, rows, free))
    for k, d in enumerate(free):
        t = chosen[k]
        if t != FREE and overlaps[k, t] >= rules.limit:
            partners[d], taken[t] = t, True


@compiled
def _momentum_cost(rules: Rules, live: Live, overlaps: Floats, rows: Floats, free: Ints) -> Floats:
    cost = -overlaps
    for t in range(cost.shape[1]):
        moving_x, moving_y = live.directions[t]
        x, y = _earlier(live, t)
        for k, d in enumerate(free):
            if rules.per_class and live.counts[t, CLASS] != int(rows[d, 5]):
                cost[k, t] = np.inf
            elif live.counts[t, HITS] > 0:
                dx, dy = (rows[d, 0] + rows[d, 2]) / 2 - x, (rows[d, 1] + rows[d, 3]) / 2 - y
                length = np.sqrt(dx * dx + dy * dy) + TINY
                cosine = moving_x * (dx / length) + moving_y * (dy / length)
                agreement = (np.pi / 2 - np.arccos(min(1.0, max(-1.0, cosine)))) / np.pi
                cost[k, t] -= agreement * rules.inertia * rows[d, 4]
    return cost


@compiled
def _earlier(live: Live, t: int) -> tuple[float, float]:
    """Return the centre of the detection `delta_t` frames ago, of the next after it, or of the last."""
    age, delta_t = live.counts[t, AGE], live.ages.shape[1]
    for back in range(min(delta_t, age - 1), 0, -1):
        slot = (age - back) % delta_t
        if live.ages[t, slot] == age - back:
            return live.window[t, slot, 0], live.window[t, slot, 1]
    return (live.last[t, 0] + live.last[t, 2]) / 2, (live.last[t, 1] + live.last[t, 3]) / 2


@compiled
def _pair_leftover(pairs: Pairs, boxes: Floats, tracks: Bools, detections: Bools) -> None:
    """Pair tracks and detections that are not yet, by the measure for what is left over."""
    rules, counts, rows, partners, taken = pairs
    left: Ints = np.flatnonzero(tracks & ~taken)
    free: Ints = np.flatnonzero(detections & (partners == FREE))
    if len(left) == 0 or len(free) == 0:
        return
    cost, least = np.full((len(free), len(left)), np.inf), np.inf
    for k, d in enumerate(free):
        for i, t in enumerate(left):
            if rules.per_class and counts[t, CLASS] != int(rows[d, 5]):
                continue
            if rules.recovery == GIOU:
                cost[k, i] = -(generalised_overlap(rows, d, boxes, t) + 1) / 2
            else:
                cost[k, i] = -overlap(rows, d, boxes, t)
            least = min(least, cost[k, i])
    if -least <= rules.limit:
        return
    chosen = assign(cost)
    for k, d in enumerate(free):
        if chosen[k] != FREE and -cost[k, chosen[k]] >= rules.limit:
            partners[d], taken[left[chosen[k]]] = left[chosen[k]], True


@compiled
def _retrace(rules: Rules, live: Live, t: int, rows: Floats, errors: Floats, d: int) -> None:
    """Take a filter along a straight line from its last detection to this one, and predict it there."""
    gap = live.counts[t, GAP]
    dt = live.idle[t] / gap
    first, last, track = np.empty(4), np.empty(4), np.zeros(1, np.int64)
    _centre_and_size(rules.model, live.last, t, first)
    _centre_and_size(rules.model, rows, d, last)
    copy_filter(live.observed, t, live.filters, t)
    _hold_size(live.filters, t, dt)
    filters, z = live.filters[t : t + 1], np.empty((1, 4))
    predict(filters, 1, rules.noise, dt)
    for i in range(1, gap + 1 if rules.as_published else gap):
        u = i / gap
        x, y, w, h = first + i * ((last - first) / gap)
        z[0, 0], z[0, 1], z[0, 2], z[0, 3] = x, y, w, h
        if rules.model == XYSR:
            z[0, 2], z[0, 3] = w * h, w / h
        elif rules.model == XYAH:
            z[0, 2] = w / h
        between = errors[:0]
        if len(errors):
            between = (1 - u) ** 2 * live.last_errors[t : t + 1] + u**2 * errors[d : d + 1]
        update(filters, track, z, rules.noise, between)
        if i < gap:
            predict(filters, 1, rules.noise, dt)


@compiled
def _centre_and_size(model: int, boxes: Floats, row: int, out: Floats) -> None:
    """Write centre, width and height of a box, the sizes as they come back out of a measurement."""
    w, h = boxes[row, 2] - boxes[row, 0], boxes[row, 3] - boxes[row, 1]
    out[0], out[1], out[2], out[3] = boxes[row, 0] + w / 2, boxes[row, 1] + h / 2, w, h
    if model == XYSR:
        area, ratio = w * h, w / (h + TINY)
        out[2], out[3] = np.sqrt(area * ratio), np.sqrt(area / ratio)


@compiled
def _measure(model: int, boxes: Floats, row: int, out: Floats) -> None:
    """Write the coordinates of a box into its row of `out`, the ratio of ``xysr`` as the reference has it."""
    measure(model, boxes, row, out)
    if model == XYSR:
        out[row, 3] = (boxes[row, 2] - boxes[row, 0]) / (boxes[row, 3] - boxes[row, 1] + TINY)


@compiled
def _begin(rules: Rules, live: Live, t: int, z: Floats, errors: Floats, d: int) -> None:
    start(live.filters, t, z, d, rules.noise, errors, True)
    live.counts[t] = 0
    live.counts[t, ID] = live.tracker[NEXT_ID]
    live.tracker[NEXT_ID] += 1
    live.directions[t], live.last[t], live.ages[t] = 0.0, -1.0, -1


@compiled
def _note(live: Live, t: int, rows: Floats, errors: Floats, d: int) -> None:
    """Keep what later frames need of a detection that a track has been corrected by."""
    counts, delta_t = live.counts, live.ages.shape[1]
    x, y = (rows[d, 0] + rows[d, 2]) / 2, (rows[d, 1] + rows[d, 3]) / 2
    if counts[t, HITS] > 0:
        before_x, before_y = _earlier(live, t)
        dx, dy = x - before_x, y - before_y
        length = np.sqrt(dx * dx + dy * dy) + TINY
        live.directions[t, 0], live.directions[t, 1] = dx / length, dy / length
    copy_filter(live.filters, t, live.observed, t)
    live.last[t] = rows[d, :4]
    if len(errors):
        live.last_errors[t] = errors[d]
    slot = counts[t, AGE] % delta_t
    live.window[t, slot, 0], live.window[t, slot, 1], live.ages[t, slot] = x, y, counts[t, AGE]
    counts[t, HITS] += 1
    counts[t, STREAK] += 1


@compiled
def _move(live: Live, source: int, target: int) -> None:
    copy_filter(live.filters, source, live.filters, target)
    copy_filter(live.observed, source, live.observed, target)
    live.counts[target], live.idle[target] = live.counts[source], live.idle[source]
    live.directions[target], live.last[target] = live.directions[source], live.last[source]
    live.last_errors[target] = live.last_errors[source]
    live.window[target], live.ages[target] = live.window[source], live.ages[source]
