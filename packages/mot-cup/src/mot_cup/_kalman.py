"""Kalman filters of all tracks at once, each of four positions z and their velocities v.

    z' = z + dt v        P' = F P F' + Q        F = [I, dt I; 0, I]
    S  = P_zz + R        K  = P_.z / S          P = (I - K H) P' (I - K H)' + K R K'.

Where the first P, Q and R are diagonal, nothing ever couples two coordinates, and the filter is exactly four
filters of a position and its velocity, each three numbers of covariance. That holds for SORT and ByteTrack.
A detection whose errors are correlated needs all of P, 8 by 8; `to_dense` goes from one form to the other.

A filter is a row of an array: eight means, positions first, and either twelve numbers (of each coordinate
the variance of its position, the covariance with its velocity, the velocity's variance) or P, row by row.

A variance is ``constant + fraction * h**2``, h the height that the state has at the time, so that one table
holds noise in pixels and noise that grows with the box (`mot_cup._noise`).

Of a step dt of k frames, Q is what k predictions of one frame add up to, also where k is not whole:

    Q_zz = k q_z + q_v k (k - 1) (2 k - 1) / 6        Q_zv = q_v k (k - 1) / 2        Q_vv = k q_v.

Below one frame that is not always positive, and Q is k times that of a frame.

In a direction in which neither state nor measurement has any variance, S is singular; the gain there is 0,
and the state stays.
"""

from __future__ import annotations

import numpy as np

from mot_cup._boxes import Floats
from mot_cup._compiled import compiled, inlined
from mot_cup._tracks import Ints

# Rows of a table of variances, of shape (5, 4, 2): kind, coordinate, (constant, fraction of h^2).
MEASUREMENT, PROCESS, PROCESS_VELOCITY, FIRST, FIRST_VELOCITY = range(5)
SPLIT, DENSE = 8 + 4 * 3, 8 + 8 * 8
# Relative to the variance it came from: a pivot below it is rounding.
SINGULAR = 1e-14


def make_filters(capacity: int) -> Floats:
    """Return room for split filters."""
    return np.zeros((capacity, SPLIT))


def to_dense(filters: Floats) -> Floats:
    """Return filters with the whole of their covariances, of shape (n, DENSE)."""
    if filters.shape[1] == DENSE:
        return filters
    result = np.zeros((len(filters), DENSE))
    result[:, :8] = filters[:, :8]
    p = result[:, 8:].reshape(-1, 8, 8)
    for j in range(4):
        position, both, velocity = filters[:, 8 + 3 * j : 11 + 3 * j].T
        p[:, j, j], p[:, j + 4, j + 4] = position, velocity
        p[:, j, j + 4] = p[:, j + 4, j] = both
    return result


@compiled
def enlarge(filters: Floats, capacity: int) -> Floats:
    """Return the same filters with room for `capacity`."""
    result = np.zeros((capacity, filters.shape[1]))
    result[: len(filters)] = filters
    return result


@compiled
def copy_filter(source: Floats, row: int, target: Floats, target_row: int) -> None:
    """Write one filter over another, of the same form."""
    for column in range(source.shape[1]):
        target[target_row, column] = source[row, column]


@inlined
def copy_row(values: Floats, row: int, target: int) -> None:
    """Write one row over another."""
    for column in range(values.shape[1]):
        values[target, column] = values[row, column]


@inlined
def variance(noise: Floats, kind: int, coordinate: int, height: float) -> float:
    """Return one variance of a table at a height."""
    return float(noise[kind, coordinate, 0] + noise[kind, coordinate, 1] * height * height)


@compiled
def position_covariance(filters: Floats, track: int, i: int, j: int) -> float:
    """Return one entry of the covariance of a filter's positions."""
    if filters.shape[1] == DENSE:
        return float(filters[track, 8 + 8 * i + j])
    return float(filters[track, 8 + 3 * i]) if i == j else 0.0


@compiled
def measurement_variance(noise: Floats, errors: Floats, d: int, j: int, height: float) -> float:
    """Return one variance of a measurement: its own where errors are known, else the table's."""
    return float(errors[d, j, j]) if len(errors) else variance(noise, MEASUREMENT, j, height)


@inlined
def start(
    filters: Floats, track: int, z: Floats, d: int, noise: Floats, errors: Floats, measured: bool
) -> None:
    """Begin a filter at a measurement, at rest.

    Parameters
    ----------
    filters : ndarray of float64
        Shape (capacity, SPLIT or DENSE).
    track : int
        Its row.
    z : ndarray of float64
        Measurements, of shape (n, 4).
    d : int
        Row of the measurement.
    noise : ndarray of float64
        Shape (5, 4, 2).
    errors : ndarray of float64
        Covariances of the measurements, of shape (n, 4, 4), or (0, 4, 4).
    measured : bool
        Whether these, where known, are those of first positions too, and not what `noise` says.
    """
    known = measured and len(errors) > 0
    dense = filters.shape[1] == DENSE
    for column in range(filters.shape[1]):
        filters[track, column] = 0.0
    for j in range(4):
        filters[track, j] = z[d, j]
        position = errors[d, j, j] if known else variance(noise, FIRST, j, z[d, 3])
        velocity = variance(noise, FIRST_VELOCITY, j, z[d, 3])
        if dense:
            if known:
                for i in range(4):
                    filters[track, 8 + 8 * j + i] = errors[d, j, i]
            filters[track, 8 + 9 * j], filters[track, 44 + 9 * j] = position, velocity
        else:
            filters[track, 8 + 3 * j], filters[track, 10 + 3 * j] = position, velocity


@compiled
def hold_sizes(filters: Floats, count: int, dt: float) -> None:
    """Stop the third and fourth positions, where `predict` would take them to zero or below."""
    for track in range(count):
        for j in (2, 3):
            if filters[track, j] + dt * filters[track, j + 4] <= 0:
                filters[track, j + 4] = 0.0


@compiled
def predict(filters: Floats, count: int, noise: Floats, dt: float) -> None:
    """Move filters on by `dt` frames.

    Parameters
    ----------
    filters : ndarray of float64
        Shape (capacity, SPLIT or DENSE).
    count : int
        How many, from the first row.
    noise : ndarray of float64
        Shape (5, 4, 2).
    dt : float
        Positive.
    """
    if filters.shape[1] == DENSE:
        predict_dense(filters, count, noise, dt)
    else:
        predict_split(filters, count, noise, dt)


@compiled
def predict_split(filters: Floats, count: int, noise: Floats, dt: float) -> None:
    """Do as `predict`, with split filters."""
    spread, coupling = _spread(dt), _coupling(dt)
    for track in range(count):
        height = filters[track, 3]
        for j in range(4):
            q, q_velocity = variance(noise, PROCESS, j, height), variance(noise, PROCESS_VELOCITY, j, height)
            both, velocity = filters[track, 9 + 3 * j], filters[track, 10 + 3 * j]
            filters[track, j] += dt * filters[track, j + 4]
            filters[track, 8 + 3 * j] += dt * (2 * both + dt * velocity + q) + spread * q_velocity
            filters[track, 9 + 3 * j] = both + dt * velocity + coupling * q_velocity
            filters[track, 10 + 3 * j] = velocity + dt * q_velocity


@compiled
def predict_dense(filters: Floats, count: int, noise: Floats, dt: float) -> None:
    """Do as `predict`, with filters that have all of P."""
    spread, coupling = _spread(dt), _coupling(dt)
    for track in range(count):
        height, p = filters[track, 3], filters[track, 8:].reshape(8, 8)
        _move_on(p, dt)
        for j in range(4):
            q, q_velocity = variance(noise, PROCESS, j, height), variance(noise, PROCESS_VELOCITY, j, height)
            filters[track, j] += dt * filters[track, j + 4]
            p[j, j] += dt * q + spread * q_velocity
            p[j, j + 4] += coupling * q_velocity
            p[j + 4, j] += coupling * q_velocity
            p[j + 4, j + 4] += dt * q_velocity


@compiled
def _spread(dt: float) -> float:
    """Return what multiplies q_v in Q_zz."""
    return dt * (max(dt, 1.0) - 1) * (2 * max(dt, 1.0) - 1) / 6


@compiled
def _coupling(dt: float) -> float:
    """Return what multiplies q_v in Q_zv."""
    return dt * (max(dt, 1.0) - 1) / 2


@compiled
def _move_on(p: Floats, dt: float) -> None:
    """Overwrite P by F P F'."""
    for i in range(4):
        for j in range(4):
            p[i, j] += dt * (p[i, j + 4] + p[i + 4, j]) + dt * dt * p[i + 4, j + 4]
    for i in range(4):
        for j in range(4):
            p[i, j + 4] += dt * p[i + 4, j + 4]
            p[j + 4, i] = p[i, j + 4]


@compiled
def update(
    filters: Floats, tracks: Ints, z: Floats, first: int, last: int, noise: Floats, errors: Floats
) -> None:
    """Correct filters by measurements.

    Parameters
    ----------
    filters : ndarray of float64
        Shape (capacity, SPLIT or DENSE).
    tracks : ndarray of int64
        Shape (n,): the row of each measurement's filter, negative for none.
    z : ndarray of float64
        Shape (n, 4).
    first, last : int
        Rows of the measurements that are taken, the last one not.
    noise : ndarray of float64
        Shape (5, 4, 2).
    errors : ndarray of float64
        Covariances of the measurements, of shape (n, 4, 4), or (0, 4, 4) for those of `noise`. Split filters
        read their diagonals alone.
    """
    if filters.shape[1] == DENSE:
        update_dense(filters, tracks, z, first, last, noise, errors)
    else:
        update_split(filters, tracks, z, first, last, noise, errors)


@compiled
def update_split(
    filters: Floats, tracks: Ints, z: Floats, first: int, last: int, noise: Floats, errors: Floats
) -> None:
    """Do as `update`, with split filters."""
    for d in range(first, last):
        track = tracks[d]
        if track < 0:
            continue
        height = filters[track, 3]
        for j in range(4):
            # Not by measurement_variance, a call of which takes ten times as long as all of the rest.
            r = errors[d, j, j] if len(errors) else variance(noise, MEASUREMENT, j, height)
            position, both = filters[track, 8 + 3 * j], filters[track, 9 + 3 * j]
            s = position + r
            if s <= 0:
                continue
            innovation, inverse = z[d, j] - filters[track, j], 1 / s
            filters[track, j] += position * inverse * innovation
            filters[track, j + 4] += both * inverse * innovation
            filters[track, 8 + 3 * j] = r * inverse * position
            filters[track, 9 + 3 * j] = r * inverse * both
            filters[track, 10 + 3 * j] -= both * inverse * both


@compiled
def update_dense(
    filters: Floats, tracks: Ints, z: Floats, first: int, last: int, noise: Floats, errors: Floats
) -> None:
    """Do as `update`, with filters that have all of P."""
    r = np.zeros((4, 4))
    for d in range(first, last):
        track = tracks[d]
        if track < 0:
            continue
        height = filters[track, 3]
        for i in range(4):
            for j in range(4):
                r[i, j] = errors[d, i, j] if len(errors) else 0.0
            r[i, i] = measurement_variance(noise, errors, d, i, height)
        _correct(filters[track, :8], filters[track, 8:].reshape(8, 8), z[d], r)


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
