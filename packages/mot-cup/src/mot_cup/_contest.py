"""Three ways to run one tracker, two of which are to be tuned alike.

    default      SORT as published
    constant     SORT in x, y, width and height, with constant noise: how sure a detection is of itself is not
                 looked at, as much as that can be made of it
    covariance   the same with the covariances of the detections

Most of what a first comparison with the default shows is due to any sensible R, Q and gate. What
uncertainty is worth is the difference between the last two, each found by the same search
(`mot_cup._contest_search`). All that needs no covariance of a detection is open to both.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from mot_cup._association import Stage
from mot_cup._detections import Detections
from mot_cup._noise import Noise
from mot_cup._sort import Sort
from mot_cup._tracks import Tracks
from mot_cup.metrics import Scores

METHODS = {
    "default": "SORT, as published",
    "constant": "SORT, constant noise, tuned",
    "covariance": "SORT, covariances of the detections, tuned",
}
HEIGHT = 18
"""Pixels of a car's length from above: what per-height noise is a share of."""
SPACE: Mapping[str, tuple[float, ...]] = {
    "measurement": (0.3, 0.6, 1.0, 1.5, 2.0),
    "position": (0.02, 0.05, 0.1, 0.2, 0.4),
    "velocity": (0.05, 0.1, 0.2, 0.3, 0.6, 1.0),
    "size_measurement": (0.5, 1.0, 2.0),
    "size_process": (0.03, 0.1, 0.3, 1.0),
    "overlap": (0.01, 0.05, 0.1, 0.2, 0.3),
    "distance": (0.0, 16.0, 30.0, 60.0),
    "max_age": (1, 3, 6, 10, 20),
    "min_hits": (0, 1, 2, 3),
    "coast": (0, 2, 4, 8, 20),
    "begin_score": (0.0, 0.6, 0.7, 0.8, 0.9, 0.95),
}
"""Values of a `Candidate`, in order."""
Space = Mapping[str, tuple[Any, ...]]


@dataclass(frozen=True)
class Candidate:
    """What a draw fixes.

    Attributes
    ----------
    frames : str
        Which of a clip's frames: a key of `Clip.frames`.
    measurement, position, velocity : float
        Standard deviations of a measurement, and of a frame's change of position and of velocity, in pixels.
    size_measurement, size_process : float
        What multiplies them for width and height.
    overlap : float
        Gate of the first stage of association.
    distance : float
        Squared Mahalanobis distance that is the gate of a second stage; 0 for none.
    max_age, min_hits, coast, begin_score : float
        Of `Sort`; no track coasts for longer than its age.
    """

    frames: str
    measurement: float
    position: float
    velocity: float
    size_measurement: float
    size_process: float
    overlap: float
    distance: float
    max_age: float
    min_hits: float
    coast: float
    begin_score: float


@dataclass(frozen=True)
class Clip:
    """A sequence to track, and how its tracks are judged.

    Attributes
    ----------
    group, view : str
        The scene, and who watches it.
    frames : mapping of str to mapping of int to Detections
        The same sequence, made ready in several ways.
    score : callable
        From tracks to their scores.
    """

    group: str
    view: str
    frames: Mapping[str, Mapping[int, Detections]]
    score: Callable[[Tracks], Scores]


def draw(space: Space, count: int, generator: np.random.Generator) -> list[Candidate]:
    """Draw candidates from a space, which has values for each of their attributes."""
    return [
        Candidate(**{name: values[generator.integers(len(values))] for name, values in space.items()})
        for _ in range(count)
    ]


def tracker(method: str, candidate: Candidate, per_height: bool = False) -> Sort:
    """Return the tracker of a method.

    Parameters
    ----------
    method : str
        A key of `METHODS`.
    candidate : Candidate
    per_height : bool
        Noise in proportion to the height of a box, where perspective makes near ones larger.
    """
    if method == "default":
        return Sort()
    stages = [Stage("iou", candidate.overlap)]
    if candidate.distance:
        stages.append(Stage("mahalanobis", candidate.distance))
    deviations = {
        "measurement": candidate.measurement,
        "process": candidate.position,
        "process_velocity": candidate.velocity,
        "first": 2 * candidate.measurement,
        "first_velocity": 8.0,
    }
    rows: dict[str, Any] = {}
    for name, deviation in deviations.items():
        key, unit = (f"{name}_fraction", HEIGHT) if per_height else (name, 1)
        size = candidate.size_process if name.startswith("process") else candidate.size_measurement
        rows[key] = ((deviation / unit) ** 2,) * 2 + ((size * deviation / unit) ** 2,) * 2
    return Sort(
        max_age=candidate.max_age,
        min_hits=int(candidate.min_hits),
        stages=stages,
        state="xywh",
        noise=Noise(**rows),
        begin_score=candidate.begin_score,
        coast=min(candidate.coast, candidate.max_age),
        uncertainty="covariance" if method == "covariance" else "off",
    )


def judge(method: str, candidate: Candidate, clip: Clip, per_height: bool = False) -> Scores:
    """Return the scores of a method on a clip."""
    return clip.score(tracker(method, candidate, per_height).track(clip.frames[candidate.frames]))
