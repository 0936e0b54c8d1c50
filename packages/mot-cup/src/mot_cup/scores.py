"""How good predicted errors are: proper scores, coverage, and the consistency of a filter.

For an error e of a box and the standard deviation sigma that was predicted for it, both in one unit,

    NLL    log(sigma) + log(2 pi) / 2 + e^2 / (2 sigma^2)                    nats
    CRPS   sigma (z (2 Phi(z) - 1) + 2 phi(z) - 1 / sqrt(pi)),  z = e / sigma    the unit of e

and for an interval [-w, w] around the prediction at the nominal level 1 - alpha

    interval score    2 w + 2 / alpha max(abs(e) - w, 0)    (Winkler; Gneiting and Raftery 2007)

All three are proper: in expectation nothing scores below the truth. The NLL is of a density, so that its
zero means nothing and its sign turns with the unit; a difference of two NLLs does not depend on the unit,
a ratio says nothing. The CRPS and the interval score are lengths, and their ratios do not depend on it.

A filter is consistent when the squared error in its own covariance, NEES e' P^-1 e, or of its
innovation, NIS v' S^-1 v, has a chi-square distribution of as many degrees as e or v has dimensions.
NIS needs no truth.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from mot_cup._boxes import Floats
from tenfold import DataError, SettingError


def gaussian_nll(errors: ArrayLike, sigma: ArrayLike) -> Floats:
    """Return the negative log-likelihood of errors under normal distributions of mean 0, in nats.

    Parameters
    ----------
    errors, sigma : array_like
        Of shapes that broadcast, in one unit; `sigma` positive.

    Returns
    -------
    ndarray of float64
        One for every error. Independent dimensions add.

    Raises
    ------
    DataError
        A value is not finite, or a standard deviation is not positive.
    """
    e, s = _errors_and_sigma(errors, sigma)
    return np.asarray(np.log(s) + np.log(2 * np.pi) / 2 + (e / s) ** 2 / 2)


def joint_gaussian_nll(errors: ArrayLike, covariances: ArrayLike) -> Floats:
    """Return the negative log-likelihood of error vectors under normal distributions of mean 0, in nats.

    Parameters
    ----------
    errors : array_like
        Shape (n, d).
    covariances : array_like
        Shape (n, d, d), positive definite.

    Returns
    -------
    ndarray of float64
        Shape (n,).

    Raises
    ------
    DataError
        Shapes do not fit, or a covariance is not positive definite.
    """
    squares, log_determinants = _whiten(errors, covariances)
    dimensions = np.shape(errors)[1]
    return np.asarray((squares + log_determinants + dimensions * np.log(2 * np.pi)) / 2)


def gaussian_crps(errors: ArrayLike, sigma: ArrayLike) -> Floats:
    """Return the continuous ranked probability score of normal predictions, in the unit of the errors.

    Parameters and errors are those of `gaussian_nll`.
    """
    # Imported here, because scipy.special takes longer to import than all of this package.
    from scipy.special import ndtr

    e, s = _errors_and_sigma(errors, sigma)
    z = e / s
    density = np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi)
    return np.asarray(s * (z * (2 * ndtr(z) - 1) + 2 * density - 1 / np.sqrt(np.pi)))


def coverage(errors: ArrayLike, half_widths: ArrayLike) -> Floats:
    """Return the share of errors within the interval around the prediction, for every dimension.

    Parameters
    ----------
    errors : array_like
        Shape (n, ...).
    half_widths : array_like
        Of a shape that broadcasts to it; may be infinite.

    Returns
    -------
    ndarray of float64
        Shape (...).

    Raises
    ------
    DataError
        There are no errors, a value is NaN, or a width is negative.
    """
    e, w = _errors_and_widths(errors, half_widths)
    return np.asarray((np.abs(e) <= w).mean(axis=0))


def joint_coverage(errors: ArrayLike, half_widths: ArrayLike) -> float:
    """Return the share of error vectors, of shape (n, d), that are within the intervals in all dimensions.

    Parameters and errors are those of `coverage`.
    """
    e, w = _errors_and_widths(errors, half_widths)
    return float((np.abs(e) <= w).all(axis=tuple(range(1, e.ndim))).mean())


def interval_width(half_widths: ArrayLike) -> Floats:
    """Return the mean length of intervals, for every dimension: shape (n, ...) to (...)."""
    return np.asarray(2 * np.asarray(half_widths, dtype=np.float64).mean(axis=0))


def interval_score(errors: ArrayLike, half_widths: ArrayLike, level: float) -> Floats:
    """Return Winkler's score of intervals around predictions, in the unit of the errors.

    Parameters
    ----------
    errors, half_widths : array_like
        As for `coverage`.
    level : float
        The nominal coverage 1 - alpha.

    Returns
    -------
    ndarray of float64
        One for every error; infinite where the width is.

    Raises
    ------
    DataError
        As for `coverage`.
    SettingError
        The level is not between 0 and 1.
    """
    check_level(level)
    e, w = _errors_and_widths(errors, half_widths)
    return np.asarray(2 * w + 2 / (1 - level) * np.maximum(np.abs(e) - w, 0))


def nees(errors: ArrayLike, covariances: ArrayLike) -> Floats:
    """Return the normalised estimation error squared, e' P^-1 e.

    Parameters
    ----------
    errors : array_like
        Estimate minus truth, of shape (n, d).
    covariances : array_like
        Those of the filter, of shape (n, d, d), positive definite.

    Returns
    -------
    ndarray of float64
        Shape (n,).

    Raises
    ------
    DataError
        Shapes do not fit, or a covariance is not positive definite.
    """
    return _whiten(errors, covariances)[0]


def nis(innovations: ArrayLike, covariances: ArrayLike) -> Floats:
    """Return the normalised innovation squared, v' S^-1 v: `nees` of what needs no truth.

    Parameters
    ----------
    innovations : array_like
        Measurement minus its prediction, of shape (n, d).
    covariances : array_like
        H P H' + R before the update, of shape (n, d, d).
    """
    return nees(innovations, covariances)


def chi_square_bounds(count: int, dimensions: int, confidence: float = 0.95) -> tuple[float, float]:
    """Return between what the mean of `count` NEES or NIS lies in a consistent filter.

    Parameters
    ----------
    count : int
        How many independent values the mean is over. Those of one track are correlated in time when the
        filter is not consistent, so the test may only be read in one direction: outside means not consistent.
    dimensions : int
        Of an error or innovation.
    confidence : float

    Returns
    -------
    tuple of float
        Quantiles of chi-square of ``count * dimensions`` degrees over `count`. A mean below the first
        comes of covariances too large, one above the second of covariances too small.

    Raises
    ------
    SettingError
        A number is not positive, or the confidence is not between 0 and 1.
    """
    from scipy.special import gammaincinv

    check_level(confidence)
    if count < 1 or dimensions < 1:
        raise SettingError(
            f"{count} values of {dimensions} dimensions", "1 or more of both", "Correct the numbers."
        )
    tail = (1 - confidence) / 2
    # A chi-square variable is twice a gamma variable of half its degrees.
    low, high = (2 * float(gammaincinv(count * dimensions / 2, p)) / count for p in (tail, 1 - tail))
    return low, high


def check_level(level: float) -> None:
    """Refuse a nominal coverage that is not between 0 and 1."""
    if not 0 < level < 1:
        raise SettingError(f"a level of {level}", "a number between 0 and 1, both excluded", "Correct it.")


def _errors_and_sigma(errors: ArrayLike, sigma: ArrayLike) -> tuple[Floats, Floats]:
    e, s = np.asarray(errors, dtype=np.float64), np.asarray(sigma, dtype=np.float64)
    _refuse(np.isfinite(e).all(), "an error that is not finite", "finite errors")
    _refuse((np.isfinite(s) & (s > 0)).all(), "a standard deviation of 0, below or not finite", "above 0")
    return e, s


def _errors_and_widths(errors: ArrayLike, half_widths: ArrayLike) -> tuple[Floats, Floats]:
    e, w = np.asarray(errors, dtype=np.float64), np.asarray(half_widths, dtype=np.float64)
    _refuse(e.size > 0, "no errors", "one or more")
    _refuse(np.isfinite(e).all(), "an error that is not finite", "finite errors")
    _refuse((w >= 0).all(), "a half-width below 0 or NaN", "0 or more")
    return e, w


def _whiten(errors: ArrayLike, covariances: ArrayLike) -> tuple[Floats, Floats]:
    """Return e' P^-1 e and log det P."""
    e, P = np.asarray(errors, dtype=np.float64), np.asarray(covariances, dtype=np.float64)
    if e.ndim != 2 or P.shape != (*e.shape, e.shape[1]):
        raise DataError(
            f"errors of shape {e.shape}, covariances of {P.shape}", "(n, d) and (n, d, d)", "Correct them."
        )
    _refuse(np.isfinite(e).all() and np.isfinite(P).all(), "a value that is not finite", "finite ones")
    try:
        factors = np.linalg.cholesky(P)
    except np.linalg.LinAlgError as error:
        raise DataError(
            "a covariance that is singular or has a negative eigenvalue",
            "positive definite ones",
            "Leave out the dimensions that have no error.",
        ) from error
    whitened = np.linalg.solve(factors, e[:, :, None])[:, :, 0]
    log_determinants = 2 * np.log(np.diagonal(factors, axis1=1, axis2=2)).sum(axis=1)
    return np.asarray((whitened**2).sum(axis=1)), np.asarray(log_determinants)


def _refuse(fine: bool | np.bool_, came: str, expected: str) -> None:
    if not fine:
        raise DataError(came, expected, "Leave such detections out.")
