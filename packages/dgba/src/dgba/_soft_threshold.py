"""Soft thresholding with the universal threshold.

From y = theta + noise, with independent noise of standard deviation sigma, estimate

    theta_i = sign(y_i) max(|y_i| - t, 0),    t = sigma sqrt(2 log n).

Donoho and Johnstone, "Ideal spatial adaptation by wavelet shrinkage", Biometrika 81(3), 1994. The
paper applies it to wavelet coefficients; here y is any vector.
"""

import math

import numpy as np
from numpy.typing import NDArray

from tenfold import SettingError


def soft_threshold(y: NDArray[np.float64], threshold: float) -> NDArray[np.float64]:
    """Move every entry towards zero by `threshold`, and no further.

    This is the minimiser of ``(x - y)**2 / 2 + threshold * abs(x)``.

    Parameters
    ----------
    y : ndarray of float64
        Of any shape.
    threshold : float
        In the unit of `y`.

    Returns
    -------
    ndarray of float64
        Of the shape of `y`.

    Raises
    ------
    SettingError
        `threshold` is negative or NaN.
    """
    if not threshold >= 0:
        raise SettingError(f"threshold is {threshold}", "a number from 0 up", "Give its absolute value.")
    shrunk: NDArray[np.float64] = np.sign(y) * np.maximum(np.abs(y) - threshold, 0.0)
    return shrunk


def universal_threshold(n: int, sigma: float = 1.0) -> float:
    """Return the threshold that noise alone exceeds with a probability that vanishes as `n` grows.

    Parameters
    ----------
    n : int
        Number of entries.
    sigma : float
        Standard deviation of the noise.

    Raises
    ------
    SettingError
        `n` is below 1, or `sigma` is not positive.
    """
    if n < 1 or not sigma > 0:
        raise SettingError(f"n is {n} and sigma is {sigma}", "n from 1 up, sigma above 0", "Correct them.")
    return sigma * math.sqrt(2 * math.log(n))
