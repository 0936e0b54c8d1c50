"""The exact trade-off of the Gaussian mechanism.

Two neighbouring data sets whose releases are N(0, I) and N(mu, I) along the direction that tells
them apart best, mu = sensitivity / standard deviation, are (eps, delta)-indistinguishable exactly
when (Balle and Wang, ICML 2018; Dong, Roth and Su, 2022)

    delta >= Phi(mu/2 - eps/mu) - e^eps Phi(-mu/2 - eps/mu).
"""

import math

from scipy.optimize import brentq
from scipy.special import log_ndtr, ndtr

from tenfold import SettingError


def gaussian_delta(mu: float, epsilon: float) -> float:
    """Return the least delta at which a mu-Gaussian mechanism is (epsilon, delta)-DP.

    Parameters
    ----------
    mu : float
        Sensitivity over standard deviation, 0 to infinity.
    epsilon : float
        Not negative.

    Raises
    ------
    SettingError
        A number is out of its range.
    """
    _check(mu, "mu")
    _check(epsilon, "epsilon")
    if mu == 0:
        return 0.0
    if math.isinf(mu):
        return 1.0
    ratio = epsilon / mu
    tail = math.exp(min(0.0, epsilon + log_ndtr(-mu / 2 - ratio)))
    return max(0.0, float(ndtr(mu / 2 - ratio)) - tail)


def gaussian_epsilon(mu: float, delta: float) -> float:
    """Return the least epsilon at which a mu-Gaussian mechanism is (epsilon, delta)-DP.

    Parameters
    ----------
    mu : float
        Sensitivity over standard deviation, 0 to infinity.
    delta : float
        Between 0 and 1, both excluded.

    Returns
    -------
    float
        Infinite when `mu` is.

    Raises
    ------
    SettingError
        A number is out of its range.
    """
    check_delta(delta)
    if gaussian_delta(mu, 0.0) <= delta:
        return 0.0
    if math.isinf(mu):
        return math.inf
    # At this epsilon the first term alone, exp(-t^2 / 2) at most, is below delta.
    highest = mu * mu / 2 + mu * math.sqrt(2 * math.log(1 / delta)) + 1.0
    return float(brentq(lambda epsilon: gaussian_delta(mu, epsilon) - delta, 0.0, highest, xtol=1e-12))


def check_delta(delta: float) -> None:
    """Raise SettingError unless delta lies between 0 and 1, both excluded."""
    if not 0 < delta < 1:
        raise SettingError(
            f"delta is {delta}",
            "a number between 0 and 1, both excluded",
            "1e-5 is common.",
        )


def _check(value: float, name: str) -> None:
    if not value >= 0:
        raise SettingError(f"{name} is {value}", "0 or more", f"Give a {name} that is not negative.")
