"""OC-SORT in compiled code: any number of frames, one of them or a whole sequence.

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

import numpy as np
from numpy.polynomial import Chebyshev, Polynomial

from mot_cup._assignment import assign
from mot_cup._association import FREE, GIOU, Bools, generalised_overlap, overlap
from mot_cup._boxes import Floats
from mot_cup._compiled import compiled, inlined
from mot_cup._kalman import copy_filter, enlarge, hold_sizes, predict, start, update
from mot_cup._state_models import XYAH, XYSR, corners, measure
from mot_cup._tracks import Ints

# Columns of what is noted of a track: identity, detections beyond the first, detections in a row, class,
# frames, frames and time since the last detection, direction (a unit vector, or 0), the last detection beyond
# the first and its covariance, and for each of the last `delta_t` frames x, y and the track's age then, in
# place of its age modulo `delta_t`.
ID, HITS, STREAK, CLASS, AGE, GAP, IDLE = range(7)
DIRECTION, LAST, ERRORS, WINDOW = 7, 9, 13, 29
# Entries of what a tracker counts: tracks alive, the next identity, frames seen.
ALIVE, NEXT_ID, FRAME = range(3)
# Entries of the limits: least scores of high and of low detections; least overlap of a pair; weight of the
# directions; frames that a track may be without a detection.
LEAST_HIGH, LEAST_LOW, OVERLAP, INERTIA, MAX_AGE = range(5)
# The reference's guard against a division by zero.
TINY = 1e-6
# Coefficients of arcsin(s) / s as a polynomial of 8 s^2 - 1, s from 0 to 1/2.
ARCSINE = (
    Chebyshev.interpolate(lambda square: np.arcsin(np.sqrt(square)) / np.sqrt(square), 12, (0, 0.25))
    .convert(kind=Polynomial, domain=(0, 0.25))
    .coef
)


def noted(delta_t: int) -> int:
    """Return how many columns the notes of a track have."""
    return WINDOW + 3 * delta_t


@compiled
def run(
    filters: Floats,
    observed: Floats,
    notes: Floats,
    tracker: Ints,
    rows: Floats,
    starts: Ints,
    errors: Floats,
    steps: Floats,
    out: Floats,
    noise: Floats,
    limits: Floats,
    model: int,
    recovery: int,
    min_hits: int,
    use_low: bool,
    per_class: bool,
    as_published: bool,
    report_state: bool,
) -> tuple[Floats, Floats, Floats, Ints]:
    """Take frames.

    Parameters
    ----------
    filters : ndarray of float64
        Shape (capacity, SPLIT or DENSE), of `mot_cup._kalman`.
    observed : ndarray of float64
        The same, as they were at each track's last detection.
    notes : ndarray of float64
        Shape (capacity, WINDOW + 3 delta_t).
    tracker : ndarray of int64
        Tracks alive, next identity, frames seen.
    rows, starts, errors, steps, out, noise, model
        As for `mot_cup._sort_step.run`.
    limits : ndarray of float64
        Shape (5,).
    recovery : int
        Measure of the pairing of what is left over, `mot_cup._association.IOU` or `GIOU`.
    min_hits : int
    use_low : bool
    per_class : bool
    as_published : bool
        Whether the reference's accidents are kept.
    report_state : bool
        Whether the boxes reported are the filter's, and not the detections.

    Returns
    -------
    filters, observed, notes : ndarray of float64
        Those given, which are overwritten, or larger ones.
    ends : ndarray of int64
        Shape (frames,): how many rows of `out` there are after each frame.
    """
    z = np.empty((len(rows), 4))
    for d in range(len(rows)):
        _measure(model, rows, d, z)
    boxes, row_of = np.empty((len(notes), 4)), np.empty(len(notes), np.int64)
    ends, reported = np.empty(len(steps), np.int64), 0
    alive = tracker[ALIVE]
    for frame in range(len(steps)):
        first, last = starts[frame], starts[frame + 1]
        tracker[FRAME] += 1
        if alive + last - first > len(notes):
            capacity = max(2 * len(notes), alive + last - first)
            filters, observed = enlarge(filters, capacity), enlarge(observed, capacity)
            notes = enlarge(notes, capacity)
            boxes, row_of = np.empty((len(notes), 4)), np.empty(len(notes), np.int64)
        alive = _advance(filters, observed, notes, boxes, alive, model, noise, steps[frame])

        now, its_z = rows[first:last], z[first:last]
        its_errors = errors[first:last] if len(errors) else errors
        partners, taken = np.full(last - first, FREE), np.zeros(alive, np.bool_)
        high, low = np.zeros(last - first, np.bool_), np.zeros(last - first, np.bool_)
        for d in range(last - first):
            high[d] = now[d, 4] > limits[LEAST_HIGH]
            low[d] = limits[LEAST_LOW] < now[d, 4] < limits[LEAST_HIGH]
        _pair_by_momentum(notes, boxes, now, high, limits, per_class, partners, taken)
        if use_low:
            _pair_leftover(notes, boxes, now, low, limits, recovery, per_class, partners, taken)
        seen_at = notes[:, LAST:ERRORS]
        unseen = taken if as_published else taken | (notes[:alive, HITS] == 0)
        _pair_leftover(notes, seen_at, now, high, limits, recovery, per_class, partners, unseen)

        for d in range(last - first):
            t = partners[d]
            if t != FREE and notes[t, GAP] > 1 and notes[t, HITS] > 0:
                _retrace(filters, observed, notes, t, now, its_errors, d, model, noise, as_published)
        update(filters, partners, its_z, 0, last - first, noise, its_errors)
        row_of[:alive] = FREE
        for d in range(last - first):
            t = partners[d]
            if t != FREE:
                copy_filter(filters, t, observed, t)
                _note(notes, t, now, its_errors, d)
            elif high[d]:
                t = alive
                alive += 1
                start(filters, t, its_z, d, noise, its_errors, True)
                _begin(notes, t, tracker)
            if t != FREE:
                notes[t, CLASS], notes[t, GAP], notes[t, IDLE], row_of[t] = now[d, 5], 0.0, 0.0, d

        kept = 0
        for t in range(alive):
            d = row_of[t]
            confirmed = notes[t, STREAK] >= min_hits or tracker[FRAME] <= min_hits
            if d != FREE and confirmed and corners(model, filters, t, out, reported):
                if not report_state and notes[t, HITS] > 0:
                    out[reported, :4] = now[d, :4]
                out[reported, 4], out[reported, 5] = notes[t, ID], now[d, 4]
                out[reported, 6], out[reported, 7] = now[d, 5], d
                reported += 1
            if notes[t, IDLE] <= limits[MAX_AGE]:
                if t != kept:
                    _move(filters, observed, notes, t, kept)
                kept += 1
        alive = kept
        ends[frame] = reported
    tracker[ALIVE] = alive
    return filters, observed, notes, ends


@compiled
def _advance(
    filters: Floats,
    observed: Floats,
    notes: Floats,
    boxes: Floats,
    alive: int,
    model: int,
    noise: Floats,
    dt: float,
) -> int:
    """Predict tracks and write their boxes, drop those that are none, and return how many are left."""
    hold_sizes(filters, alive, dt)
    predict(filters, alive, noise, dt)
    kept = 0
    for t in range(alive):
        if notes[t, IDLE] > 0:
            notes[t, STREAK] = 0
        notes[t, IDLE] += dt
        notes[t, AGE] += 1
        notes[t, GAP] += 1
        if corners(model, filters, t, boxes, kept):
            if t != kept:
                _move(filters, observed, notes, t, kept)
            kept += 1
    return kept


@compiled
def _pair_by_momentum(
    notes: Floats,
    boxes: Floats,
    rows: Floats,
    wanted: Bools,
    limits: Floats,
    per_class: bool,
    partners: Ints,
    taken: Bools,
) -> None:
    free, m = _chosen(wanted), len(taken)
    if m == 0 or len(free) == 0:
        return
    overlaps, chosen = np.zeros((len(free), m)), np.full(len(free), FREE)
    seen, clear, unique = np.zeros(m, np.bool_), 0, True
    for k in range(len(free)):
        d = free[k]
        for t in range(m):
            if per_class and notes[t, CLASS] != rows[d, 5]:
                continue
            overlaps[k, t] = overlap(rows, d, boxes, t)
            if overlaps[k, t] > limits[OVERLAP]:
                unique = unique and chosen[k] == FREE and not seen[t]
                chosen[k], seen[t] = t, True
                clear += 1
    if clear == 0 or not unique:
        chosen = assign(_momentum_costs(notes, overlaps, rows, free, limits[INERTIA], per_class))
    for k in range(len(free)):
        t = chosen[k]
        if t != FREE and overlaps[k, t] >= limits[OVERLAP]:
            partners[free[k]], taken[t] = t, True


@compiled
def _momentum_costs(
    notes: Floats, overlaps: Floats, rows: Floats, free: Ints, inertia: float, per_class: bool
) -> Floats:
    cost, tracks = np.empty_like(overlaps), overlaps.shape[1]
    # Of a track of fewer than two detections beyond the first the direction is 0, and so is its agreement.
    centres, directions = np.empty((2, tracks)), np.empty((2, tracks))
    for t in range(tracks):
        centres[0, t], centres[1, t] = _earlier(notes, t)
        directions[0, t], directions[1, t] = notes[t, DIRECTION], notes[t, DIRECTION + 1]
    for k in range(len(free)):
        d = free[k]
        x, y, weight = (rows[d, 0] + rows[d, 2]) / 2, (rows[d, 1] + rows[d, 3]) / 2, inertia * rows[d, 4]
        for t in range(tracks):
            dx, dy = x - centres[0, t], y - centres[1, t]
            along = directions[0, t] * dx + directions[1, t] * dy
            cosine = along / (np.sqrt(dx * dx + dy * dy) + TINY)
            cost[k, t] = -overlaps[k, t] - weight * _arcsin(min(1.0, max(-1.0, cosine))) / np.pi
        for t in range(tracks if per_class else 0):
            if notes[t, CLASS] != rows[d, 5]:
                cost[k, t] = np.inf
    return cost


@inlined
def _arcsin(x: float) -> float:
    """Return the arcsine to 1e-14; calls of libm's, number by number, take most of a crowd's time."""
    far = abs(x) > 0.5
    square = (1 - abs(x)) / 2 if far else x * x
    place, ratio = 8 * square - 1, ARCSINE[-1]
    for i in range(len(ARCSINE) - 2, -1, -1):
        ratio = ratio * place + ARCSINE[i]
    angle = np.sqrt(square) * ratio
    angle = np.pi / 2 - 2 * angle if far else angle
    return float(angle if x >= 0 else -angle)


@compiled
def _earlier(notes: Floats, t: int) -> tuple[float, float]:
    """Return the centre of the detection `delta_t` frames ago, of the next after it, or of the last."""
    age, delta_t = int(notes[t, AGE]), (notes.shape[1] - WINDOW) // 3
    for back in range(min(delta_t, age - 1), 0, -1):
        place = WINDOW + 3 * ((age - back) % delta_t)
        if notes[t, place + 2] == age - back:
            return notes[t, place], notes[t, place + 1]
    return (notes[t, LAST] + notes[t, LAST + 2]) / 2, (notes[t, LAST + 1] + notes[t, LAST + 3]) / 2


@compiled
def _pair_leftover(
    notes: Floats,
    boxes: Floats,
    rows: Floats,
    wanted: Bools,
    limits: Floats,
    recovery: int,
    per_class: bool,
    partners: Ints,
    taken: Bools,
) -> None:
    """Pair detections and tracks that are not yet, by overlap or generalised overlap."""
    left, free = _chosen(~taken), _chosen(wanted & (partners == FREE))
    if len(left) == 0 or len(free) == 0:
        return
    cost, least = np.full((len(free), len(left)), np.inf), np.inf
    for k in range(len(free)):
        d = free[k]
        for i in range(len(left)):
            t = left[i]
            if per_class and notes[t, CLASS] != rows[d, 5]:
                continue
            if recovery == GIOU:
                cost[k, i] = -(generalised_overlap(rows, d, boxes, t) + 1) / 2
            else:
                cost[k, i] = -overlap(rows, d, boxes, t)
            least = min(least, cost[k, i])
    if -least <= limits[OVERLAP]:
        return
    chosen = assign(cost)
    for k in range(len(free)):
        if chosen[k] != FREE and -cost[k, chosen[k]] >= limits[OVERLAP]:
            partners[free[k]], taken[left[chosen[k]]] = left[chosen[k]], True


@compiled
def _chosen(wanted: Bools) -> Ints:
    places, count = np.empty(len(wanted), np.int64), 0
    for place in range(len(wanted)):
        if wanted[place]:
            places[count] = place
            count += 1
    return places[:count]


@compiled
def _retrace(
    filters: Floats,
    observed: Floats,
    notes: Floats,
    t: int,
    rows: Floats,
    errors: Floats,
    d: int,
    model: int,
    noise: Floats,
    as_published: bool,
) -> None:
    """Take a filter along a straight line from its last detection to this one, and predict it there."""
    gap = int(notes[t, GAP])
    dt = notes[t, IDLE] / gap
    first, last, track, z = np.empty(4), np.empty(4), np.zeros(1, np.int64), np.empty((1, 4))
    _centre_and_size(model, notes[:, LAST:ERRORS], t, first)
    _centre_and_size(model, rows, d, last)
    copy_filter(observed, t, filters, t)
    its_filter, between = filters[t : t + 1], np.empty((min(len(errors), 1), 4, 4))
    hold_sizes(its_filter, 1, dt)
    predict(its_filter, 1, noise, dt)
    for i in range(1, gap + 1 if as_published else gap):
        u = i / gap
        for j in range(4):
            z[0, j] = first[j] + i * ((last[j] - first[j]) / gap)
        w, h = z[0, 2], z[0, 3]
        if model == XYSR:
            z[0, 2], z[0, 3] = w * h, w / h
        elif model == XYAH:
            z[0, 2] = w / h
        for j in range(16 if len(errors) else 0):
            row, column = j // 4, j % 4
            between[0, row, column] = (1 - u) ** 2 * notes[t, ERRORS + j] + u**2 * errors[d, row, column]
        update(its_filter, track, z, 0, 1, noise, between)
        if i < gap:
            predict(its_filter, 1, noise, dt)


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
def _begin(notes: Floats, t: int, tracker: Ints) -> None:
    for column in range(notes.shape[1]):
        notes[t, column] = 0.0
    for j in range(4):
        notes[t, LAST + j] = -1.0
    notes[t, ID] = tracker[NEXT_ID]
    tracker[NEXT_ID] += 1


@compiled
def _note(notes: Floats, t: int, rows: Floats, errors: Floats, d: int) -> None:
    """Keep what later frames need of a detection that a track has been corrected by."""
    delta_t = (notes.shape[1] - WINDOW) // 3
    x, y = (rows[d, 0] + rows[d, 2]) / 2, (rows[d, 1] + rows[d, 3]) / 2
    if notes[t, HITS] > 0:
        before_x, before_y = _earlier(notes, t)
        dx, dy = x - before_x, y - before_y
        length = np.sqrt(dx * dx + dy * dy) + TINY
        notes[t, DIRECTION], notes[t, DIRECTION + 1] = dx / length, dy / length
    for j in range(4):
        notes[t, LAST + j] = rows[d, j]
    for j in range(16 if len(errors) else 0):
        notes[t, ERRORS + j] = errors[d, j // 4, j % 4]
    place = WINDOW + 3 * (int(notes[t, AGE]) % delta_t)
    notes[t, place], notes[t, place + 1], notes[t, place + 2] = x, y, notes[t, AGE]
    notes[t, HITS] += 1
    notes[t, STREAK] += 1


@compiled
def _move(filters: Floats, observed: Floats, notes: Floats, source: int, target: int) -> None:
    copy_filter(filters, source, filters, target)
    copy_filter(observed, source, observed, target)
    copy_filter(notes, source, notes, target)
