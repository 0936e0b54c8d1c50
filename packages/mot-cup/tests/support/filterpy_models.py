"""The state models of compiled code, as filterpy has them: slow and plainly right."""

from __future__ import annotations

from typing import Any

import numpy as np
from filterpy.kalman import KalmanFilter

from mot_cup import Noise
from mot_cup._filterpy import FilterpyModel
from mot_cup._kalman import FIRST, FIRST_VELOCITY, MEASUREMENT, PROCESS, PROCESS_VELOCITY

Array = np.ndarray[Any, np.dtype[np.float64]]


def diagonals(noise: Noise, height: float) -> Array:
    """Return the variances of a table at a height, of shape (5, 4)."""
    table = noise.table()
    return np.asarray(table[:, :, 0] + table[:, :, 1] * height**2)


def make_filter(z: Array, noise: Noise, r: Array | None = None) -> Any:
    """Return a filter of four positions and velocities at rest."""
    kf = KalmanFilter(dim_x=8, dim_z=4)
    kf.H = np.eye(4, 8)
    kf.x = np.concatenate([z, np.zeros(4)]).reshape(8, 1)
    rows = diagonals(noise, float(z[3]))
    kf.P = np.diag(np.concatenate([rows[FIRST], rows[FIRST_VELOCITY]]))
    if r is not None:
        kf.P[:4, :4] = r
    kf.R = np.diag(rows[MEASUREMENT])
    move(kf, 1.0, noise)
    return kf


def move(kf: Any, dt: float, noise: Noise) -> None:
    """Set F and Q of a step of a whole number of frames: Q is what as many steps of one add up to."""
    one = np.eye(8)
    one[:4, 4:] = np.eye(4)
    kf.F = np.eye(8)
    kf.F[:4, 4:] = dt * np.eye(4)
    rows = diagonals(noise, float(kf.x[3, 0]))
    q = np.diag(np.concatenate([rows[PROCESS], rows[PROCESS_VELOCITY]]))
    total = np.zeros((8, 8))
    for _ in range(round(dt)):
        total = one @ total @ one.T + q
    kf.Q = total


def guarded_move(kf: Any, dt: float, noise: Noise) -> None:
    """Set F and Q, and stop sizes that would fall to zero, as `Sort` does."""
    for j in (2, 3):
        if kf.x[j, 0] + dt * kf.x[j + 4, 0] <= 0:
            kf.x[j + 4] = 0.0
    move(kf, dt, noise)


def model(noise: Noise, space: Any) -> FilterpyModel:
    """Return a state model of the same noise, for `Sort`; R is that of the track's first height."""
    return FilterpyModel(
        lambda z, r: make_filter(z, noise, r), space, lambda kf, dt: guarded_move(kf, dt, noise)
    )
