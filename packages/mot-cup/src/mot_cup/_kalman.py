"""Kalman filters of all tracks at once, each of four positions z and their velocities v.

    z' = z + dt v        P' = F P F' + Q        F = [I, dt I; 0, I]
    S  = P_zz + R        K  = P_.z / S          P = (I - K H) P' (I - K H)' + K R K'.

Where the first P, Q and R are diagonal, nothing ever couples two coordinates, and the filter is exactly four
filters of a position and its velocity, each three numbers of covariance. That holds for SORT and ByteTrack.
A detection whose errors are correlated needs all of P, 8 by 8; `to_dense` goes from one form to the other.

A variance is ``constant + fraction * h**2``, h the height that the state has at the time, so that one table
holds noise in pixels and noise that grows with the box (`mot_cup._noise`).

Of a step dt of k frames, Q is what k predictions of one frame add up to, also where k is not whole:

    Q_zz = k q_z + q_v k (k - 1) (2 k - 1) / 6        Q_zv = q_v k (k - 1) / 2        Q_vv = k q_v.

Below one frame that is not always positive, and Q is k times that of a frame.

In a direction in which neither state nor measurement has any variance, S is singular; the gain there is 0,
and the state stays.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from mot_cup._boxes import Floats
from mot_cup._compiled import compiled
from mot_cup._tracks import Ints

# Rows of a table of variances, of shape (5, 4, 2): kind, coordinate, (constant, fraction of h^2).
MEASUREMENT, PROCESS, PROCESS_VELOCITY, FIRST, FIRST_VELOCITY = range(5)
# Relative to the variance it came from: a pivot below it is rounding.
SINGULAR = 1e-14


class Filters(NamedTuple):
    """Filters of tracks, one a row.

    Attributes
    ----------
    means : ndarray of float64
        Shape (capacity, 8): four positions, four velocities.
    split : ndarray of float64
        Shape (capacity, 4, 3), of each coordinate the variance of its position, the covariance with its
        velocity, and the velocity's variance. (0, 4, 3) where `dense` is in use.
    dense : ndarray of float64
        Shape (capacity, 8, 8), or (0, 8, 8) where `split` is in use.
    """

    means: Floats
    split: Floats
    dense: Floats


def make_filters(capacity: int, dense: bool = False) -> Filters:
    """Return room for filters."""
    return Filters(
        np.zeros((capacity, 8)),
        np.zeros((0 if dense else capacity, 4, 3)),
        np.zeros((capacity if dense else 0, 8, 8)),
    )


def to_dense(filters: Filters) -> Filters:
    """Return the same filters with the whole of their covariances."""
    dense = np.zeros((len(filters.means), 8, 8))
    for j in range(4):
        dense[:, j, j] = filters.split[:, j, 0]
        dense[:, j, j + 4] = dense[:, j + 4, j] = filters.split[:, j, 1]
        dense[:, j + 4, j + 4] = filters.split[:, j, 2]
    return Filters(filters.means, np.zeros((0, 4, 3)), dense)


@compiled
def enlarge(filters: Filters, capacity: int) -> Filters:
    """Return the same filters with room for `capacity`."""
    means, whole = np.zeros((capacity, 8)), len(filters.dense) > 0
    split = np.zeros((0 if whole else capacity, 4, 3))
    dense = np.zeros((capacity if whole else 0, 8, 8))
    means[: len(filters.means)] = filters.means
    split[: len(filters.split)] = filters.split
    dense[: len(filters.dense)] = filters.dense
    return Filters(means, split, dense)


@compiled
def only(filters: Filters, track: int) -> Filters:
    """Return one of the filters, on the same memory."""
    row = slice(track, track + 1)
    return Filters(filters.means[row], filters.split[row], filters.dense[row])


@compiled
def copy_filter(source: Filters, row: int, target: Filters, target_row: int) -> None:
    """Write one filter over another, of the same form."""
    target.means[target_row] = source.means[row]
    if len(source.dense):
        target.dense[target_row] = source.dense[row]
    else:
        target.split[target_row] = source.split[row]


@compiled
def variance(noise: Floats, kind: int, coordinate: int, height: float) -> float:
    """Return one variance of a table at a height."""
    return noise[kind, coordinate, 0] + noise[kind, coordinate, 1] * height * height


@compiled
def start(
    filters: Filters, track: int, z: Floats, d: int, noise: Floats, errors: Floats, measured: bool
) -> None:
    """Begin a filter at a measurement, at rest.

    Parameters
    ----------
    filters : Filters
    track : int
        Its row.
    z : ndarray of float64
        Shape (n, 4).
    d : int
        The measurement's row.
    noise : ndarray of float64
        Shape (5, 4, 2).
    errors : ndarray of float64
        Covariances of the measurements, of shape (n, 4, 4), or (0, 4, 4).
    measured : bool
        Whether they, where known, are those of first positions too, and not what `noise` says.
    """
    means, split, dense = filters
    known = measured and len(errors) > 0
    if len(dense):
        dense[track] = 0.0
    for j in range(4):
        means[track, j], means[track, j + 4] = z[d, j], 0.0
        position = errors[d, j, j] if known else variance(noise, FIRST, j, z[d, 3])
        velocity = variance(noise, FIRST_VELOCITY, j, z[d, 3])
        if len(dense):
            for i in range(4):
                dense[track, j, i] = errors[d, j, i] if known else 0.0
            dense[track, j, j], dense[track, j + 4, j + 4] = position, velocity
        else:
            split[track, j, 0], split[track, j, 1], split[track, j, 2] = position, 0.0, velocity


@compiled
def predict(filters: Filters, count: int, noise: Floats, dt: float) -> None:
    """Move filters on by `dt` frames.

    Parameters
    ----------
    filters : Filters
    count : int
        How many, from the first row.
    noise : ndarray of float64
        Shape (5, 4, 2).
    dt : float
        Positive.
    """
    whole = max(dt, 1.0)
    spread, coupling = dt * (whole - 1) * (2 * whole - 1) / 6, dt * (whole - 1) / 2
    means, split, dense = filters
    if len(dense):
        _predict_dense(means, dense, count, noise, dt, spread, coupling)
    else:
        _predict_split(means, split, count, noise, dt, spread, coupling)


@compiled
def _predict_split(
    means: Floats, split: Floats, count: int, noise: Floats, dt: float, spread: float, coupling: float
) -> None:
    for track in range(count):
        height = means[track, 3]
        for j in range(4):
            means[track, j] += dt * means[track, j + 4]
            both, velocity = split[track, j, 1], split[track, j, 2]
            q, q_velocity = variance(noise, PROCESS, j, height), variance(noise, PROCESS_VELOCITY, j, height)
            split[track, j, 0] += dt * (2 * both + dt * velocity + q) + spread * q_velocity
            split[track, j, 1] = both + dt * velocity + coupling * q_velocity
            split[track, j, 2] = velocity + dt * q_velocity


@compiled
def _predict_dense(
    means: Floats, dense: Floats, count: int, noise: Floats, dt: float, spread: float, coupling: float
) -> None:
    for track in range(count):
        p, height = dense[track], means[track, 3]
        for i in range(4):
            for j in range(4):
                p[i, j] += dt * (p[i, j + 4] + p[i + 4, j]) + dt * dt * p[i + 4, j + 4]
        for i in range(4):
            for j in range(4):
                p[i, j + 4] += dt * p[i + 4, j + 4]
                p[j + 4, i] = p[i, j + 4]
        for j in range(4):
            means[track, j] += dt * means[track, j + 4]
            q, q_velocity = variance(noise, PROCESS, j, height), variance(noise, PROCESS_VELOCITY, j, height)
            p[j, j] += dt * q + spread * q_velocity
            p[j, j + 4] += coupling * q_velocity
            p[j + 4, j] += coupling * q_velocity
            p[j + 4, j + 4] += dt * q_velocity


@compiled
def update(filters: Filters, tracks: Ints, z: Floats, noise: Floats, errors: Floats) -> None:
    """Correct filters by measurements.

    Parameters
    ----------
    filters : Filters
    tracks : ndarray of int64
        Shape (n,): the row of each measurement's filter, negative for none.
    z : ndarray of float64
        Shape (n, 4).
    noise : ndarray of float64
        Shape (5, 4, 2).
    errors : ndarray of float64
        Covariances of the measurements, of shape (n, 4, 4), or (0, 4, 4) for those of `noise`. Split filters
        read their diagonals alone.
    """
    means, split, dense = filters
    if len(dense):
        _update_dense(means, dense, tracks, z, noise, errors)
    else:
        _update_split(means, split, tracks, z, noise, errors)


@compiled
def _update_split(
    means: Floats, split: Floats, tracks: Ints, z: Floats, noise: Floats, errors: Floats
) -> None:
    for d in range(len(tracks)):
        track = tracks[d]
        if track < 0:
            continue
        height = means[track, 3]
        for j in range(4):
            r = errors[d, j, j] if len(errors) else variance(noise, MEASUREMENT, j, height)
            position, both = split[track, j, 0], split[track, j, 1]
            s = position + r
            if s <= 0:
                continue
            innovation, inverse = z[d, j] - means[track, j], 1 / s
            means[track, j] += position * inverse * innovation
            means[track, j + 4] += both * inverse * innovation
            split[track, j, 0] = r * inverse * position
            split[track, j, 1] = r * inverse * both
            split[track, j, 2] -= both * inverse * both


@compiled
def _update_dense(
    means: Floats, dense: Floats, tracks: Ints, z: Floats, noise: Floats, errors: Floats
) -> None:
    r = np.zeros((4, 4))
    for d in range(len(tracks)):
        if tracks[d] >= 0:
            measurement_covariance(noise, errors, d, means[tracks[d], 3], r)
            _correct(means[tracks[d]], dense[tracks[d]], z[d], r)


@compiled
def measurement_covariance(noise: Floats, errors: Floats, d: int, height: float, out: Floats) -> None:
    """Write R of a measurement, of shape (4, 4)."""
    for i in range(4):
        for j in range(4):
            out[i, j] = errors[d, i, j] if len(errors) else 0.0
        if len(errors) == 0:
            out[i, i] = variance(noise, MEASUREMENT, i, height)


@compiled
def _correct(mean: Floats, p: Floats, z: Floats, r: Floats) -> None:
    factor, pivots = np.empty((4, 4)), np.empty(4)
    s = np.empty((4, 4))
    innovation = np.empty(4)
    for i in range(4):
        innovation[i] = z[i] - mean[i]
        for j in range(4):
            s[i, j] = p[i, j] + r[i, j]
    factorise(s, factor, pivots)
    gain, column = np.empty((8, 4)), np.empty(4)
    for i in range(8):
        for j in range(4):
            column[j] = p[i, j]
        solve(factor, pivots, column)
        for j in range(4):
            gain[i, j] = column[j]
    for i in range(8):
        for j in range(4):
            mean[i] += gain[i, j] * innovation[j]
    # (I - K H) P, then its product with (I - K H)', and K R K'.
    half = np.empty((8, 8))
    for i in range(8):
        for j in range(8):
            total = p[i, j]
            for k in range(4):
                total -= gain[i, k] * p[k, j]
            half[i, j] = total
    for i in range(8):
        for k in range(4):
            column[k] = -half[i, k]
            for m in range(4):
                column[k] += gain[i, m] * r[m, k]
        for j in range(i, 8):
            total = half[i, j]
            for k in range(4):
                total += column[k] * gain[j, k]
            p[i, j] = p[j, i] = total


@compiled
def factorise(s: Floats, factor: Floats, pivots: Floats) -> None:
    """Write L and d of S = L diag(d) L', S of shape (4, 4); a pivot that is rounding is 0."""
    for j in range(4):
        pivot = s[j, j]
        for k in range(j):
            pivot -= factor[j, k] * factor[j, k] * pivots[k]
        pivots[j] = pivot if pivot > SINGULAR * s[j, j] else 0.0
        for i in range(j + 1, 4):
            total = s[i, j]
            for k in range(j):
                total -= factor[i, k] * factor[j, k] * pivots[k]
            factor[i, j] = total / pivots[j] if pivots[j] > 0 else 0.0


@compiled
def solve(factor: Floats, pivots: Floats, b: Floats) -> None:
    """Overwrite b by S^-1 b, 0 along pivots that are 0."""
    for i in range(4):
        for k in range(i):
            b[i] -= factor[i, k] * b[k]
    for i in range(4):
        b[i] = b[i] / pivots[i] if pivots[i] > 0 else 0.0
    for i in range(3, -1, -1):
        for k in range(i + 1, 4):
            b[i] -= factor[k, i] * b[k]
