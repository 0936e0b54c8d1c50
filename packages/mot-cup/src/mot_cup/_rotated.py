"""Boxes that turn: rotated ones in the bird's-eye view, and the eight corners of upright ones in space.

A rotated box is (x, y, w, l, theta): its centre, its width across and its length along the heading theta,
in radians from the x axis towards the y axis. With u = (cos theta, sin theta) along and n = (-sin theta,
cos theta) across, its corners are

    c = (x, y) + a l u + b w n,    (a, b) = (1/2, 1/2), (1/2, -1/2), (-1/2, -1/2), (-1/2, 1/2).

An upright box in space is (x, y, z, w, l, h, theta); its corners are these four at z - h/2, then at z + h/2.
A detector that regresses corners describes a box by 24 numbers that no box need have; the box nearest to
them in the squares of all is found in closed form by `from_corners`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mot_cup._boxes import Floats
from mot_cup._compiled import compiled
from mot_cup._detections import ROUNDING, BoxCovariance, Detections
from tenfold import DataError

if TYPE_CHECKING:
    from collections.abc import Sequence

    Rows = NDArray[np.intp] | NDArray[np.bool_] | Sequence[int] | slice

# Which way from the centre each corner lies, along and across.
SIGNS = np.array([[1.0, 1.0], [1.0, -1.0], [-1.0, -1.0], [-1.0, 1.0]])
# As above and up, for the eight corners in space.
SIGNS_3D = np.hstack([np.tile(SIGNS, (2, 1)), np.repeat([[-1.0], [1.0]], 4, axis=0)])


@dataclass(frozen=True)
class RotatedDetections:
    """Rotated boxes that a detector found in one frame.

    Parameters
    ----------
    boxes : ndarray of float64
        x, y, w, l, theta, of shape (n, 5), finite and of positive width and length.
    scores : ndarray of float64, optional
        Shape (n,); 1 for all by default.
    classes : ndarray of int64, optional
        Shape (n,); 0 for all by default.
    covariance : ndarray of float64, optional
        Of the errors of x, y, w, l, theta, of shape (n, 5, 5), in the boxes' unit and radians.
    unit : str
        Of length.

    Raises
    ------
    DataError
        A box is not finite or has no area, a covariance is none, or lengths differ.
    """

    boxes: Floats
    scores: Floats = None  # type: ignore[assignment]
    classes: NDArray[np.int64] = None  # type: ignore[assignment]
    covariance: Floats | None = None
    unit: str = "px"

    def __post_init__(self) -> None:
        boxes = _boxes(self.boxes, 5, "x, y, w, l, theta")
        n = len(boxes)
        scores = np.ones(n) if self.scores is None else np.asarray(self.scores, dtype=np.float64)
        classes = np.zeros(n, np.int64) if self.classes is None else np.asarray(self.classes, dtype=np.int64)
        shapes: dict[str, tuple[NDArray[Any], tuple[int, ...]]] = {
            "scores": (scores, (n,)),
            "classes": (classes, (n,)),
        }
        if self.covariance is not None:
            covariance = np.asarray(self.covariance, dtype=np.float64)
            shapes["covariance"] = (covariance, (n, 5, 5))
            object.__setattr__(self, "covariance", covariance)
        for name, (values, shape) in shapes.items():
            if values.shape != shape:
                raise DataError(f"{name} of shape {values.shape}", f"shape {shape}", "Give one a box.")
            if not np.isfinite(values).all():
                raise DataError(f"{name} that are not finite", "finite numbers", "Leave those boxes out.")
        if self.covariance is not None:
            _refuse_negative(self.covariance)
        for name, value in (("boxes", boxes), ("scores", scores), ("classes", classes)):
            object.__setattr__(self, name, value)

    @classmethod
    def from_corners(
        cls,
        corners: ArrayLike,
        scores: Floats | None = None,
        classes: NDArray[np.int64] | None = None,
        covariance: Floats | None = None,
        unit: str = "px",
    ) -> RotatedDetections:
        """Take boxes as a detector gives them that finds eight corners in space, and look from above.

        Parameters
        ----------
        corners : array_like
            Shape (n, 8, 3), in the order of `to_corners`; boxes are fitted to them by `from_corners`.
        scores, classes, unit
            As for the class.
        covariance : ndarray of float64, optional
            Of the corners' 24 coordinates, of shape (n, 24, 24).

        Raises
        ------
        DataError
            A fitted box has no area, as of corners in another order, or what the class refuses.
        """
        fitted = from_corners(corners)
        flat = [0, 1, 3, 4, 6]
        boxes = cls(fitted[:, flat], scores, classes, unit=unit)  # type: ignore[arg-type]
        if covariance is None:
            return boxes
        errors = corners_covariance(fitted, covariance)[:, flat][:, :, flat]
        return cls(boxes.boxes, boxes.scores, boxes.classes, errors, unit)

    def __len__(self) -> int:
        return len(self.boxes)

    def __getitem__(self, rows: Rows) -> RotatedDetections:
        """Return some of the detections."""
        covariance = None if self.covariance is None else self.covariance[rows]
        return RotatedDetections(
            self.boxes[rows], self.scores[rows], self.classes[rows], covariance, self.unit
        )

    def axis_aligned(self) -> Detections:
        """Return the smallest axis-aligned boxes around these, with their covariances to first order.

        Where a side is parallel to an axis the derivative by the heading jumps, and the first order says
        little: there the covariance is that of no turn.
        """
        boxes = bounding_boxes(self.boxes)
        covariance = None
        if self.covariance is not None:
            change = bounding_jacobian(self.boxes)
            covariance = BoxCovariance(
                change @ self.covariance @ change.transpose(0, 2, 1), "xywh", self.unit
            )
        return Detections(boxes, self.scores, self.classes, covariance, self.unit)


def wrap(angles: ArrayLike) -> Floats:
    """Return angles in [-pi, pi)."""
    values = np.asarray(angles, dtype=np.float64)
    return (values + np.pi) % (2 * np.pi) - np.pi


def resolve_flips(headings: ArrayLike, references: ArrayLike) -> Floats:
    """Turn headings by pi where that brings them within a quarter turn of their references.

    A detector often takes a car's front for its rear; a filter that believes it would spin the car.

    Parameters
    ----------
    headings, references : array_like
        Radians, of shapes that broadcast.

    Returns
    -------
    ndarray of float64
        In [-pi, pi).
    """
    values = np.asarray(headings, dtype=np.float64)
    apart = np.abs(wrap(values - np.asarray(references, dtype=np.float64)))
    return wrap(values + np.where(apart > np.pi / 2, np.pi, 0.0))


def rectangle_corners(boxes: Floats) -> Floats:
    """Return the corners, of shape (n, 4, 2), of rotated boxes of shape (n, 5), in turning order."""
    along, across = _axes(boxes[:, 4])
    half = SIGNS[None] * boxes[:, None, [3, 2]] / 2
    return boxes[:, None, :2] + half[..., :1] * along[:, None] + half[..., 1:] * across[:, None]


def bounding_boxes(boxes: Floats) -> Floats:
    """Return x1, y1, x2, y2 around rotated boxes of shape (n, 5)."""
    w, length, c, s = boxes[:, 2], boxes[:, 3], np.abs(np.cos(boxes[:, 4])), np.abs(np.sin(boxes[:, 4]))
    half = np.stack([length * c + w * s, length * s + w * c], axis=1) / 2
    return np.hstack([boxes[:, :2] - half, boxes[:, :2] + half])


def bounding_jacobian(boxes: Floats) -> Floats:
    """Return the derivatives, of shape (n, 4, 5), of the bounding box's x, y, w, h by x, y, w, l, theta."""
    w, length = boxes[:, 2], boxes[:, 3]
    # Rounded, so that a side along an axis is just that.
    cosine, sine = np.round(np.cos(boxes[:, 4]), 12), np.round(np.sin(boxes[:, 4]), 12)
    c, s = np.abs(cosine), np.abs(sine)
    by_c, by_s = -np.sign(cosine) * sine, np.sign(sine) * cosine
    result = np.zeros((len(boxes), 4, 5))
    result[:, 0, 0] = result[:, 1, 1] = 1
    result[:, 2, 2], result[:, 2, 3], result[:, 2, 4] = s, c, length * by_c + w * by_s
    result[:, 3, 2], result[:, 3, 3], result[:, 3, 4] = c, s, length * by_s + w * by_c
    return result


def to_corners(boxes: ArrayLike) -> Floats:
    """Return the eight corners of upright boxes.

    Parameters
    ----------
    boxes : array_like
        x, y, z, w, l, h, theta, of shape (n, 7), of positive sizes.

    Returns
    -------
    ndarray of float64
        Shape (n, 8, 3): the lower four, then the upper four.

    Raises
    ------
    DataError
        A box is not finite or a size not positive.
    """
    values = _boxes(boxes, 7, "x, y, z, w, l, h, theta")
    flat = rectangle_corners(values[:, [0, 1, 3, 4, 6]])
    heights = values[:, 2, None] + values[:, 5, None] * SIGNS_3D[:, 2] / 2
    return np.concatenate([np.tile(flat, (1, 2, 1)), heights[..., None]], axis=2)


def corners_jacobian(boxes: ArrayLike) -> Floats:
    """Return the derivatives of `to_corners`: shape (n, 8, 3, 7), by x, y, z, w, l, h, theta."""
    values = _boxes(boxes, 7, "x, y, z, w, l, h, theta")
    along, across = _axes(values[:, 6])
    w, length = values[:, 3], values[:, 4]
    result = np.zeros((len(values), 8, 3, 7))
    for row in range(3):
        result[:, :, row, row] = 1
    for corner, (a, b, up) in enumerate(SIGNS_3D / 2):
        result[:, corner, :2, 3] = b * across
        result[:, corner, :2, 4] = a * along
        result[:, corner, 2, 5] = up
        result[:, corner, :2, 6] = (a * length)[:, None] * across - (b * w)[:, None] * along
    return result


def from_corners(corners: ArrayLike) -> Floats:
    """Return the upright boxes whose corners are nearest to those given, in the sum of squares.

    The centre is the mean. With A and B the means of the corners times their signs along and across, a
    heading u leaves l/2 = A u and w/2 = B n; it is the largest eigenvector of AA' + J'BB'J, J the quarter
    turn.

    Parameters
    ----------
    corners : array_like
        Shape (n, 8, 3), in the order of `to_corners`.

    Returns
    -------
    ndarray of float64
        x, y, z, w, l, h, theta, of shape (n, 7). Corners in mirrored order give negative sizes.

    Raises
    ------
    DataError
        The shape is another, or a corner is not finite.
    """
    values = np.asarray(corners, dtype=np.float64)
    if values.ndim != 3 or values.shape[1:] != (8, 3):
        raise DataError(f"corners of shape {values.shape}", "shape (n, 8, 3)", "Give eight points a box.")
    if not np.isfinite(values).all():
        raise DataError("corners that are not finite", "finite numbers", "Leave those boxes out.")
    centre = values.mean(1)
    a, b, up = np.einsum("nck,cs->snk", values - centre[:, None], SIGNS_3D) / 8
    turned = np.stack([b[:, 1], -b[:, 0]], axis=1)
    twice = np.arctan2(
        2 * (a[:, 0] * a[:, 1] + turned[:, 0] * turned[:, 1]),
        a[:, 0] ** 2 - a[:, 1] ** 2 + turned[:, 0] ** 2 - turned[:, 1] ** 2,
    )
    theta = twice / 2
    along, _ = _axes(theta)
    theta = wrap(theta + np.where((a[:, :2] * along).sum(1) < 0, np.pi, 0.0))
    along, across = _axes(theta)
    sizes = [(b[:, :2] * across).sum(1), (a[:, :2] * along).sum(1), up[:, 2]]
    return np.column_stack([centre, *(2 * size for size in sizes), theta])


def corners_covariance(boxes: ArrayLike, covariance: Floats) -> Floats:
    """Return the covariances of boxes fitted to noisy corners, to first order.

    Parameters
    ----------
    boxes : array_like
        The fitted boxes, of shape (n, 7).
    covariance : ndarray of float64
        Of the corners' 24 coordinates, of shape (n, 24, 24).

    Returns
    -------
    ndarray of float64
        Shape (n, 7, 7).
    """
    change = np.linalg.pinv(corners_jacobian(boxes).reshape(-1, 24, 7))
    return change @ covariance @ change.transpose(0, 2, 1)


def rotated_iou(first: ArrayLike, second: ArrayLike) -> Floats:
    """Return the intersection over union of every pair of rotated boxes.

    Parameters
    ----------
    first, second : array_like
        x, y, w, l, theta, of shapes (n, 5) and (m, 5).

    Returns
    -------
    ndarray of float64
        Shape (n, m).

    Raises
    ------
    DataError
        A box is not finite or has no area.
    """
    a = _boxes(first, 5, "x, y, w, l, theta")
    b = _boxes(second, 5, "x, y, w, l, theta")
    corners = [np.ascontiguousarray(rectangle_corners(values)) for values in (a, b)]
    return _pairwise_iou(a, b, *corners)


@compiled
def _pairwise_iou(first: Floats, second: Floats, first_corners: Floats, second_corners: Floats) -> Floats:
    result = np.zeros((len(first), len(second)))
    for i in range(len(first)):
        for j in range(len(second)):
            reach = (np.hypot(first[i, 2], first[i, 3]) + np.hypot(second[j, 2], second[j, 3])) / 2
            if np.hypot(first[i, 0] - second[j, 0], first[i, 1] - second[j, 1]) >= reach:
                continue
            common = _common_area(first_corners, i, second_corners, j)
            union = first[i, 2] * first[i, 3] + second[j, 2] * second[j, 3] - common
            result[i, j] = min(common / union, 1.0)
    return result


@compiled
def _common_area(subjects: Floats, subject: int, windows: Floats, window: int) -> float:
    """Return the area of a convex polygon inside a rectangle: Sutherland and Hodgman's clipping.

    The corners turn from along to minus across, so the inside of an edge lies to its other hand.
    """
    x, y = np.empty(8), np.empty(8)
    kept_x, kept_y = np.empty(8), np.empty(8)
    for k in range(4):
        x[k], y[k] = subjects[subject, k, 0], subjects[subject, k, 1]
    count = 4
    for edge in range(4):
        start_x, start_y = windows[window, edge, 0], windows[window, edge, 1]
        dx = windows[window, (edge + 1) % 4, 0] - start_x
        dy = windows[window, (edge + 1) % 4, 1] - start_y
        found = 0
        for k in range(count):
            after = (k + 1) % count
            side_here = (x[k] - start_x) * dy - (y[k] - start_y) * dx
            side_after = (x[after] - start_x) * dy - (y[after] - start_y) * dx
            if side_here >= 0:
                kept_x[found], kept_y[found] = x[k], y[k]
                found += 1
            if side_here * side_after < 0:
                share = side_here / (side_here - side_after)
                kept_x[found] = x[k] + share * (x[after] - x[k])
                kept_y[found] = y[k] + share * (y[after] - y[k])
                found += 1
        if found < 3:
            return 0.0
        count = found
        for k in range(count):
            x[k], y[k] = kept_x[k], kept_y[k]
    # Around the first point: far from the origin, products of the coordinates themselves would cancel.
    area = 0.0
    for k in range(1, count - 1):
        ax, ay, bx, by = x[k] - x[0], y[k] - y[0], x[k + 1] - x[0], y[k + 1] - y[0]
        area += ax * by - ay * bx
    return abs(area) / 2


def _refuse_negative(matrices: Floats) -> None:
    scale = np.abs(matrices).max((1, 2), initial=0)
    skew = np.abs(matrices - matrices.transpose(0, 2, 1)).max((1, 2), initial=0)
    fine = (skew <= ROUNDING * scale) & (np.linalg.eigvalsh(matrices)[:, 0] >= -ROUNDING * scale)
    if not fine.all():
        row = int(np.argmin(fine))
        raise DataError(
            f"the covariance {matrices[row].tolist()} of row {row}",
            "a symmetric matrix without negative eigenvalues",
            "Correct it.",
        )


def _axes(theta: Floats) -> tuple[Floats, Floats]:
    c, s = np.cos(theta), np.sin(theta)
    return np.stack([c, s], axis=1), np.stack([-s, c], axis=1)


def _boxes(boxes: ArrayLike, columns: int, names: str) -> Floats:
    values = np.ascontiguousarray(boxes, dtype=np.float64)
    if values.size == 0:
        return np.empty((0, columns))
    if values.ndim != 2 or values.shape[1] != columns:
        raise DataError(f"boxes of shape {values.shape}", f"shape (n, {columns})", f"Give {names} a row.")
    sizes = slice(2, 4) if columns == 5 else slice(3, 6)
    fine = np.isfinite(values).all(1) & (values[:, sizes] > 0).all(1)
    if not fine.all():
        row = int(np.argmin(fine))
        raise DataError(
            f"row {row} is {values[row].tolist()}", f"finite {names} of positive sizes", "Leave it out."
        )
    return values
