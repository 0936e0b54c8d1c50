"""What can be seen: the share of a box that straight lines from a sensor reach.

Nine points of a box stand for it, at its middle and nine tenths of the way to its sides. One is seen when no
other rectangle meets the line to it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mot_cup._boxes import Floats
from mot_cup._compiled import compiled
from mot_cup._tracks import Ints

SHARES = np.array([-0.9, 0.0, 0.9]) / 2


def visible_points(boxes: Floats, buildings: Floats, sensors: Ints, reach: float) -> NDArray[np.bool_]:
    """Return which points of cars sensors on other cars see.

    Parameters
    ----------
    boxes : ndarray of float64
        x, y, w, l, theta of the cars in each frame, of shape (frames, cars, 5).
    buildings : ndarray of float64
        Of rectangles that do not move, of shape (buildings, 5).
    sensors : ndarray of int64
        The cars that carry one in their middle, of shape (agents,).
    reach : float
        Distance to a car's middle up to which a sensor sees it.

    Returns
    -------
    ndarray of bool
        Shape (agents, frames, cars, 9). A sensor does not see its own car.
    """
    return _visible_points(
        np.ascontiguousarray(boxes),
        np.ascontiguousarray(buildings),
        np.ascontiguousarray(sensors),
        reach,
        SHARES,
    )


@compiled
def _visible_points(
    boxes: Floats, buildings: Floats, sensors: Ints, reach: float, shares: Floats
) -> NDArray[np.bool_]:
    frames, cars = boxes.shape[:2]
    agents, side = len(sensors), len(shares)
    result = np.zeros((agents, frames, cars, side * side), np.bool_)
    walls = np.empty((cars + len(buildings), 6))
    for k in range(len(buildings)):
        _wall(walls[cars + k], buildings[k])
    for frame in range(frames):
        for car in range(cars):
            _wall(walls[car], boxes[frame, car])
        for agent in range(agents):
            own = sensors[agent]
            x, y = boxes[frame, own, 0], boxes[frame, own, 1]
            for car in range(cars):
                dx, dy = boxes[frame, car, 0] - x, boxes[frame, car, 1] - y
                if car == own or np.hypot(dx, dy) > reach:
                    continue
                c, s, half_length, half_width = walls[car, 2:]
                for i in range(side):
                    for j in range(side):
                        along, across = 2 * shares[i] * half_length, 2 * shares[j] * half_width
                        to_x, to_y = dx + along * c - across * s, dy + along * s + across * c
                        seen = True
                        for k in range(len(walls)):
                            if k != own and k != car and _meets(x, y, to_x, to_y, walls[k]):
                                seen = False
                                break
                        result[agent, frame, car, side * i + j] = seen
    return result


@compiled
def _wall(wall: Floats, box: Floats) -> None:
    wall[0], wall[1] = box[0], box[1]
    wall[2], wall[3] = np.cos(box[4]), np.sin(box[4])
    wall[4], wall[5] = box[3] / 2, box[2] / 2


@compiled
def _meets(x: float, y: float, dx: float, dy: float, wall: Floats) -> bool:
    """Return whether the line from (x, y) by (dx, dy) meets a rectangle: it is inside both slabs at once."""
    first, last = 0.0, 1.0
    c, s = wall[2], wall[3]
    fx, fy = x - wall[0], y - wall[1]
    for axis in range(2):
        start = fx * c + fy * s if axis == 0 else fy * c - fx * s
        step = dx * c + dy * s if axis == 0 else dy * c - dx * s
        half = wall[4 + axis]
        if step == 0.0:
            if abs(start) > half:
                return False
        else:
            one, other = (-half - start) / step, (half - start) / step
            first = max(first, min(one, other))
            last = min(last, max(one, other))
            if first > last:
                return False
    return True
