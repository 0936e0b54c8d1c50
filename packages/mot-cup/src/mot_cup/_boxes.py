"""Parametrisations of an axis-aligned box, and how a covariance moves between them.

A box is kept by its corners, ``xyxy``. Filters and detectors describe it otherwise:

    xywh   centre, width, height
    xyah   centre, aspect ratio w / h, height (ByteTrack)
    xysr   centre, area w h, aspect ratio w / h (SORT)

A covariance S of one is J S J' of another, J the Jacobian of the change at the box.
"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from tenfold import UnknownNameError

Floats = NDArray[np.float64]
Space = Literal["xyxy", "xywh", "xyah", "xysr"]
SPACES: tuple[Space, ...] = get_args(Space)

# The power of the unit of length that every coordinate has.
POWERS: dict[Space, tuple[int, int, int, int]] = {
    "xyxy": (1, 1, 1, 1),
    "xywh": (1, 1, 1, 1),
    "xyah": (1, 1, 0, 1),
    "xysr": (1, 1, 2, 0),
}


def to_space(boxes: Floats, space: Space) -> Floats:
    """Return boxes in another parametrisation.

    Parameters
    ----------
    boxes : ndarray of float64
        Corners, of shape (n, 4), of positive width and height.
    space : {"xyxy", "xywh", "xyah", "xysr"}

    Returns
    -------
    ndarray of float64
        Shape (n, 4).

    Raises
    ------
    UnknownNameError
        There is no such parametrisation.
    """
    check_space(space)
    if space == "xyxy":
        return boxes.copy()
    w, h = (boxes[:, 2:] - boxes[:, :2]).T
    x, y = ((boxes[:, 2:] + boxes[:, :2]) / 2).T
    shape = {"xywh": (w, h), "xyah": (w / h, h), "xysr": (w * h, w / h)}[space]
    return np.stack([x, y, *shape], axis=1)


def from_space(values: Floats, space: Space) -> Floats:
    """Return the corners, of shape (n, 4), of boxes in another parametrisation: the inverse of `to_space`.

    Boxes of negative area or aspect ratio, of which there are no corners, are NaN.
    """
    check_space(space)
    if space == "xyxy":
        return values.copy()
    x, y, third, fourth = values.T
    with np.errstate(invalid="ignore", divide="ignore"):
        if space == "xywh":
            w, h = third, fourth
        elif space == "xyah":
            w, h = third * fourth, fourth
        else:
            w = np.sqrt(third * fourth)
            h = third / w
    return np.stack([x - w / 2, y - h / 2, x + w / 2, y + h / 2], axis=1)


def jacobian(boxes: Floats, space: Space) -> Floats:
    """Return the derivatives of `to_space` by the corners.

    Parameters
    ----------
    boxes : ndarray of float64
        Corners, of shape (n, 4), of positive width and height.
    space : {"xyxy", "xywh", "xyah", "xysr"}

    Returns
    -------
    ndarray of float64
        Shape (n, 4, 4): rows are the new coordinates, columns x1, y1, x2, y2.
    """
    check_space(space)
    n = len(boxes)
    if space == "xyxy":
        return np.broadcast_to(np.eye(4), (n, 4, 4)).copy()
    w, h = (boxes[:, 2:] - boxes[:, :2]).T
    one, zero = np.ones(n), np.zeros(n)
    # By w and h; those by the corners follow, as w = x2 - x1 and h = y2 - y1.
    rows = {
        "xywh": ((one, zero), (zero, one)),
        "xyah": ((1 / h, -w / h**2), (zero, one)),
        "xysr": ((h, w), (1 / h, -w / h**2)),
    }[space]
    result = np.zeros((n, 4, 4))
    result[:, 0, [0, 2]] = result[:, 1, [1, 3]] = 0.5
    for row, (by_w, by_h) in enumerate(rows, start=2):
        result[:, row] = np.stack([-by_w, -by_h, by_w, by_h], axis=1)
    return result


def check_space(space: str) -> None:
    """Refuse an unknown parametrisation."""
    if space not in SPACES:
        raise UnknownNameError("parametrisation of a box", space, SPACES)
