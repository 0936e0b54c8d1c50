"""State models: which four coordinates of a box a filter keeps, each with a velocity.

    xysr   centre, area, aspect ratio; the ratio has no velocity (Bewley et al., "Simple online and realtime
           tracking", ICIP 2016)
    xyah   centre, aspect ratio, height (Zhang et al., "ByteTrack", ECCV 2022, from DeepSORT)
    xywh   centre, width, height

All three are one filter of four positions and four velocities, of which the ratio of ``xysr`` keeps a
velocity of exactly zero. Compiled code knows a model by its place in `MODELS`.
"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np

from mot_cup._boxes import Floats
from mot_cup._compiled import inlined
from tenfold import UnknownNameError

StateModel = Literal["xysr", "xyah", "xywh"]
MODELS: tuple[StateModel, ...] = get_args(StateModel)
XYSR, XYAH, XYWH = range(3)


def model_number(name: str) -> int:
    """Return the place of a state model in `MODELS`.

    Raises
    ------
    UnknownNameError
        There is no such model.
    """
    if name not in MODELS:
        raise UnknownNameError("state model", name, MODELS)
    return MODELS.index(name)


@inlined
def measure(model: int, boxes: Floats, row: int, out: Floats) -> None:
    """Write the four coordinates of a box into the same row of `out`.

    Parameters
    ----------
    model : int
    boxes : ndarray of float64
        Shape (n, 4 or more), corners first.
    row : int
    out : ndarray of float64
        Shape (n, 4).
    """
    x1, y1, x2, y2 = boxes[row, 0], boxes[row, 1], boxes[row, 2], boxes[row, 3]
    w, h = x2 - x1, y2 - y1
    out[row, 0], out[row, 1] = x1 + w / 2, y1 + h / 2
    if model == XYSR:
        out[row, 2], out[row, 3] = w * h, w / h
    elif model == XYAH:
        out[row, 2], out[row, 3] = w / h, h
    else:
        out[row, 2], out[row, 3] = w, h


@inlined
def corners(model: int, filters: Floats, track: int, out: Floats, row: int) -> bool:
    """Write the corners of a state into a row of `out`, and return whether there are any.

    Parameters
    ----------
    model : int
    filters : ndarray of float64
        Shape (n, 4 or more), positions first.
    track : int
        Row of `filters`.
    out : ndarray of float64
        Shape (m, 4 or more).
    row : int
    """
    third, fourth = filters[track, 2], filters[track, 3]
    w, h = third, fourth
    if model == XYSR:
        area_squared = third * fourth
        w = np.sqrt(area_squared) if area_squared > 0 else np.nan
        h = third / w
    elif model == XYAH:
        w = third * fourth
    x, y = filters[track, 0], filters[track, 1]
    out[row, 0], out[row, 1] = x - w / 2, y - h / 2
    out[row, 2], out[row, 3] = x + w / 2, y + h / 2
    return bool(np.isfinite(x) and np.isfinite(y) and w > 0 and h > 0)
