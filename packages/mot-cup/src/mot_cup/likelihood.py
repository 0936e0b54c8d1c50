"""Process and measurement noise by maximum likelihood, from boxes of objects over time.

The boxes of one object are, in the filter's model, normal given those before: the innovation v_t has the mean
0 and the variance S_t, so that a noise has the likelihood

    -log L = sum_t (log S_t + v_t^2 / S_t + log 2 pi) / 2

over all innovations (Schweppe 1965), of the same filter that the trackers run. Its four coordinates are
filters of their own, but for the height that variances may grow with: the fourth is fitted first, and the
others given it. Correlations of the errors of coordinates are left out.

Objects come of labels, or of a tracker's own output. That has chosen what it found likely, so that where
objects are close to each other the noise of such a fit is too small.

>>> noise = fit(observations(detections, tracks, "xywh"))      # doctest: +SKIP
>>> tracker = Sort(state="xywh", noise=noise)                  # doctest: +SKIP
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import minimize

from mot_cup._boxes import Floats, to_space
from mot_cup._compiled import compiled
from mot_cup._detections import Detections
from mot_cup._kalman import SPLIT, measurement_variance, predict_split, start, update_split
from mot_cup._matching import match_positive, overlaps
from mot_cup._noise import Noise, Row
from mot_cup._state_models import StateModel, model_number
from mot_cup._tracks import Tracks
from tenfold import DataError, SettingError
from tenfold.experiment import write_json

SCHEMA = "mot-cup.noise/1"
IOU = 0.3
LEAST = 30
# Logarithms of variances stay within this many of those that the search begins at.
REACH = 20.0
# Shares of the mean square of a change, of the measurement, the process, its velocity and the first velocity.
# The search begins where it is mostly measurements that scatter, where velocities do, and where positions do.
STARTS = (
    np.array([0.3, 0.03, 0.003, 0.3]),
    np.array([0.003, 0.003, 0.003, 1.0]),
    np.array([0.03, 0.3, 0.003, 0.1]),
)


@dataclass(frozen=True)
class Observations:
    """Boxes of objects over time, object after object.

    Parameters
    ----------
    boxes : ndarray of float64
        Shape (n, 4), in the coordinates of the state.
    steps : ndarray of float64
        Shape (n,): frames since the object's box before, 0 for its first.
    errors : ndarray of float64
        The detections' own covariances in these coordinates, of shape (n, 4, 4), or (0, 4, 4) where there are
        none.
    """

    boxes: Floats
    steps: Floats
    errors: Floats

    def __len__(self) -> int:
        return len(self.boxes)


def observations(
    frames: Mapping[int, Detections], tracks: Tracks, state: StateModel, *, covariances: bool = True
) -> Observations:
    """Return the detections of every object of a sequence.

    Parameters
    ----------
    frames : mapping of int to Detections
    tracks : Tracks
        What a tracker made of these detections, by `Tracks.rows`; or the truth, whose boxes have no rows, and
        take the detection of their class that they overlap by 0.3 or more.
    state : {"xysr", "xyah", "xywh"}
        The coordinates.
    covariances : bool
        Take the detections' covariances, where all have one, for their errors.

    Raises
    ------
    UnknownNameError
        There is no such state.
    """
    model_number(state)
    found = tracks if (tracks.rows >= 0).any() else _matched(frames, tracks)
    found = found[found.rows >= 0]
    order = np.lexsort((found.frames, found.ids))
    numbers, ids, rows = found.frames[order], found.ids[order], found.rows[order]
    same = np.diff(ids, prepend=ids[:1] - 1) == 0
    steps = np.where(same, np.diff(numbers, prepend=numbers[:1]), 0).astype(np.float64)
    used, of_frame = np.unique(numbers, return_inverse=True)
    given = [frames[number] for number in used.tolist()]
    firsts = np.cumsum([0, *map(len, given)])
    places = firsts[:-1][of_frame] + rows
    corners = np.concatenate([np.empty((0, 4)), *(item.boxes for item in given)])
    own = [item.covariance.to_space(item.boxes, state).matrices for item in given if item.covariance]
    known = covariances and own and len(own) == len(given)
    errors = np.concatenate(own)[places] if known else np.empty((0, 4, 4))
    return Observations(to_space(corners[places], state), steps, errors)


def pooled(parts: Sequence[Observations]) -> Observations:
    """Return the observations of several sequences as one; either all have covariances or none is used."""
    known = all(len(part.errors) == len(part) for part in parts)
    return Observations(
        np.concatenate([part.boxes for part in parts]),
        np.concatenate([part.steps for part in parts]),
        np.concatenate([part.errors for part in parts]) if known else np.empty((0, 4, 4)),
    )


def negative_log_likelihood(observed: Observations, noise: Noise) -> Floats:
    """Return the mean negative log-likelihood of a noise, of every coordinate, in nats an innovation.

    Parameters
    ----------
    observed : Observations
        Where they have covariances, these are R and the first P, and those of `noise` have no say.
    noise : Noise

    Returns
    -------
    ndarray of float64
        Shape (4,).

    Raises
    ------
    DataError
        No object has two boxes.
    """
    _check(observed, 1)
    return _negative_log_likelihood(observed.boxes, observed.steps, observed.errors, noise.table())


def fit(observed: Observations, *, of_height: bool = True) -> Noise:
    """Return the noise of greatest likelihood.

    Parameters
    ----------
    observed : Observations
        Where they have covariances these are R, and process noise and first velocities are fitted with them.
    of_height : bool
        Standard deviations are fractions of the height, the fourth coordinate; else they are constants.
        In ``xysr``, whose fourth is no height, they should be constants.

    Returns
    -------
    Noise
        The first positions have the variances of a measurement, and where the detections have covariances,
        which a tracker with ``uncertainty="covariance"`` takes instead, those that the mean of them is.

    Raises
    ------
    DataError
        Fewer than 30 boxes follow another of the same object, or a coordinate never changes.
    """
    _check(observed, LEAST)
    rows = np.zeros((4, 4))
    known = len(observed.errors) > 0
    scales = _scales(observed, of_height)
    if known:
        variances = np.diagonal(observed.errors, 0, 1, 2)
        rows[0] = (variances / (observed.boxes[:, 3:] ** 2 if of_height else 1.0)).mean(axis=0)
    free = np.array([not known, True, True, True])
    for coordinate in (3, 0, 1, 2):

        def cost(logs: Floats, coordinate: int = coordinate) -> float:
            rows[free, coordinate] = np.exp(logs)
            table = _of_rows(rows, of_height).table()
            return float(
                _negative_log_likelihood(observed.boxes, observed.steps, observed.errors, table)[coordinate]
            )

        logs = _least(cost, [np.log(scales[coordinate] * shares[free]) for shares in STARTS])
        rows[free, coordinate] = np.exp(logs)
    return _of_rows(rows, of_height)


def save(path: Path, noise: Noise, state: StateModel) -> None:
    """Write a noise and the state model that it is of as JSON, whole or not at all.

    Raises
    ------
    OutputError
        The file cannot be written.
    UnknownNameError
        There is no such state.
    """
    model_number(state)
    write_json(path, {"schema": SCHEMA, "state": state, **asdict(noise)})


def load(path: Path) -> tuple[Noise, StateModel]:
    """Read what `save` wrote.

    Raises
    ------
    DataError
        The file is missing, is not JSON, or is not a noise.
    """
    try:
        document: Any = json.loads(path.read_text(encoding="utf-8"))
        if document.pop("schema") != SCHEMA:
            raise ValueError("another schema")
        state: StateModel = document.pop("state")
        model_number(state)
        return Noise(**document), state
    except (OSError, ValueError, AttributeError, LookupError, TypeError, SettingError) as error:
        raise DataError(
            f"the noise {path} cannot be read ({error})",
            f"a file of schema {SCHEMA} written by likelihood.save",
            "Run mot-cup noise again.",
        ) from error


def _least(cost: Callable[[Floats], float], starts: Sequence[Floats]) -> Floats:
    """Return where a cost is least, the best of several searches."""
    found = [
        minimize(
            cost,
            start,
            method="Nelder-Mead",
            bounds=[(value - REACH, value + REACH) for value in start.tolist()],
            options={"xatol": 1e-3, "fatol": 1e-7, "maxiter": 600},
        )
        for start in starts
    ]
    return np.asarray(min(found, key=lambda result: float(result.fun)).x)


def _check(observed: Observations, least: int) -> None:
    count = int((observed.steps > 0).sum())
    if count < least:
        raise DataError(
            f"{count} boxes that follow another of the same object",
            f"{least} or more",
            "Give more sequences, or objects that are seen for longer.",
        )


def _scales(observed: Observations, of_height: bool) -> Floats:
    """Return the variance of the change from box to box, where the search begins."""
    height = observed.boxes[:, 3:] if of_height else np.ones((len(observed), 1))
    change = (np.diff(observed.boxes, axis=0) / height[1:])[observed.steps[1:] > 0]
    scales = np.asarray((change**2).mean(axis=0))
    if not (scales > 0).all():
        raise DataError(
            f"changes of mean square {scales.tolist()}", "above 0 in every coordinate", "Give other boxes."
        )
    return scales


def _of_rows(rows: Floats, of_height: bool) -> Noise:
    measurement, process, process_velocity, first_velocity = (_row(row) for row in rows)
    if of_height:
        return Noise(
            measurement_fraction=measurement,
            process_fraction=process,
            process_velocity_fraction=process_velocity,
            first_fraction=measurement,
            first_velocity_fraction=first_velocity,
        )
    return Noise(
        measurement=measurement,
        process=process,
        process_velocity=process_velocity,
        first=measurement,
        first_velocity=first_velocity,
    )


def _row(values: Floats) -> Row:
    x, y, z, w = values.tolist()
    return x, y, z, w


def _matched(frames: Mapping[int, Detections], truth: Tracks) -> Tracks:
    """Return the truth with the rows of the detections that it overlaps most in sum."""
    rows = truth.rows.copy()
    for frame, part in truth.by_frame():
        if frame in frames and len(frames[frame]):
            detections = frames[frame]
            overlap = overlaps(truth.boxes[part], detections.boxes)
            apart = truth.classes[part][:, None] != detections.classes
            rows[part] = match_positive(np.where(apart | (overlap < IOU), 0.0, overlap))
    return replace(truth, rows=rows)


@compiled
def _negative_log_likelihood(z: Floats, steps: Floats, errors: Floats, noise: Floats) -> Floats:
    filters, tracks = np.zeros((1, SPLIT)), np.zeros(len(z), np.int64)
    total, count = np.zeros(4), 0
    for d in range(len(z)):
        if steps[d] == 0:
            start(filters, 0, z, d, noise, errors, True)
            continue
        predict_split(filters, 1, noise, steps[d])
        count += 1
        for j in range(4):
            s = filters[0, 8 + 3 * j] + measurement_variance(noise, errors, d, j, filters[0, 3])
            v = z[d, j] - filters[0, j]
            total[j] += (np.log(s) + v * v / s + np.log(2 * np.pi)) / 2
        update_split(filters, tracks, z, d, d + 1, noise, errors)
    return total / count
