"""ByteTrack and OC-SORT from their descriptions, with whole matrices and SciPy: slow, and plainly right."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy.optimize import linear_sum_assignment

from mot_cup import BoxCovariance, Detections, Tracks
from mot_cup._boxes import Floats, Space, from_space, to_space

Pairs = list[tuple[int, int]]


@dataclass
class Track:
    x: Floats
    p: Floats
    id: int
    kind: int
    first_r: Floats | None = None
    begun: int = 0
    seen: int = 0
    tracked: bool = True
    confirmed: bool = False
    outlived: bool = False
    streak: int = 0
    age: int = 0
    direction: Floats = field(default_factory=lambda: np.zeros(2))
    observations: dict[int, Floats] = field(default_factory=dict)
    observed: tuple[Floats, Floats] | None = None
    last_r: Floats | None = None


Cost = Callable[[Track, int], float]


def predict(track: Track, q: Floats) -> None:
    f = np.eye(8) + np.eye(8, k=4)
    track.x, track.p = f @ track.x, f @ track.p @ f.T + q


def update(track: Track, z: Floats, r: Floats) -> None:
    h = np.eye(4, 8)
    k = track.p @ h.T @ np.linalg.inv(h @ track.p @ h.T + r)
    rest = np.eye(8) - k @ h
    track.x, track.p = track.x + k @ (z - h @ track.x), rest @ track.p @ rest.T + k @ r @ k.T


def overlap(a: Floats, b: Floats, edge: float = 0.0) -> float:
    sides = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]) + edge
    shared = float(np.prod(np.maximum(sides, 0)))
    return shared / float(np.prod(a[2:] - a[:2] + edge) + np.prod(b[2:] - b[:2] + edge) - shared)


def within(cost: Floats, limit: float) -> Pairs:
    """Return the pairs of the square problem of n + m rows that states a limit."""
    n, m = cost.shape
    square = np.full((n + m, n + m), limit / 2)
    square[:n, :m], square[n:, m:] = np.minimum(cost, 1e6), 0
    return [(i, j) for i, j in zip(*linear_sum_assignment(square), strict=True) if i < n and j < m]


def matrix(a: Sequence[object], b: Sequence[object], cost: Callable[[int, int], float]) -> Floats:
    return np.array([[cost(i, j) for j in range(len(b))] for i in range(len(a))]).reshape(len(a), len(b))


def bytetrack(
    frames: Iterable[Detections],
    *,
    space: Space = "xyah",
    high: float = 0.6,
    match: float = 0.9,
    buffer: int = 30,
    fuse: bool = True,
    per_class: bool = False,
    uncertainty: str = "off",
    tau: float | None = None,
) -> Tracks:
    def noise(height: float, position: float, velocity: float, ratio: tuple[float, float]) -> Floats:
        stds = np.repeat([position * height, velocity * height], 4)
        if space == "xyah":
            stds[[2, 6]] = ratio
        return np.diag(stds**2)

    tracks: list[Track] = []
    rows: list[tuple[int, int, Floats, float, int, int]] = []
    ids = 0

    def step(frame: int, detections: Detections) -> None:
        nonlocal tracks, ids
        z, scores, kinds = to_space(detections.boxes, space), detections.scores, detections.classes
        covariance = detections.covariance
        r = None if uncertainty == "off" or covariance is None else covariance.matrices
        for t in tracks:
            if not t.confirmed and uncertainty != "covariance":
                continue
            if not t.tracked:
                t.x[7] = 0
            q = noise(t.x[3], 1 / 20, 1 / 160, (1e-2, 1e-5))
            if uncertainty == "paper":
                q[:4, :4] = t.first_r
            predict(t, q)
        boxes = {id(t): from_space(t.x[None, :4], space)[0] for t in tracks}
        matched: dict[int, int] = {}
        free = set(range(len(detections)))

        def pair(
            pool: list[Track], wanted: list[int], cost: Callable[[Track, int], float], limit: float
        ) -> None:
            pool = [t for t in pool if id(t) not in matched]
            wanted = [d for d in wanted if d in free]

            def guarded(i: int, j: int) -> float:
                other = per_class and pool[i].kind != kinds[wanted[j]]
                return np.inf if other else cost(pool[i], wanted[j])

            for i, j in within(matrix(pool, wanted, guarded), limit):
                matched[id(pool[i])] = wanted[j]
                free.remove(wanted[j])

        def plain(t: Track, d: int) -> float:
            return 1 - overlap(boxes[id(t)], detections.boxes[d], edge=1)

        def fused(t: Track, d: int) -> float:
            return 1 - (1 - plain(t, d)) * scores[d] if fuse else plain(t, d)

        def nll(t: Track, d: int) -> float:
            v = np.diag(r[d])
            return float(np.maximum(0, (np.log(2 * np.pi * v) + (t.x[:4] - z[d]) ** 2 / v) / 2).mean())

        above = [d for d in range(len(scores)) if scores[d] > high]
        below = [d for d in range(len(scores)) if 0.1 < scores[d] < high]
        least = [d for d in range(len(scores)) if scores[d] <= 0.1]
        confirmed, young = [t for t in tracks if t.confirmed], [t for t in tracks if not t.confirmed]
        tracked = [t for t in confirmed if t.tracked]
        pair(confirmed, above, fused, match)
        pair(tracked, below, plain, 0.5)
        if tau is not None:
            pair(tracked, above + below + least, nll, tau)
        pair(young, above, fused, 0.7)
        if tau is not None:
            pair(young, above + below, nll, tau)

        kept = []
        for t in tracks:
            if id(t) in matched:
                d = matched[id(t)]
                update(t, z[d], noise(t.x[3], 1 / 20, 0, (1e-1, 0))[:4, :4] if r is None else r[d])
                t.tracked = t.confirmed = True
                t.kind, t.seen = int(kinds[d]), frame
                kept.append(t)
            elif t.confirmed:
                gone, was_tracked = t.outlived, t.tracked
                t.tracked = False
                if not was_tracked and frame - t.seen > buffer:
                    t.outlived = True
                if not gone:
                    kept.append(t)
        for d in above:
            if d in free and scores[d] >= high + 0.1:
                ids += 1
                p = noise(z[d, 3], 1 / 10, 1 / 16, (1e-2, 1e-5))
                if r is not None:
                    p[:4, :4] = r[d]
                new = Track(np.r_[z[d], np.zeros(4)], p, ids, int(kinds[d]), None if r is None else r[d])
                new.begun = new.seen = frame
                new.confirmed = frame == 1
                matched[id(new)] = d
                kept.append(new)
        corners = {id(t): from_space(t.x[None, :4], space)[0] for t in kept}
        doubled = set()
        for a in [t for t in kept if t.tracked]:
            for b in [t for t in kept if not t.tracked]:
                apart = per_class and a.kind != b.kind
                if not apart and 1 - overlap(corners[id(a)], corners[id(b)], edge=1) < 0.15:
                    doubled.add(id(b if a.seen - a.begun > b.seen - b.begun else a))
        tracks = [t for t in kept if id(t) not in doubled]
        for t in tracks:
            if t.tracked and t.confirmed:
                d = matched[id(t)]
                rows.append((frame, t.id, corners[id(t)], float(scores[d]), int(kinds[d]), d))

    for frame, detections in enumerate(frames, 1):
        step(frame, detections)
    return collect(rows)


def ocsort(
    frames: Iterable[Detections],
    *,
    space: Space = "xysr",
    high: float = 0.6,
    low: bool = False,
    max_age: int = 30,
    min_hits: int = 3,
    least: float = 0.3,
    delta_t: int = 3,
    inertia: float = 0.2,
    generalised: bool = False,
    uncertain: bool = False,
    report_state: bool = False,
) -> Tracks:
    q = np.diag([1, 1, 1, 1, 1e-2, 1e-2, 1e-4, 0])
    fixed_r, first_p = np.diag([1.0, 1, 10, 10]), np.diag([10.0] * 4 + [1e4] * 3 + [0])

    def measure(box: Floats) -> Floats:
        z = to_space(box[None], space)[0]
        if space == "xysr":
            z[3] = (box[2] - box[0]) / (box[3] - box[1] + 1e-6)
        return z

    def process(t: Track) -> Floats:
        return q if space == "xysr" else np.diag(np.repeat([t.x[3] / 20, t.x[3] / 160], 4) ** 2)

    def advance(t: Track) -> None:
        for j in (2, 3):
            if t.x[j] + t.x[j + 4] <= 0:
                t.x[j + 4] = 0
        predict(t, process(t))

    def corners(t: Track) -> Floats:
        return from_space(t.x[None, :4], space)[0]

    def earlier(t: Track) -> Floats:
        ages = [a for a in t.observations if t.age - delta_t <= a < t.age]
        return t.observations[min(ages) if ages else max(t.observations)]

    def centre(box: Floats) -> Floats:
        return (box[:2] + box[2:]) / 2

    def unit(step: Floats) -> Floats:
        return step / (np.hypot(*step) + 1e-6)

    def likeness(a: Floats, b: Floats) -> float:
        o = overlap(a, b)
        if not generalised:
            return o
        around = np.prod(np.maximum(a[2:], b[2:]) - np.minimum(a[:2], b[:2]))
        union = np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2])
        union /= 1 + o
        return float(o - (around - union) / around + 1) / 2

    tracks: list[Track] = []
    rows: list[tuple[int, int, Floats, float, int, int]] = []
    ids = 0

    def step(frame: int, detections: Detections) -> None:
        nonlocal tracks, ids
        scores, boxes = detections.scores, detections.boxes
        r = detections.covariance.matrices if uncertain and detections.covariance is not None else None
        for t in tracks:
            advance(t)
            t.age += 1
            if t.seen < frame - 1:
                t.streak = 0
        tracks = [t for t in tracks if np.isfinite(corners(t)).all()]
        matched: dict[int, int] = {}
        above = [d for d in range(len(scores)) if scores[d] > high]
        below = [d for d in range(len(scores)) if 0.1 < scores[d] < high]

        overlaps = matrix(above, tracks, lambda i, j: overlap(boxes[above[i]], corners(tracks[j])))
        clear = overlaps > least
        if clear.any() and clear.sum(0).max() == clear.sum(1).max() == 1:
            pairs = list(zip(*np.nonzero(clear), strict=True))
        else:
            gain = overlaps.copy()
            for j, t in enumerate(tracks):
                for i, d in enumerate(above):
                    if t.observations:
                        way = unit(centre(boxes[d]) - centre(earlier(t)))
                        angle = np.arccos(np.clip(way @ t.direction, -1, 1))
                        gain[i, j] += inertia * scores[d] * (np.pi / 2 - angle) / np.pi
            pairs = list(zip(*linear_sum_assignment(-gain), strict=True))
        for i, j in pairs:
            if overlaps[i, j] >= least:
                matched[id(tracks[j])] = above[i]

        def rescue(wanted: list[int], pool: list[Track], boxes_of: Callable[[Track], Floats]) -> None:
            wanted = [d for d in wanted if d not in matched.values()]
            pool = [t for t in pool if id(t) not in matched]
            gain = matrix(wanted, pool, lambda i, j: likeness(boxes[wanted[i]], boxes_of(pool[j])))
            if gain.size and gain.max() > least:
                for i, j in zip(*linear_sum_assignment(-gain), strict=True):
                    if gain[i, j] >= least:
                        matched[id(pool[j])] = wanted[i]

        if low:
            rescue(below, tracks, corners)
        nowhere = np.full(4, -1.0)
        rescue(
            above,
            [t for t in tracks if t.observations or not uncertain],
            lambda t: t.observations[max(t.observations)] if t.observations else nowhere,
        )

        for t in tracks:
            if id(t) not in matched:
                continue
            d = matched[id(t)]
            z, noise = measure(boxes[d]), fixed_r if r is None else r[d]
            if t.observations:
                gap = frame - t.seen
                if gap > 1:
                    t.x, t.p = (part.copy() for part in t.observed)
                    ends = [measure(t.observations[max(t.observations)]), z]
                    if space == "xysr":
                        ends = [np.r_[e[:2], np.sqrt(e[2] * e[3]), np.sqrt(e[2] / e[3])] for e in ends]
                    advance(t)
                    for i in range(1, gap + 1):
                        between = ends[0] + i * (ends[1] - ends[0]) / gap
                        if space == "xysr":
                            between = np.r_[between[:2], between[2] * between[3], between[2] / between[3]]
                        u = i / gap
                        if r is None:
                            update(t, between, noise)
                        elif i < gap:
                            update(t, between, (1 - u) ** 2 * t.last_r + u**2 * noise)
                        if i < gap:
                            predict(t, process(t))
                t.direction = unit(centre(boxes[d]) - centre(earlier(t)))
            update(t, z, noise)
            t.observed, t.last_r = (t.x.copy(), t.p.copy()), noise
            t.observations[t.age] = boxes[d]
            t.streak += 1
            t.seen = frame
        for d in above:
            if d not in matched.values():
                ids += 1
                z = measure(boxes[d])
                p = first_p.copy()
                if space != "xysr":
                    p = np.diag(np.repeat([z[3] / 10, z[3] / 16], 4) ** 2)
                if r is not None:
                    p[:4, :4] = r[d]
                new = Track(np.r_[z, np.zeros(4)], p, ids, 0)
                new.seen = frame
                matched[id(new)] = d
                tracks.append(new)
        for t in tracks:
            if t.seen == frame and (t.streak >= min_hits or frame <= min_hits):
                d = matched[id(t)]
                box = boxes[d] if t.observations and not (uncertain or report_state) else corners(t)
                rows.append((frame, t.id, box, float(scores[d]), int(detections.classes[d]), d))
        tracks = [t for t in tracks if frame - t.seen <= max_age]

    for frame, detections in enumerate(frames, 1):
        step(frame, detections)
    return collect(rows)


def collect(rows: list[tuple[int, int, Floats, float, int, int]]) -> Tracks:
    if not rows:
        return Tracks(np.empty(0, int), np.empty(0, int), np.empty((0, 4)))
    frames, ids, boxes, scores, kinds, places = zip(*rows, strict=True)
    return Tracks(*map(np.array, (frames, ids, boxes, scores, kinds, places)))


def same(a: Tracks, b: Tracks, atol: float = 1e-9) -> None:
    """Hold two results to one another: rows, partition of identities, boxes."""
    first, second = (np.lexsort((tracks.rows, tracks.frames)) for tracks in (a, b))
    for name in ("frames", "rows", "classes", "scores"):
        np.testing.assert_array_equal(getattr(a, name)[first], getattr(b, name)[second], err_msg=name)
    there = dict(zip(a.ids[first].tolist(), b.ids[second].tolist(), strict=True))
    back = dict(zip(b.ids[second].tolist(), a.ids[first].tolist(), strict=True))
    assert [there[i] for i in a.ids[first].tolist()] == b.ids[second].tolist()
    assert [back[i] for i in b.ids[second].tolist()] == a.ids[first].tolist()
    np.testing.assert_allclose(a.boxes[first], b.boxes[second], rtol=0, atol=atol)


def crowd(
    seed: int, *, frames: int = 60, objects: int = 8, kinds: int = 1, side: float = 300
) -> list[Detections]:
    """Simulate boxes that cross, are missed, seen with low scores, and false ones, with correlated errors."""
    generator = np.random.default_rng(seed)
    place = generator.uniform(0, side, (objects, 2))
    speed = generator.normal(0, 5, (objects, 2))
    size = generator.uniform(20, 60, (objects, 2))
    kind = generator.integers(0, kinds, objects)
    result = []
    for _ in range(frames):
        place += speed
        speed += generator.normal(0, 0.5, speed.shape)
        missed = generator.random(objects) < 0.25
        n_false = int(generator.integers(0, 3))
        centre = np.concatenate([place[~missed], generator.uniform(0, side, (n_false, 2))])
        sizes = np.concatenate([size[~missed], generator.uniform(10, 60, (n_false, 2))])
        n = len(centre)
        root = generator.normal(0, 1, (n, 4, 4)) * generator.uniform(0.1, 1, (n, 1, 1))
        covariance = root @ root.transpose(0, 2, 1) + 0.05 * np.eye(4)
        errors = np.linalg.cholesky(covariance) @ generator.normal(0, 1, (n, 4, 1))
        middle, extent = centre + errors[:, :2, 0], np.maximum(sizes + errors[:, 2:, 0], 5)
        boxes = np.concatenate([middle - extent / 2, middle + extent / 2], axis=1)
        scores = np.round(generator.uniform(0.05, 1, n) ** 0.5, 3)
        labels = np.concatenate([kind[~missed], generator.integers(0, kinds, n_false)])
        order = generator.permutation(n)
        result.append((boxes[order], scores[order], labels[order], covariance[order]))
    return [
        Detections(boxes, scores, labels, BoxCovariance(matrices, "xywh", "px"))
        for boxes, scores, labels, matrices in result
    ]
