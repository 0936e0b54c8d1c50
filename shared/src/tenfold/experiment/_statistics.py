"""Intervals over seeds."""

from collections.abc import Sequence

import numpy as np


def interval(values: Sequence[float], confidence: float = 0.95) -> tuple[float, float]:
    """Bootstrap interval of the mean (bias-corrected and accelerated, fixed resampling seed).

    Parameters
    ----------
    values : sequence of float
        One value a seed, or one paired difference a seed.
    confidence : float
        Nominal coverage. With few seeds the real coverage is lower.

    Returns
    -------
    tuple of float
        Lower and upper end; ``(nan, nan)`` for fewer than two values.
    """
    if len(values) < 2:
        return (float("nan"), float("nan"))
    if min(values) == max(values):
        return (float(values[0]), float(values[0]))
    from scipy.stats import bootstrap

    result = bootstrap(
        (np.asarray(values, dtype=float),),
        np.mean,
        confidence_level=confidence,
        rng=np.random.default_rng(0),
    )
    return (float(result.confidence_interval.low), float(result.confidence_interval.high))


def estimate(values: Sequence[float], digits: int = 2) -> str:
    """Mean over seeds with its 95 % interval, as text: ``"97.12 [96.80, 97.31]"``.

    A single value stands alone, without an interval; no value at all is a dash.
    """
    if not values:
        return "–"
    mean = f"{np.mean(values):.{digits}f}"
    if len(values) < 2:
        return mean
    low, high = interval(values)
    return f"{mean} [{low:.{digits}f}, {high:.{digits}f}]"
