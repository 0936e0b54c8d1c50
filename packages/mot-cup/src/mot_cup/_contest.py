"""Three ways to run one tracker, and the search that tunes two of them alike.

    default      SORT as published
    constant     SORT in x, y, width and height, with constant noise: how sure a detection is of itself is not
                 looked at, as much as that can be made of it
    covariance   the same with the covariances of the detections

Most of what a first comparison with the default shows is due to any sensible R, Q and gate. What
uncertainty is worth is the difference between the last two, each the best of the same number of draws.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mot_cup._association import Stage
from mot_cup._detections import Detections
from mot_cup._noise import Noise
from mot_cup._sort import Sort
from mot_cup._tracks import Tracks
from mot_cup.metrics import Scores, combine

METHODS = {
    "default": "SORT, as published",
    "constant": "SORT, constant noise, tuned",
    "covariance": "SORT, covariances of the detections, tuned",
}
HEIGHT = 18
"""Pixels of a car's length from above: what per-height noise is a share of."""
SPACE: Mapping[str, tuple[float, ...]] = {
    "measurement": (0.3, 0.6, 1.0, 1.5, 2.0),
    "position": (0.05, 0.1, 0.2, 0.4),
    "velocity": (0.1, 0.3, 0.6, 1.0),
    "overlap": (0.01, 0.05, 0.1, 0.2, 0.3),
    "distance": (0.0, 16.0, 30.0, 60.0),
    "max_age": (1, 3, 6, 10, 20),
    "min_hits": (0, 1, 2, 3),
}


@dataclass(frozen=True)
class Candidate:
    """What a draw fixes.

    Attributes
    ----------
    frames : str
        Which of a clip's frames: a key of `Clip.frames`.
    measurement, position, velocity : float
        Standard deviations of a measurement, and of a frame's change of position and of velocity, in pixels.
    overlap : float
        Gate of the first stage of association.
    distance : float
        Squared Mahalanobis distance that is the gate of a second stage; 0 for none.
    max_age, min_hits : float
        Of SORT.
    """

    frames: str
    measurement: float
    position: float
    velocity: float
    overlap: float
    distance: float
    max_age: float
    min_hits: float


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


def draw(kinds: Sequence[str], count: int, generator: np.random.Generator) -> list[Candidate]:
    """Draw candidates, of frames made ready in one of the ways `kinds`, from `SPACE`."""
    return [
        Candidate(
            str(generator.choice(kinds)),
            **{name: float(generator.choice(values)) for name, values in SPACE.items()},
        )
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
        rows[key] = ((deviation / unit) ** 2,) * 4
    return Sort(
        max_age=candidate.max_age,
        min_hits=int(candidate.min_hits),
        stages=stages,
        state="xywh",
        noise=Noise(**rows),
        uncertainty="covariance" if method == "covariance" else "off",
    )


def judge(method: str, candidate: Candidate, clip: Clip, per_height: bool = False) -> Scores:
    """Return the scores of a method on a clip."""
    return clip.score(tracker(method, candidate, per_height).track(clip.frames[candidate.frames]))


def best(scores: Sequence[Sequence[Scores]]) -> int:
    """Return which candidate has the highest HOTA over its clips together."""
    return int(np.argmax([combine(of_clips)["HOTA"] for of_clips in scores]))
