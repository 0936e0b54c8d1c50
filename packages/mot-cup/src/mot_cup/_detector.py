"""A simulated detector: what it misses, how far its boxes are off, and how sure it is.

In a car's own frame the errors along and across it, of its length and of its width are independent normal
numbers of standard deviations

    sigma_k = stds_k exp(spread g) / sqrt(mean of exp(2 spread g)),

where g, of mean 0 and standard deviation 1 over all cars seen, is how hard a car is to measure: it grows with
the distance and with the share of the car that is hidden, and has a part that neither explains. So the spread
moves uncertainty between detections and leaves their mean square error as it is; at 0 all are alike.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray
from scipy.signal import lfilter

from mot_cup._boxes import Floats
from tenfold import SettingError

FAR_MISSES = 0.3
"""Share of the cars at the end of the reach that are missed for their distance."""
SCORE, SCORE_SLOPE, SCORE_CHANCE = 4.0, 1.5, 1.0
"""Log-odds of a score: mean, loss for a standard deviation of difficulty, and deviation from that."""
FALSE_SCORE, FALSE_CHANCE = 0.0, 1.2
"""Log-odds of a false alarm's score: mean and standard deviation."""


@dataclass(frozen=True)
class Noise:
    """Errors of a detector's boxes.

    By default `stds`, `spread` and `per_metre` are those that ``python examples/fit_noise.py FOLDER`` finds
    for the detector of V2X-Sim. Its files do not tell what is hidden: how the rest of the spread is divided
    is ours. They also show an `error_memory` of 0.73; ours is 0, as Kalman filters suppose.

    Parameters
    ----------
    stds : tuple of float
        Root mean square errors along and across a car, of its length and of its width, in metres.
    spread : float
        Standard deviation of the logarithm of a detection's standard deviations; 0 makes all alike.
    per_metre, occlusion, chance : float
        What makes a car hard to measure, in proportion: a metre of distance, being hidden wholly, and a
        standard deviation of what neither explains.
    chance_memory : float
        Correlation of that last part from a frame to the next, of one car for one agent.
    error_memory : float
        Correlation of errors from a frame to the next. Covariances do not tell of it.
    heading : float
        Root mean square error of a rotated box's heading, in radians.

    Raises
    ------
    SettingError
        A number is negative or not finite, a memory not below 1, or nothing is to explain the spread.
    """

    stds: tuple[float, float, float, float] = (0.137, 0.057, 0.244, 0.173)
    spread: float = 0.57
    per_metre: float = 0.023
    occlusion: float = 1.0
    chance: float = 0.42
    chance_memory: float = 0.9
    error_memory: float = 0.0
    heading: float = 0.03

    def __post_init__(self) -> None:
        for item in fields(self):
            values = np.atleast_1d(getattr(self, item.name))
            most = 1.0 if item.name.endswith("memory") else np.inf
            if not ((values >= 0) & (values < most)).all():
                raise SettingError(
                    f"{item.name} of noise is {getattr(self, item.name)}",
                    f"numbers from 0 to below {most:g}",
                    "Correct it.",
                )
        if self.spread and not any((self.per_metre, self.occlusion, self.chance)):
            raise SettingError(
                "noise that spreads for no reason",
                "a positive per_metre, occlusion or chance",
                "Set spread to 0 for errors that are all alike.",
            )


@dataclass(frozen=True)
class Measurements:
    """What detectors make of cars; the first three axes are detector, frame and car.

    Attributes
    ----------
    found : ndarray of bool
    factors : ndarray of float64
        Of the standard deviations of `Noise`.
    errors : ndarray of float64
        Along, across, of the length, of the width and of the heading, in metres and radians.
    scores : ndarray of float64
    """

    found: NDArray[np.bool_]
    factors: Floats
    errors: Floats
    scores: Floats


def measure(
    noise: Noise,
    shares: Floats,
    distances: Floats,
    reach: float,
    detection_rate: float,
    correlation: float,
    generator: np.random.Generator,
) -> Measurements:
    """Let detectors measure cars.

    Parameters
    ----------
    noise : Noise
    shares : ndarray of float64
        Of each car that a detector sees, of shape (detectors, frames, cars).
    distances : ndarray of float64
        In metres, of the same shape.
    reach : float
        Distance at which `FAR_MISSES` are missed.
    detection_rate : float
        Of cars that are near and wholly seen.
    correlation : float
        Between the errors of two detectors for one car.
    generator : numpy.random.Generator
    """
    chance = _persistent(generator.normal(size=shares.shape), noise.chance_memory)
    reasons = noise.per_metre * distances + noise.occlusion * (1 - shares) + noise.chance * chance
    seen = shares > 0
    difficulties = np.zeros(shares.shape)
    if seen.any() and reasons[seen].std() > 0:
        difficulties = (reasons - reasons[seen].mean()) / reasons[seen].std()
    factors = np.exp(noise.spread * difficulties)
    if seen.any():
        factors = factors / np.sqrt((factors[seen] ** 2).mean())
    common = generator.normal(size=(*shares.shape[1:], 5))
    own = generator.normal(size=(*shares.shape, 5))
    standard = _persistent(np.sqrt(correlation) * common + np.sqrt(1 - correlation) * own, noise.error_memory)
    rates = detection_rate * shares * (1 - FAR_MISSES * (np.minimum(distances, reach) / reach) ** 2)
    odds = SCORE - SCORE_SLOPE * difficulties + SCORE_CHANCE * generator.normal(size=shares.shape)
    return Measurements(
        generator.random(shares.shape) < rates,
        factors,
        factors[..., None] * standard * np.array([*noise.stds, noise.heading]),
        1 / (1 + np.exp(-odds)),
    )


def false_scores(count: int, generator: np.random.Generator) -> Floats:
    """Return scores of false alarms."""
    return 1 / (1 + np.exp(-generator.normal(FALSE_SCORE, FALSE_CHANCE, count)))


def _persistent(values: Floats, memory: float) -> Floats:
    """Correlate standard normal numbers along the frames, the second axis, and leave each standard normal."""
    fresh = np.sqrt(1 - memory**2)
    scaled = np.concatenate([values[:, :1], fresh * values[:, 1:]], axis=1)
    result: Floats = lfilter([1.0], [1.0, -memory], scaled, axis=1)
    return result
