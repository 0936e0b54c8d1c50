"""The noise of a simulated detector, from what a real one gets wrong.

If an error is e_k = s_k exp(spread g) z_k, with g and the z_k independent standard normal numbers, then

    cov(log|e_j|, log|e_k|) = spread^2    for j != k,
    mean(log|e_k|) = log s_k + mean(log|z|),    mean(log|z|) = -(gamma + log 2) / 2,

and the root mean square of e_k is s_k exp(spread^2). Logarithms make little of outliers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

import numpy as np

from mot_cup._assignment import assign_within
from mot_cup._boxes import Floats, to_space
from mot_cup._detections import Detections
from mot_cup._detector import Noise
from mot_cup._matching import overlaps
from mot_cup._tracks import Tracks
from tenfold import DataError

MATCHED = 0.3
"""Least overlap of a detection and its truth."""
LONG = 1.3
"""Ratio of sides from which a box shows which way its car points."""
ROUNDING = 0.01
"""Share of the median error below which errors are taken for rounded ones."""
LEAST = 100
"""Errors to fit to."""


def fit_noise(
    sequences: Iterable[tuple[Mapping[int, Detections], Tracks]],
    *,
    metres_per_unit: float,
    sensor: tuple[float, float] | None = None,
) -> Noise:
    """Fit the errors of detections of cars seen from above, by their logarithms' moments.

    Cars that are not along an axis are left out: an axis-aligned box does not tell along from across there.

    Parameters
    ----------
    sequences : iterable of (mapping from frame to Detections, Tracks)
        Detections and truth, in one unit, true boxes matched by their overlap.
    metres_per_unit : float
        Metres that a unit of the boxes is: 0.25 for V2X-Sim's pixels.
    sensor : tuple of float, optional
        Where the sensor is, in the boxes' unit, to find how errors grow with the distance, and to leave out
        the car that carries it.

    Returns
    -------
    Noise
        With `stds` and `spread`, the `error_memory` between boxes of one identity in frames that follow each
        other, and `per_metre` where the sensor is known. The rest is as by default.

    Raises
    ------
    DataError
        Fewer than 100 detections match.
    """
    errors, places, links = _residuals(sequences, sensor)
    if len(errors) < LEAST:
        raise DataError(
            f"{len(errors)} detections of cars along an axis that overlap their truth",
            f"{LEAST} or more",
            "Give more sequences, or correct their unit.",
        )
    sizes = np.abs(errors)
    logs = np.log(np.maximum(sizes, ROUNDING * np.median(sizes, axis=0)))
    covariance = np.cov(logs.T)
    spread = float(np.sqrt(max(0.0, covariance[~np.eye(4, dtype=bool)].mean())))
    typical = np.exp(logs.mean(0) + (np.euler_gamma + np.log(2)) / 2)
    stds = typical * np.exp(spread**2) * metres_per_unit
    memory = 0.0
    if len(links):
        standard = errors / typical
        # Signs, for outliers: of normal numbers with correlation r they have 2 / pi arcsin r.
        signs = float((np.sign(standard[links[:, 0]]) * np.sign(standard[links[:, 1]])).mean())
        memory = min(max(0.0, float(np.sin(np.pi / 2 * signs))), 0.99)
    along, across, length, width = stds.tolist()
    noise = Noise(stds=(along, across, length, width), spread=spread, error_memory=memory)
    if sensor is None:
        return noise
    distances = np.linalg.norm(places - np.array(sensor), axis=1) * metres_per_unit
    slope = float(np.cov(distances, logs.mean(1))[0, 1] / distances.var(ddof=1))
    return replace(noise, per_metre=max(0.0, slope))


def _residuals(
    sequences: Iterable[tuple[Mapping[int, Detections], Tracks]], sensor: tuple[float, float] | None
) -> tuple[Floats, Floats, np.ndarray]:
    """Return errors along, across, of length and of width, true centres, and rows of one car that follow."""
    errors, places, links = [np.empty((0, 4))], [np.empty((0, 2))], []
    total = 0
    for detections, truth in sequences:
        before: dict[int, int] = {}
        last = None
        for frame, rows in truth.by_frame():
            now: dict[int, int] = {}
            found = detections.get(frame)
            if found is not None and len(found):
                true = np.ascontiguousarray(truth.boxes[rows])
                columns = assign_within(-overlaps(true, found.boxes), -MATCHED)
                centred = to_space(true, "xywh")
                ratios = centred[:, 2] / centred[:, 3]
                upright = ratios < 1
                clear = (columns >= 0) & (np.maximum(ratios, 1 / ratios) > LONG)
                if sensor is not None:
                    clear &= ((true[:, :2] > sensor) | (true[:, 2:] < sensor)).any(1)
                off = to_space(found.boxes, "xywh")[columns] - centred
                off[upright] = off[upright][:, [1, 0, 3, 2]]
                errors.append(off[clear])
                places.append(centred[clear, :2])
                for identity in truth.ids[rows][clear].tolist():
                    now[identity] = total
                    if last == frame - 1 and identity in before:
                        links.append((before[identity], total))
                    total += 1
            before, last = now, frame
    return np.concatenate(errors), np.concatenate(places), np.array(links, dtype=np.int64).reshape(-1, 2)
