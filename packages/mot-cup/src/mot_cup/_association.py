"""Association of detections with predicted tracks, by stages: each works on what the stages before it left.

    iou          overlap o of the boxes. As SORT does it: where no detection and no track has more than one
                 partner with o > limit, those are the pairs; else the pairs of most total overlap, of which
                 those with o < limit are then given up. The two differ, and the second may give up two fair
                 pairs for one good and one bad.
    giou         generalised overlap in (-1, 1] (Rezatofighi et al., CVPR 2019), of at least the limit
    nll          the paper's: mean over the four coordinates of max(0, -log N(track; detection, R)), R the
                 detection's own variances. The pairs of least total, of which those above the limit are
                 then given up.
    mahalanobis  d^2 = y' S^-1 y of the innovation y and its covariance S = P + R, of at most the limit
    innovation   -log N(y; 0, S), of at most the limit

The last two know how sure the track is, which ``nll`` does not. Except in ``iou`` and ``nll``, which are kept
as published, pairs beyond the limit are no candidates, and of the others those are taken whose gains, their
distances from the limit, add up to most.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from mot_cup._assignment import assign, assign_within
from mot_cup._boxes import Floats
from mot_cup._compiled import compiled, inlined
from mot_cup._kalman import DENSE, factorise, measurement_variance, position_covariance, solve
from mot_cup._tracks import Ints
from tenfold import SettingError, UnknownNameError

Bools = NDArray[np.bool_]
Measure = Literal["iou", "giou", "nll", "mahalanobis", "innovation"]
MEASURES: tuple[Measure, ...] = get_args(Measure)
IOU, GIOU, NLL, MAHALANOBIS, INNOVATION = range(5)
LIMITS: dict[Measure, tuple[float, float]] = {
    "iou": (0, 1),
    "giou": (-1, 1),
    "nll": (0, np.inf),
    "mahalanobis": (0, np.inf),
    "innovation": (-np.inf, np.inf),
}
LOG_2PI = float(np.log(2 * np.pi))
FREE = -1
# Marks of a track: it overlaps a detection by more than the limit; a detection overlaps none more than it.
CLEAR, WANTED = 1, 2
# Entries of a matrix of costs that is sooner solved whole than in parts.
SMALL = 400


@dataclass(frozen=True)
class Stage:
    """One stage of association.

    Parameters
    ----------
    measure : {"iou", "giou", "nll", "mahalanobis", "innovation"}
        What is compared; see `mot_cup._association`.
    limit : float
        The least overlap or greatest distance of a pair.

    Raises
    ------
    UnknownNameError
        There is no such measure.
    SettingError
        The measure never takes such a value.
    """

    measure: Measure
    limit: float

    def __post_init__(self) -> None:
        if self.measure not in MEASURES:
            raise UnknownNameError("measure of association", self.measure, MEASURES)
        least, most = LIMITS[self.measure]
        if not (np.isfinite(self.limit) and least <= self.limit <= most):
            raise SettingError(
                f"{self.measure} with a limit of {self.limit}",
                f"a finite number from {least} to {most}",
                "Correct the limit.",
            )


def stage_table(stages: Sequence[Stage]) -> Floats:
    """Return the stages as compiled code reads them: rows of number of the measure, limit."""
    return np.array([[MEASURES.index(stage.measure), stage.limit] for stage in stages], dtype=np.float64)


@compiled
def associate(
    stages: Floats,
    rows: Floats,
    z: Floats,
    boxes: Floats,
    classes: Floats,
    filters: Floats,
    noise: Floats,
    errors: Floats,
    per_class: bool,
) -> Ints:
    """Return the track of every detection, `FREE` where it has none.

    Parameters
    ----------
    stages : ndarray of float64
        Shape (k, 2), of `stage_table`.
    rows : ndarray of float64
        Detections, of shape (n, 6): corners, score, class.
    z : ndarray of float64
        Detections in the state's coordinates, of shape (n, 4).
    boxes : ndarray of float64
        Corners of the predicted tracks, of shape (m, 4).
    classes : ndarray of float64
        Of the tracks, of shape (m,).
    filters : ndarray of float64
        Of the tracks, in their first m rows, of `mot_cup._kalman`.
    noise : ndarray of float64
        Table of variances, of shape (5, 4, 2).
    errors : ndarray of float64
        Covariances of the detections in the state's coordinates, of shape (n, 4, 4), or (0, 4, 4) for those
        of `noise`.
    per_class : bool
        Only pairs of one class.

    Returns
    -------
    ndarray of int64
        Shape (n,).
    """
    n, m = len(rows), len(boxes)
    partners = np.full(n, FREE)
    if n == 0 or m == 0:
        return partners
    taken, marks = np.zeros(m, np.bool_), np.empty(m, np.int64)
    for stage in range(len(stages)):
        kind, limit = int(stages[stage, 0]), stages[stage, 1]
        if kind == NLL:
            _published_nll(limit, rows, z, classes, filters, noise, errors, per_class, partners, taken)
        elif kind != IOU or not by_plain_overlap(
            limit, rows, 0, n, boxes, m, classes, per_class, partners, taken, marks
        ):
            by_candidates(
                kind, limit, rows, z, boxes, classes, filters, noise, errors, per_class, partners, taken
            )
        if stage + 1 < len(stages):
            for d in range(n):
                if partners[d] != FREE:
                    taken[partners[d]] = True
    return partners


@compiled
def by_plain_overlap(
    limit: float,
    rows: Floats,
    first: int,
    last: int,
    boxes: Floats,
    tracks: int,
    classes: Floats,
    per_class: bool,
    partners: Ints,
    taken: Bools,
    marks: Ints,
) -> bool:
    """Pair as SORT does where that needs no assignment, and return whether it does not.

    Parameters
    ----------
    limit : float
    rows : ndarray of float64
        Detections, of shape (n, 6).
    first, last : int
        Rows of the detections that are paired, the last one not.
    boxes : ndarray of float64
        Corners of the predicted tracks, in the first rows.
    tracks : int
        How many there are.
    classes : ndarray of float64
        Of the tracks.
    per_class : bool
    partners : ndarray of int64
        Shape (n,): the track of every detection or `FREE`, to be written where it is.
    taken : ndarray of bool
        Tracks that are left alone.
    marks : ndarray of int64
        Overwritten; at least as long as there are tracks.
    """
    for t in range(tracks):
        marks[t] = 0
    any_clear, unique, distinct = False, True, True
    for d in range(first, last):
        if partners[d] != FREE:
            continue
        its_clear, most, best = False, 0.0, FREE
        for t in range(tracks):
            gain = overlap(rows, d, boxes, t)
            if gain <= 0 or taken[t] or (per_class and classes[t] != rows[d, 5]):
                continue
            if gain > limit:
                unique = unique and not its_clear and marks[t] & CLEAR == 0
                marks[t] |= CLEAR
                its_clear = any_clear = True
            if gain > most:
                best, most = t, gain
        if best != FREE:
            distinct = distinct and marks[best] & WANTED == 0
            marks[best] |= WANTED
            partners[d] = FREE - 1 - best
    shortcut = any_clear and unique
    paired = shortcut or distinct
    # Where all want different tracks, those they want most are the most overlap there is.
    for d in range(first, last):
        if partners[d] < FREE:
            best, partners[d] = FREE - 1 - partners[d], FREE
            if paired:
                gain = overlap(rows, d, boxes, best)
                if gain > limit or (gain == limit and not shortcut):
                    partners[d] = best
    return paired


@compiled
def by_candidates(
    kind: int,
    limit: float,
    rows: Floats,
    z: Floats,
    boxes: Floats,
    classes: Floats,
    filters: Floats,
    noise: Floats,
    errors: Floats,
    per_class: bool,
    partners: Ints,
    taken: Bools,
) -> None:
    """Pair candidates so that their gains add up to most.

    Parameters
    ----------
    kind : int
        Measure: `IOU`, `GIOU`, `MAHALANOBIS` or `INNOVATION`.
    limit : float
    rows, z, boxes, classes, filters, noise, errors, per_class
        As for `associate`.
    partners : ndarray of int64
        Shape (n,): the track of every detection or `FREE`, to be written where it is.
    taken : ndarray of bool
        Shape (m,): tracks that are left alone.
    """
    n, m = len(rows), len(boxes)
    few = n * m <= SMALL
    cost = np.full((n, m) if few else (0, 0), np.inf)
    room = 0 if few else 2 * (n + m)
    ends, gains, count = np.empty((room, 2), np.int64), np.empty(room), 0
    work = np.empty((10 if kind >= MAHALANOBIS else 0, 4))
    for d in range(n):
        if partners[d] != FREE:
            continue
        for t in range(m):
            if taken[t] or (per_class and classes[t] != rows[d, 5]):
                continue
            if kind == IOU:
                gain = overlap(rows, d, boxes, t)
                if gain <= 0:
                    continue
            elif kind == GIOU:
                gain = generalised_overlap(rows, d, boxes, t) - limit
            else:
                gain = limit - distance(kind, limit, filters, t, z, noise, errors, d, work)
            if not gain >= 0:
                continue
            if few:
                cost[d, t] = -gain
                continue
            if count == len(gains):
                ends, gains = np.concatenate((ends, ends)), np.concatenate((gains, gains))
            ends[count, 0], ends[count, 1], gains[count] = d, t, gain
            count += 1
    if few:
        chosen = assign_within(cost, 0.0)
        for d in range(n):
            if chosen[d] >= 0:
                partners[d] = chosen[d]
    elif count:
        _most_gain(ends[:count], gains[:count], partners, m)
    if kind == IOU:
        for d in range(n):
            t = partners[d]
            if t != FREE and not taken[t] and overlap(rows, d, boxes, t) < limit:
                partners[d] = FREE


@compiled
def _most_gain(ends: Ints, gains: Floats, partners: Ints, tracks: int) -> None:
    """Pair by candidates of no negative gain, each set of them that they connect by itself."""
    n = len(partners)
    group = np.arange(n + tracks)
    for e in range(len(ends)):
        a, b = _root(group, ends[e, 0]), _root(group, n + ends[e, 1])
        group[max(a, b)] = min(a, b)
    sizes = np.zeros(n, np.int64)
    for e in range(len(ends)):
        sizes[_root(group, ends[e, 0])] += 1
    starts = np.cumsum(sizes) - sizes
    order, filled = np.empty(len(ends), np.int64), starts.copy()
    for e in range(len(ends)):
        root = _root(group, ends[e, 0])
        order[filled[root]] = e
        filled[root] += 1
    place = np.full(n + tracks, -1)
    for root in range(n):
        if sizes[root] == 1:
            e = order[starts[root]]
            partners[ends[e, 0]] = ends[e, 1]
        elif sizes[root] > 1:
            _solve_group(ends, gains, order[starts[root] : filled[root]], place, partners)


@compiled
def _solve_group(ends: Ints, gains: Floats, members: Ints, place: Ints, partners: Ints) -> None:
    n = len(partners)
    rows, columns = np.empty(len(members), np.int64), np.empty(len(members), np.int64)
    height = width = 0
    for e in members:
        d, t = ends[e, 0], ends[e, 1]
        if place[d] < 0:
            place[d], rows[height] = height, d
            height += 1
        if place[n + t] < 0:
            place[n + t], columns[width] = width, t
            width += 1
    cost = np.full((height, width), np.inf)
    for e in members:
        cost[place[ends[e, 0]], place[n + ends[e, 1]]] = -gains[e]
    chosen = assign_within(cost, 0.0)
    for i in range(height):
        if chosen[i] >= 0:
            partners[rows[i]] = columns[chosen[i]]


@compiled
def _root(group: Ints, node: int) -> int:
    while group[node] != node:
        group[node] = group[group[node]]
        node = group[node]
    return node


@compiled
def _published_nll(
    limit: float,
    rows: Floats,
    z: Floats,
    classes: Floats,
    filters: Floats,
    noise: Floats,
    errors: Floats,
    per_class: bool,
    partners: Ints,
    taken: Bools,
) -> None:
    left: Ints = np.flatnonzero(partners == FREE)
    free: Ints = np.flatnonzero(~taken)
    if len(left) == 0 or len(free) == 0:
        return
    cost, most = np.full((len(left), len(free)), np.inf), limit
    for i, d in enumerate(left):
        for k, t in enumerate(free):
            if not per_class or classes[t] == rows[d, 5]:
                cost[i, k] = published_nll(filters, t, z, noise, errors, d)
                most = max(most, cost[i, k])
    # So dear that a pair of two classes is only ever taken where nothing else is left, and then refused.
    cost = np.minimum(cost, 1 + most * len(free))
    chosen = assign(cost)
    for i, d in enumerate(left):
        if chosen[i] >= 0 and cost[i, chosen[i]] <= limit:
            partners[d] = free[chosen[i]]


@compiled
def published_nll(filters: Floats, t: int, z: Floats, noise: Floats, errors: Floats, d: int) -> float:
    """Return the paper's distance of a track from a detection."""
    total = 0.0
    for j in range(4):
        v = measurement_variance(noise, errors, d, j, z[d, 3])
        off = filters[t, j] - z[d, j]
        total += max(0.0, (LOG_2PI + np.log(v) + off * off / v) / 2)
    return total / 4


@inlined
def overlap(rows: Floats, d: int, boxes: Floats, t: int) -> float:
    """Return the intersection of two boxes over their union."""
    w = min(rows[d, 2], boxes[t, 2]) - max(rows[d, 0], boxes[t, 0])
    h = min(rows[d, 3], boxes[t, 3]) - max(rows[d, 1], boxes[t, 1])
    # One branch, as which of the two decides is not to be predicted.
    if min(w, h) <= 0:
        return 0.0
    return float(w * h / (area(rows, d) + area(boxes, t) - w * h))


@compiled
def generalised_overlap(rows: Floats, d: int, boxes: Floats, t: int) -> float:
    """Return the overlap of two boxes, less the share of the box around both that neither covers."""
    w = max(rows[d, 2], boxes[t, 2]) - min(rows[d, 0], boxes[t, 0])
    h = max(rows[d, 3], boxes[t, 3]) - min(rows[d, 1], boxes[t, 1])
    o = overlap(rows, d, boxes, t)
    union = (area(rows, d) + area(boxes, t)) / (1 + o)
    return float(o - 1 + union / (w * h))


@inlined
def area(boxes: Floats, row: int) -> float:
    """Return the area of a box."""
    return float((boxes[row, 2] - boxes[row, 0]) * (boxes[row, 3] - boxes[row, 1]))


@compiled
def distance(
    kind: int,
    limit: float,
    filters: Floats,
    t: int,
    z: Floats,
    noise: Floats,
    errors: Floats,
    d: int,
    work: Floats,
) -> float:
    """Return the squared distance of an innovation, or its negative log likelihood."""
    s, factor, pivots, y = work[:4], work[4:8], work[8], work[9]
    dense = filters.shape[1] == DENSE
    logs = squares = 0.0
    for j in range(4):
        r = measurement_variance(noise, errors, d, j, filters[t, 3])
        s[j, j] = pivots[j] = position_covariance(filters, t, j, j) + r
        if s[j, j] <= 0:
            return np.inf
        y[j] = z[d, j] - filters[t, j]
        squares += y[j] * y[j] / s[j, j]
    # No coordinate alone is farther than all together, and far pairs are most of them.
    if dense and kind == MAHALANOBIS and max(y[0] ** 2 / s[0, 0], y[1] ** 2 / s[1, 1]) > limit:
        return np.inf
    if dense:
        for i in range(4):
            for j in range(i):
                own = errors[d, i, j] if len(errors) else 0.0
                s[i, j] = s[j, i] = position_covariance(filters, t, i, j) + own
        factorise(s, factor, pivots)
        solve(factor, pivots, y)
        squares = 0.0
        for j in range(4):
            squares += (z[d, j] - filters[t, j]) * y[j]
    if kind == MAHALANOBIS:
        return squares
    for j in range(4):
        if pivots[j] <= 0:
            return np.inf
        logs += np.log(pivots[j])
    return (4 * LOG_2PI + logs + squares) / 2
