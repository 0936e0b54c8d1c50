"""Split conformal prediction: the size of intervals from errors on calibration data.

With s = abs(prediction - truth) / sigma on n calibration boxes, the quantile q is the score of rank
ceil((n + 1) (1 - alpha)), and a new score exchangeable with them is at most q with probability 1 - alpha
or a little more, whatever the distribution of the errors and however wrong sigma is.

The authors write that rank as NumPy's quantile at ceil((n + 1) (1 - alpha)) / n, "higher", which counts n - 1
steps and so takes the next score; where it differs, theirs is wider than it need be.

The rank exists only for n >= (1 - alpha) / alpha: 370 boxes for the paper's 0.9973. Below, the only
interval that keeps the promise is infinite, and the level is refused rather than lowered.

The promise is for one dimension at a time. Regions that hold all d at once:

    max-score     one quantile of max_j s_j / c_j, times c_j; c from other boxes than the quantile
    Bonferroni    each dimension at level 1 - alpha / d; larger where dimensions agree
"""

from __future__ import annotations

import math
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import ndtri

from mot_cup._boxes import Floats
from mot_cup.scores import check_level
from tenfold import DataError, SettingError, UnknownNameError

Region = Literal["each", "max-score", "bonferroni"]
REGIONS: tuple[Region, ...] = get_args(Region)
PAPER_LEVEL = 0.9973


def smallest_size(level: float) -> int:
    """Return how many calibration scores the level needs: 370 for 0.9973.

    Raises
    ------
    SettingError
        The level is not between 0 and 1.
    """
    check_level(level)
    size = max(1, math.floor(level / (1 - level)) - 1)
    while _rank(size, level) > size:
        size += 1
    return size


def conformal_quantiles(scores: ArrayLike, level: float = PAPER_LEVEL) -> Floats:
    """Return the quantile that a new score is within, for every dimension by itself.

    Parameters
    ----------
    scores : array_like
        Nonconformity scores, of shape (n, d), at least 0.
    level : float
        The nominal coverage 1 - alpha.

    Returns
    -------
    ndarray of float64
        Shape (d,).

    Raises
    ------
    DataError
        The scores are not of that shape, or one is negative or NaN.
    SettingError
        The level is not between 0 and 1, or needs more scores.
    """
    values = check_scores(scores)
    needed, n = smallest_size(level), len(values)
    if n < needed:
        raise SettingError(
            f"level {level:g} of {n} calibration scores",
            f"{needed} scores or more",
            f"Calibrate on more matched detections, or at {math.floor(1e4 * n / (n + 1)) / 1e4} or lower.",
        )
    return np.asarray(np.sort(values, axis=0)[_rank(n, level) - 1])


def bonferroni_quantiles(scores: ArrayLike, level: float = PAPER_LEVEL) -> Floats:
    """Return quantiles that new scores are within in all dimensions at once, each at 1 - alpha / d.

    Parameters, result and errors are those of `conformal_quantiles`; more scores are needed.
    """
    values = check_scores(scores)
    check_level(level)
    return conformal_quantiles(values, 1 - (1 - level) / values.shape[1])


def max_score_quantiles(scores: ArrayLike, level: float = PAPER_LEVEL) -> Floats:
    """Return quantiles that new scores are within in all dimensions at once, by the largest score.

    The medians of every second score make the dimensions comparable, and the others give the quantile.
    Taken from the same scores, the region would be too small.

    Parameters, result and errors are those of `conformal_quantiles`; twice the scores are needed.
    """
    values = check_scores(scores)
    scales = np.median(values[::2], axis=0) if len(values) else np.ones(values.shape[1])
    scales = np.where(scales > 0, scales, 1.0)
    return np.asarray(conformal_quantiles((values[1::2] / scales).max(axis=1)[:, None], level) * scales)


def region_quantiles(scores: ArrayLike, level: float = PAPER_LEVEL, region: Region = "each") -> Floats:
    """Return the quantiles of a kind of region.

    Parameters
    ----------
    scores, level
        As for `conformal_quantiles`.
    region : {"each", "max-score", "bonferroni"}

    Raises
    ------
    UnknownNameError
        There is no such region.
    DataError, SettingError
        As for `conformal_quantiles`.
    """
    check_region(region)
    functions = {
        "each": conformal_quantiles,
        "max-score": max_score_quantiles,
        "bonferroni": bonferroni_quantiles,
    }
    return functions[region](scores, level)


def scaled_sigma(sigma: ArrayLike, quantiles: ArrayLike, deviations: float = 3.0) -> Floats:
    """Return the standard deviation of a normal error that has the conformal interval: sigma q / 3.

    Parameters
    ----------
    sigma : array_like
        Of the detector, of shape (n, d).
    quantiles : array_like
        Shape (d,).
    deviations : float
        How many standard deviations the level is in a normal distribution: the paper's 3 at 0.9973;
        `normal_deviations` for others.
    """
    return np.asarray(np.asarray(sigma, dtype=np.float64) * np.asarray(quantiles) / deviations)


def normal_deviations(level: float = PAPER_LEVEL, region: Region = "each", dimensions: int = 4) -> float:
    """Return how many standard deviations a region of the level reaches for independent normal errors.

    Rounded to four digits, which makes it the paper's 3 at 0.9973.

    Parameters
    ----------
    level : float
    region : {"each", "max-score", "bonferroni"}
    dimensions : int
        Of the joint regions.

    Raises
    ------
    SettingError, UnknownNameError
        As for `region_quantiles`.
    """
    check_level(level)
    check_region(region)
    one = {"each": level, "max-score": level ** (1 / dimensions), "bonferroni": 1 - (1 - level) / dimensions}
    return round(float(ndtri((1 + one[region]) / 2)), 4)


def check_region(region: str) -> None:
    """Refuse an unknown kind of region."""
    if region not in REGIONS:
        raise UnknownNameError("region", region, REGIONS)


def check_scores(scores: ArrayLike) -> Floats:
    """Return scores as an array of shape (n, d), or refuse them."""
    values = np.asarray(scores, dtype=np.float64)
    if values.ndim != 2:
        raise DataError(f"scores of shape {values.shape}", "shape (boxes, dimensions)", "Reshape them.")
    if not (values >= 0).all():
        row = int(np.argmin((values >= 0).all(axis=1)))
        raise DataError(f"score {row} is {values[row].tolist()}", "0 or more", "Leave it out.")
    return values


def _rank(n: int, level: float) -> int:
    # 10 * 0.9 must not become 10 by a last digit.
    return math.ceil(round((n + 1) * level, 9))
