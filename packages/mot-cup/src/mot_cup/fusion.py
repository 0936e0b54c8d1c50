"""Detections of several agents made into one set.

Late fusion finds which detections are of one object, then combines their boxes z_i and covariances R_i. Where
their errors are independent, informations add up:

    P^-1 = sum of R_i^-1,    z = P (sum of R_i^-1 z_i).

Where nothing is known of how they are correlated (agents with the same map, the same blind spot, or each
other's old messages), covariance intersection (Julier and Uhlmann 1997) takes

    P^-1 = sum of w_i R_i^-1,    z = P (sum of w_i R_i^-1 z_i),    w_i >= 0, sum of w_i = 1,

which for every correlation is at least the true covariance. The weights are those of least det P: a convex
problem, solved for any number of agents by w_i <- w_i tr(P R_i^-1) / d, which never makes det P larger.

Early fusion of detections, as far as there is such a thing, pools them and keeps what a detector would.

A message that is late is moved to now by the motion that it and the one before it show, and its covariance
grows by what that motion leaves open.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike

from mot_cup._assignment import assign_within
from mot_cup._boxes import Floats, from_space, to_space
from mot_cup._compiled import compiled
from mot_cup._detections import BoxCovariance, Detections
from mot_cup._matching import overlaps
from mot_cup._poses import pose_errors
from mot_cup._rotated import RotatedDetections, bounding_boxes, wrap
from mot_cup._tracks import Ints
from tenfold import DataError, SettingError, UnknownNameError

__all__ = [
    "Motion",
    "combine_independent",
    "compensate",
    "correct_poses",
    "covariance_intersection",
    "early_fusion",
    "fuse_sequence",
    "late_fusion",
    "to_agent",
    "to_common",
]

Association = Literal["iou", "mahalanobis"]
Combination = Literal["independent", "intersection", "best"]

OVERLAP = 0.1
"""Different cars, seen from above, do not overlap."""
GATE = 16.251171152210564
"""Squared Mahalanobis distance that 0.27 % of pairs of one object exceed: chi-square of 4 dimensions."""
ROUNDS = 2
"""Times that the poses are corrected and the detections associated anew."""
ITERATIONS, TOLERANCE = 500, 1e-6
"""Of the weights of covariance intersection: most steps, and how far tr(P R_i^-1) / d may be above 1."""


def late_fusion(
    agents: Sequence[Detections | None],
    *,
    association: Association = "iou",
    limit: float | None = None,
    combination: Combination = "independent",
    per_class: bool = True,
) -> Detections:
    """Fuse the detections of several agents in one frame.

    An agent's detections are of different objects. Each agent in turn, those that follow are assigned to the
    objects found so far, compared with the first detection of each.

    Parameters
    ----------
    agents : sequence of Detections or None
        In a common frame of reference and unit; None for an agent that is missing.
    association : {"iou", "mahalanobis"}
        Overlap of the boxes, or distance in units of their covariances.
    limit : float, optional
        Least overlap, 0.1 by default, or greatest squared distance, 16.25 by default.
    combination : {"independent", "intersection", "best"}
        Information of independent errors, covariance intersection, or the box of the greatest score as it is.
    per_class : bool
        Objects are of one class.

    Returns
    -------
    Detections
        An object a row, with the class and the greatest of the scores; covariances are of x, y, w, h. Its
        order is that of the first detections.

    Raises
    ------
    UnknownNameError
        There is no such association or combination.
    SettingError
        Agents use different units.
    DataError
        Covariances are wanted and missing, or singular.
    """
    for kind, name, known in (
        ("association", association, get_args(Association)),
        ("combination", combination, get_args(Combination)),
    ):
        if name not in known:
            raise UnknownNameError(kind, name, known)
    pooled, owners = _pool(agents)
    if limit is None:
        limit = OVERLAP if association == "iou" else GATE
    # assign_within takes costs up to its limit.
    most = -limit if association == "iou" else limit
    objects = _associate(_cost(pooled, association, per_class), owners, most)
    best = _best(objects, pooled.scores)
    if combination == "best" or len(pooled) == 0:
        return pooled[best]
    means, covariances = _gaussians(pooled)
    fuse = _add_information if combination == "independent" else _intersect
    mean, covariance = fuse(means, _inverse(covariances), objects)[:2]
    return Detections(
        from_space(mean, "xywh"),
        pooled.scores[best],
        pooled.classes[best],
        BoxCovariance(covariance, "xywh", pooled.unit),
        pooled.unit,
    )


def early_fusion(agents: Sequence[Detections | None], *, overlap: float = 0.3) -> Detections:
    """Pool the detections of several agents, and keep what a detector would that had found them all.

    This is non-maximum suppression: from the greatest score down, a detection goes that overlaps one kept.

    Parameters
    ----------
    agents : sequence of Detections or None
        In a common frame of reference and unit; None for an agent that is missing.
    overlap : float
        Greatest intersection over union of two that are kept.

    Returns
    -------
    Detections
        By falling score, with the covariances that they had if all have.

    Raises
    ------
    SettingError
        Agents use different units, or the overlap is not from 0 to 1.
    """
    if not 0 <= overlap <= 1:
        raise SettingError(f"overlap {overlap}", "a number from 0 to 1", "Correct it.")
    pooled, _ = _pool(agents)
    ordered = pooled[np.argsort(-pooled.scores, kind="stable")]
    same = ordered.classes[:, None] == ordered.classes
    covers = (overlaps(ordered.boxes, ordered.boxes) > overlap) & same
    kept: list[int] = []
    for row in range(len(ordered)):
        if not covers[row, kept].any():
            kept.append(row)
    return ordered[np.array(kept, dtype=np.intp)]


def combine_independent(means: ArrayLike, covariances: ArrayLike) -> tuple[Floats, Floats]:
    """Combine estimates whose errors are independent.

    Parameters
    ----------
    means : array_like
        Shape (sources, n, d).
    covariances : array_like
        Shape (sources, n, d, d), regular.

    Returns
    -------
    mean : ndarray of float64
        Shape (n, d).
    covariance : ndarray of float64
        Shape (n, d, d).

    Raises
    ------
    DataError
        Shapes differ, or a covariance is singular.
    """
    values, information, objects = _sources(means, covariances)
    return _add_information(values, information, objects)


def covariance_intersection(means: ArrayLike, covariances: ArrayLike) -> tuple[Floats, Floats, Floats]:
    """Combine estimates whose errors may be correlated in any way.

    Parameters
    ----------
    means : array_like
        Shape (sources, n, d).
    covariances : array_like
        Shape (sources, n, d, d), regular, each at least that of the errors.

    Returns
    -------
    mean : ndarray of float64
        Shape (n, d).
    covariance : ndarray of float64
        Shape (n, d, d): at least that of the mean's errors, whatever the correlations; of all such
        combinations that of least determinant.
    weights : ndarray of float64
        Shape (sources, n), of each source.

    Raises
    ------
    DataError
        Shapes differ, or a covariance is singular.
    """
    values, information, objects = _sources(means, covariances)
    mean, covariance, weights = _intersect(values, information, objects)
    return mean, covariance, weights.reshape(-1, len(mean))


def to_common(
    detections: RotatedDetections, pose: ArrayLike, pose_covariance: ArrayLike | None = None
) -> RotatedDetections:
    """Move detections from an agent's frame of reference to the one that its pose is in.

    Parameters
    ----------
    detections : RotatedDetections
    pose : array_like
        x, y, heading of the agent, in the detections' unit and radians.
    pose_covariance : array_like, optional
        Of the errors of the pose, of shape (3, 3). All detections of the agent share those errors: boxes
        moved with them are correlated with each other, which no covariance of a single one tells.

    Returns
    -------
    RotatedDetections
        With covariances where the detections have them or the pose has.

    Raises
    ------
    DataError
        The pose is not three finite numbers, or its covariance not 3 by 3.
    """
    x, y, heading = _pose(pose)
    c, s = np.cos(heading), np.sin(heading)
    turn = np.array([[c, -s], [s, c]])
    moved = detections.boxes.copy()
    moved[:, :2] = detections.boxes[:, :2] @ turn.T + (x, y)
    moved[:, 4] = wrap(detections.boxes[:, 4] + heading)
    covariance = None
    if detections.covariance is not None:
        change = np.eye(5)
        change[:2, :2] = turn
        covariance = change @ detections.covariance @ change.T
    if pose_covariance is not None:
        errors = np.asarray(pose_covariance, dtype=np.float64)
        if errors.shape != (3, 3):
            raise DataError(f"a pose covariance of shape {errors.shape}", "shape (3, 3)", "Correct it.")
        by_pose = np.zeros((len(moved), 5, 3))
        by_pose[:, 0, 0] = by_pose[:, 1, 1] = by_pose[:, 4, 2] = 1
        by_pose[:, 0, 2], by_pose[:, 1, 2] = y - moved[:, 1], moved[:, 0] - x
        added = by_pose @ errors @ by_pose.transpose(0, 2, 1)
        covariance = added if covariance is None else covariance + added
    return RotatedDetections(moved, detections.scores, detections.classes, covariance, detections.unit)


def to_agent(detections: RotatedDetections, pose: ArrayLike) -> RotatedDetections:
    """Move detections to the frame of reference of an agent, x ahead: the inverse of `to_common`.

    Parameters
    ----------
    detections : RotatedDetections
    pose : array_like
        x, y, heading of the agent, in the detections' unit and radians.

    Raises
    ------
    DataError
        The pose is not three finite numbers.
    """
    x, y, heading = _pose(pose)
    c, s = np.cos(heading), np.sin(heading)
    return to_common(detections, (-c * x - s * y, s * x - c * y, -heading))


def correct_poses(
    agents: Sequence[RotatedDetections | None],
    poses: ArrayLike,
    pose_covariances: ArrayLike,
    *,
    deviation: float | None = None,
) -> tuple[Floats, Floats]:
    """Correct the poses of agents by what they find in common in one frame.

    All poses are estimated together, and the objects with them, by least squares; detections that do not fit
    count for little. What no two agents find says nothing of a pose.

    Parameters
    ----------
    agents : sequence of RotatedDetections or None
        Each in the frame of reference of its agent, x ahead; None for an agent that is missing.
    poses : array_like
        x, y, heading that each reports, of shape (agents, 3), in the detections' unit and radians.
    pose_covariances : array_like
        Of the errors of the poses, of shape (3, 3) for all or (agents, 3, 3). They may be 0: poses that are
        exact stay.
    deviation : float, optional
        Standard deviation of x and of y of every detection, instead of their own covariances.

    Returns
    -------
    poses : ndarray of float64
        Shape (agents, 3).
    covariances : ndarray of float64
        Of the errors that are left in each, of shape (agents, 3, 3), for `to_common`.

    Raises
    ------
    DataError
        Poses are not finite, shapes differ, or covariances are missing or singular.
    SettingError
        Agents use different units, or the deviation is not positive and finite.
    """
    reported = np.asarray(poses, dtype=np.float64)
    if reported.shape != (len(agents), 3):
        raise DataError(
            f"poses of shape {reported.shape} of {len(agents)} agents", "one each", "Correct them."
        )
    reported = np.array([_pose(pose) for pose in reported]).reshape(-1, 3)
    prior = np.asarray(pose_covariances, dtype=np.float64)
    if prior.shape not in ((3, 3), (len(agents), 3, 3)):
        raise DataError(
            f"pose covariances of shape {prior.shape}", f"(3, 3) or ({len(agents)}, 3, 3)", "Correct them."
        )
    if deviation is not None and not 0 < deviation < np.inf:
        raise SettingError(f"deviation {deviation}", "a positive number", "Correct it.")
    prior = np.broadcast_to(prior, (len(agents), 3, 3))
    errors, left = np.zeros_like(reported), np.array(prior)
    present = [(number, found) for number, found in enumerate(agents) if found is not None and len(found)]
    units = sorted({found.unit for _, found in present})
    if len(units) > 1:
        raise SettingError(f"detections in {' and '.join(units)}", "one unit", "Convert them.")
    owners = np.repeat([number for number, _ in present], [len(found) for _, found in present])
    for _ in range(ROUNDS if len(owners) else 0):
        moved = [
            to_common(
                RotatedDetections(found.boxes, classes=found.classes), reported[number] - errors[number]
            )
            for number, found in present
        ]
        boxes = np.concatenate([found.boxes for found in moved])
        classes = np.concatenate([found.classes for found in moved])
        cost = -overlaps(bounding_boxes(boxes), bounding_boxes(boxes))
        cost[classes[:, None] != classes] = np.inf
        errors, left = pose_errors(
            boxes[:, :2],
            np.concatenate(
                [_place_covariances(found, deviation, reported[number, 2]) for number, found in present]
            ),
            owners,
            _associate(cost, owners, -OVERLAP),
            reported - errors,
            errors,
            prior,
        )
    corrected = reported - errors
    corrected[:, 2] = wrap(corrected[:, 2])
    return corrected, left


@dataclass(frozen=True)
class Motion:
    """What is known of how objects move before any is seen.

    Parameters
    ----------
    speed : float
        Standard deviation of each component of a velocity, in the detections' unit a frame.
    acceleration : float
        Of each component of its change, a frame.

    Raises
    ------
    SettingError
        A number is negative or not finite.
    """

    speed: float = 4.0
    acceleration: float = 0.5

    def __post_init__(self) -> None:
        if not (0 <= self.speed < np.inf and 0 <= self.acceleration < np.inf):
            raise SettingError(
                f"speed {self.speed} and acceleration {self.acceleration}", "0 or more", "Correct them."
            )


def compensate(
    message: Detections, earlier: Detections | None, delay: float, motion: Motion | None = None
) -> Detections:
    """Move detections that are late to where their objects are now.

    Of an object that the message before shows too, position and velocity are what a Kalman filter makes of
    the two; any other has the velocity 0, as uncertain as `motion` says. Sizes stay, but what two messages
    show of them is combined.

    Parameters
    ----------
    message : Detections
        With covariances.
    earlier : Detections or None
        The same agent's message one frame before.
    delay : float
        Frames since the message.
    motion : Motion, optional

    Returns
    -------
    Detections
        With the covariances of the predictions, of x, y, w, h.

    Raises
    ------
    DataError
        Covariances are missing, or singular.
    SettingError
        The delay is negative or not finite, or units differ.
    """
    if not 0 <= delay < np.inf:
        raise SettingError(f"a delay of {delay} frames", "0 or more", "Correct it.")
    if delay == 0 or len(message) == 0:
        return message
    motion = motion or Motion()
    mean, covariance = _begin(*_gaussians(message), motion)
    if earlier is not None and len(earlier):
        _pool([message, earlier])
        before, uncertainty = _predict(*_begin(*_gaussians(earlier), motion), 1, motion)
        innovations = mean[:, None, :4] - before[None, :, :4]
        expected = covariance[:, None, :4, :4] + uncertainty[None, :, :4, :4]
        columns = assign_within(_mahalanobis(innovations, expected), GATE)
        known = np.flatnonzero(columns >= 0)
        mean[known], covariance[known] = _update(
            before[columns[known]], uncertainty[columns[known]], mean[known, :4], covariance[known, :4, :4]
        )
    mean, covariance = _predict(mean, covariance, delay, motion)
    return Detections(
        from_space(mean[:, :4], "xywh"),
        message.scores,
        message.classes,
        BoxCovariance(covariance[:, :4, :4], "xywh", message.unit),
        message.unit,
    )


def fuse_sequence(
    agents: Sequence[Sequence[Detections | None]],
    fuse: Callable[[Sequence[Detections | None]], Detections] = late_fusion,
    *,
    delays: Sequence[int] | None = None,
    motion: Motion | None = None,
) -> list[Detections]:
    """Fuse what several agents send over a sequence of frames.

    Parameters
    ----------
    agents : sequence of sequences of Detections or None
        Each agent's frames, in a common frame of reference; None for a message that was lost.
    fuse : callable
        From the agents' detections in one frame to one set, such as `late_fusion` or `early_fusion`.
    delays : sequence of int, optional
        Frames that the messages of each agent are late; 0 for all by default.
    motion : Motion, optional
        For `compensate`, which moves late messages to now.

    Returns
    -------
    list of Detections
        One a frame.

    Raises
    ------
    DataError
        Agents have different numbers of frames.
    SettingError
        There is not one delay of 0 or more for each agent.
    """
    lengths = sorted({len(frames) for frames in agents})
    if len(lengths) != 1:
        raise DataError(
            f"agents with {lengths} frames", "as many frames of each agent", "Give None for lost messages."
        )
    late = [0] * len(agents) if delays is None else list(delays)
    if len(late) != len(agents) or any(delay < 0 for delay in late):
        raise SettingError(f"delays {late} of {len(agents)} agents", "one of 0 or more each", "Correct them.")

    def received(frames: Sequence[Detections | None], now: int, delay: int) -> Detections | None:
        sent = now - delay
        message = frames[sent] if sent >= 0 else None
        if message is None:
            return None
        return compensate(message, frames[sent - 1] if sent > 0 else None, delay, motion)

    return [
        fuse([received(frames, now, delay) for frames, delay in zip(agents, late, strict=True)])
        for now in range(lengths[0])
    ]


def _pool(agents: Sequence[Detections | None]) -> tuple[Detections, Ints]:
    """Return all detections, and the number of the agent of each."""
    present = [(number, found) for number, found in enumerate(agents) if found is not None and len(found)]
    units = sorted({found.unit for found in agents if found is not None})
    if len(units) > 1:
        raise SettingError(f"detections in {' and '.join(units)}", "one unit", "Convert them.")
    if not present:
        return Detections(np.empty((0, 4)), unit=units[0] if units else "px"), np.empty(0, np.int64)
    covariance = None
    if all(found.covariance is not None for _, found in present):
        covariance = BoxCovariance(
            np.concatenate([_gaussians(found)[1] for _, found in present]), "xywh", units[0]
        )
    boxes, scores, classes = (
        np.concatenate([getattr(found, name) for _, found in present])
        for name in ("boxes", "scores", "classes")
    )
    pooled = Detections(boxes, scores, classes, covariance, units[0])
    return pooled, np.repeat([number for number, _ in present], [len(found) for _, found in present])


def _gaussians(detections: Detections) -> tuple[Floats, Floats]:
    """Return x, y, w, h and their covariances."""
    if detections.covariance is None:
        raise DataError(
            "detections without covariances",
            "a covariance for each",
            'Give BoxCovariance, or fuse by "iou" and "best".',
        )
    covariance = detections.covariance
    if covariance.space != "xywh":
        covariance = covariance.to_space(detections.boxes, "xywh")
    return to_space(detections.boxes, "xywh"), covariance.matrices


def _place_covariances(detections: RotatedDetections, deviation: float | None, heading: float) -> Floats:
    """Return the covariances of x and y, turned by a heading."""
    if deviation is not None:
        return np.broadcast_to(deviation**2 * np.eye(2), (len(detections), 2, 2))
    if detections.covariance is None:
        raise DataError("detections without covariances", "a covariance for each", "Give a deviation.")
    c, s = np.cos(heading), np.sin(heading)
    turn = np.array([[c, -s], [s, c]])
    places: Floats = turn @ detections.covariance[:, :2, :2] @ turn.T
    if not (np.linalg.det(places) > 0).all():
        raise DataError("a singular covariance", "an error in every direction", "Give a deviation.")
    return places


def _associate(cost: Floats, owners: Ints, most: float) -> Ints:
    """Return the object of each detection."""
    objects = np.full(len(owners), -1)
    firsts = np.empty(0, np.int64)
    for owner in np.unique(owners):
        rows = np.flatnonzero(owners == owner)
        if len(firsts):
            objects[rows] = assign_within(np.ascontiguousarray(cost[np.ix_(rows, firsts)]), most)
        fresh = rows[objects[rows] < 0]
        objects[fresh] = len(firsts) + np.arange(len(fresh))
        firsts = np.append(firsts, fresh)
    return objects


def _cost(pooled: Detections, association: Association, per_class: bool) -> Floats:
    if association == "iou":
        cost = -overlaps(pooled.boxes, pooled.boxes)
    else:
        means, covariances = _gaussians(pooled)
        cost = _mahalanobis(means[:, None] - means, covariances[:, None] + covariances)
    if per_class:
        cost = np.where(pooled.classes[:, None] == pooled.classes, cost, np.inf)
    return cost


def _mahalanobis(differences: Floats, covariances: Floats) -> Floats:
    """Return squared distances, infinite where there is no uncertainty at all."""
    result: Floats = np.einsum("abi,abij,abj->ab", differences, _inverse(covariances), differences)
    return np.ascontiguousarray(result)


def _best(objects: Ints, scores: Floats) -> Ints:
    """Return the row of the greatest score of each object."""
    order = np.lexsort((-scores, objects))
    return order[np.unique(objects[order], return_index=True)[1]]


def _sources(means: ArrayLike, covariances: ArrayLike) -> tuple[Floats, Floats, Ints]:
    values = np.asarray(means, dtype=np.float64)
    matrices = np.asarray(covariances, dtype=np.float64)
    if values.ndim != 3 or matrices.shape != (*values.shape, values.shape[-1]):
        raise DataError(
            f"means of shape {values.shape} and covariances of shape {matrices.shape}",
            "shapes (sources, n, d) and (sources, n, d, d)",
            "Correct them.",
        )
    k, n, d = values.shape
    return values.reshape(-1, d), _inverse(matrices.reshape(-1, d, d)), np.tile(np.arange(n), k)


def _add_information(means: Floats, information: Floats, objects: Ints) -> tuple[Floats, Floats]:
    covariance = _inverse(_sum(information, objects))
    return _mean(covariance, means, information, objects), covariance


def _intersect(means: Floats, information: Floats, objects: Ints) -> tuple[Floats, Floats, Floats]:
    order = np.argsort(objects, kind="stable")
    ends = np.cumsum(np.bincount(objects))
    weights = np.empty(len(objects))
    weights[order] = _weights(np.ascontiguousarray(information[order]), ends, ITERATIONS, TOLERANCE)
    mean, covariance = _add_information(means, weights[:, None, None] * information, objects)
    return mean, covariance, weights


@compiled
def _weights(information: Floats, ends: Ints, iterations: int, tolerance: float) -> Floats:
    """Return the weights of least determinant; the sources of an object follow each other up to its end."""
    d = information.shape[1]
    weights = np.ones(len(information))
    whole, covariance = np.empty((d, d)), np.empty((d, d))
    start = 0
    for end in ends:
        if end - start > 1:
            weights[start:end] = 1 / (end - start)
            for _ in range(iterations):
                whole[:] = 0.0
                for source in range(start, end):
                    for i in range(d):
                        for j in range(d):
                            whole[i, j] += weights[source] * information[source, i, j]
                _invert(whole, covariance)
                most = 0.0
                for source in range(start, end):
                    gain = 0.0
                    for i in range(d):
                        for j in range(d):
                            gain += covariance[i, j] * information[source, i, j]
                    weights[source] *= gain / d
                    most = max(most, gain / d)
                if most <= 1 + tolerance:
                    break
        start = end
    return weights


@compiled
def _invert(matrix: Floats, inverse: Floats) -> None:
    """Write the inverse of a positive definite matrix, by Gauss and Jordan; the matrix is spent."""
    d = len(matrix)
    inverse[:] = 0.0
    for i in range(d):
        inverse[i, i] = 1.0
    for k in range(d):
        pivot = 1 / matrix[k, k]
        for j in range(d):
            matrix[k, j] *= pivot
            inverse[k, j] *= pivot
        for i in range(d):
            if i != k:
                factor = matrix[i, k]
                for j in range(d):
                    matrix[i, j] -= factor * matrix[k, j]
                    inverse[i, j] -= factor * inverse[k, j]


def _sum(values: Floats, objects: Ints) -> Floats:
    result = np.zeros((objects.max(initial=-1) + 1, *values.shape[1:]))
    np.add.at(result, objects, values)
    return result


def _mean(covariance: Floats, means: Floats, information: Floats, objects: Ints) -> Floats:
    result: Floats = np.einsum(
        "nij,nj->ni", covariance, _sum(np.einsum("nij,nj->ni", information, means), objects)
    )
    return result


def _inverse(matrices: Floats) -> Floats:
    """Return symmetric inverses."""
    try:
        inverse = np.linalg.inv(matrices)
    except np.linalg.LinAlgError:
        inverse = np.full_like(matrices, np.inf)
    if not np.isfinite(inverse).all():
        raise DataError(
            "a singular covariance", "an error in every direction", "Add a small variance to each."
        )
    result: Floats = (inverse + inverse.swapaxes(-1, -2)) / 2
    return result


def _begin(boxes: Floats, covariances: Floats, motion: Motion) -> tuple[Floats, Floats]:
    """Return states x, y, w, h and the velocities of x and y, at rest, and their covariances."""
    mean = np.hstack([boxes, np.zeros((len(boxes), 2))])
    covariance = np.zeros((len(boxes), 6, 6))
    covariance[:, :4, :4] = covariances
    covariance[:, [4, 5], [4, 5]] = motion.speed**2
    return mean, covariance


def _predict(mean: Floats, covariance: Floats, frames: float, motion: Motion) -> tuple[Floats, Floats]:
    """Move states on with a constant velocity that white accelerations disturb."""
    move = np.eye(6)
    move[0, 4] = move[1, 5] = frames
    disturbance = np.zeros((6, 6))
    for position, velocity in ((0, 4), (1, 5)):
        disturbance[position, position] = frames**3 / 3
        disturbance[position, velocity] = disturbance[velocity, position] = frames**2 / 2
        disturbance[velocity, velocity] = frames
    return mean @ move.T, move @ covariance @ move.T + motion.acceleration**2 * disturbance


def _update(mean: Floats, covariance: Floats, boxes: Floats, errors: Floats) -> tuple[Floats, Floats]:
    """Correct states by boxes."""
    gain = covariance[:, :, :4] @ _inverse(covariance[:, :4, :4] + errors)
    mean = mean + np.einsum("nij,nj->ni", gain, boxes - mean[:, :4])
    left = np.eye(6) - gain @ np.eye(4, 6)
    updated = left @ covariance @ left.transpose(0, 2, 1) + gain @ errors @ gain.transpose(0, 2, 1)
    return mean, (updated + updated.transpose(0, 2, 1)) / 2


def _pose(pose: ArrayLike) -> Floats:
    values = np.asarray(pose, dtype=np.float64)
    if values.shape != (3,) or not np.isfinite(values).all():
        raise DataError(
            f"a pose {np.asarray(pose).tolist()}", "finite x, y, heading", "Leave that agent out."
        )
    return values
