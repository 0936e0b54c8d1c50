"""Conformal control: adaptive conformal prediction that undoes its misses, in short streams too.

In `mot_cup._conformal.adaptive` a stream keeps a gap for as long as its path is away from where it began.
Conformal PI control (Angelopoulos, Candes and Tibshirani 2023) adds to a forecast of the quantile what the
misses so far have summed up to. Here the path is the logarithm of the odds of the level,

    theta <- theta + eta sum_i (miss of q(theta)_i - alpha) / m    the forecast: quantile tracking by itself
    E     <- E + sum_i (miss_i - alpha)                            the misses of the intervals that were used
    q(u), u = theta + k E / m,

over the labels i of a frame, m the mean number of labels in a frame so far: those of a frame come together,
and where there are many, each has to move the path less for the same delay. Between the ranks of the n
calibration scores q(u) is the conformal quantile at the level 1 / (1 + exp(-u)); beyond them log q goes on as
u does, so that it is always finite and never empty. The forecast stays between the ranks.

Whatever the data, as long as scores lie between q(a) and q(b), no interval misses once E > m (b - theta) / k,
and every one does once E < m (a - theta) / k. With N the most labels in a frame, abs(E) thus stays below
N ((b - a) / k + 1), and the coverage over n labels is within that over n of the level. Of the forecast it
needs no more than that it lies between a and b: it is there for the width. In the paper the term of E grows
without bound at a finite E, which gives the same of scores known to be bounded, and infinite intervals.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import product

import numpy as np
from numpy.typing import ArrayLike

from mot_cup._boxes import Floats
from mot_cup._compiled import compiled
from mot_cup._conformal.online import OnlineConformal, Stream, best
from mot_cup._tracks import Ints
from tenfold import SettingError

GAINS = (0.5, 1.0, 1.5, 2.0, 3.0, 4.0)
# Of the forecast, over the gain.
SHARES = (0.0, 0.1, 0.2, 0.4, 0.8)


class ConformalControl(OnlineConformal):
    """Conformal quantiles that follow one stream and bring its share of misses back to alpha.

    Parameters
    ----------
    calibration : array_like
        Scores of calibration data, of shape (n, d).
    level : float
        The nominal coverage 1 - alpha, of every dimension.
    gain : float or array_like
        k, how far a frame's misses move the path until others make up for them; for all dimensions or each.
    step : float or array_like
        Eta, how far they move the forecast. With 0 for both this is split conformal. Choose the two on other
        scenes, by `choose_gains`.

    Attributes
    ----------
    quantiles : ndarray of float64
        Shape (d,): those of the next frame, to be multiplied by its sigma; finite and, unless a calibration
        score is 0, above 0.

    Raises
    ------
    DataError
        The scores are not of that shape, or one is negative or NaN.
    SettingError
        A gain or step is negative, or the level is not between 0 and 1 or needs more scores.

    Notes
    -----
    A tracker gets its covariances by ``dataclasses.replace(calibration, quantiles=control.quantiles[None])``,
    `calibration` of the same level and space.

    Examples
    --------
    >>> control = ConformalControl(np.arange(1.0, 100.0)[:, None], level=0.9, gain=1.0)
    >>> control.quantiles.tolist()
    [90.0]
    >>> control.update([[91.0]])
    >>> control.quantiles.tolist()
    [97.0]
    """

    def __init__(
        self, calibration: ArrayLike, *, level: float = 0.9, gain: ArrayLike = 2.0, step: ArrayLike = 0.2
    ) -> None:
        super().__init__(calibration, level)
        gains = [np.asarray(value, dtype=np.float64) for value in (gain, step)]
        if not all((np.isfinite(value) & (value >= 0)).all() for value in gains):
            raise SettingError(
                f"a gain of {gains[0].tolist()} and a step of {gains[1].tolist()}",
                "0 or more",
                "Choose them by choose_gains.",
            )
        shape = self.quantiles.shape
        self.gain, self.step = (np.broadcast_to(value, shape).copy() for value in gains)
        self._forecast, self._excess = np.full(shape, np.log(level / (1 - level))), np.zeros(shape)
        self._seen = np.zeros(2, np.int64)

    def _take(self, scores: Floats, starts: Ints) -> Floats:
        return _control(
            self._sorted,
            scores,
            starts,
            self.quantiles,
            self._forecast,
            self._excess,
            self._seen,
            self.gain,
            self.step,
            1 - self.level,
        )


def choose_gains(
    streams: Sequence[tuple[Stream, ArrayLike]],
    *,
    level: float = 0.9,
    gains: Sequence[float] = GAINS,
    shares: Sequence[float] = SHARES,
) -> tuple[Floats, Floats]:
    """Choose k and eta for every dimension on streams of scenes other than that where they will be used.

    As `choose_step` chooses: of those whose mean interval score is not above split conformal's, the pair with
    the least where the streams' gaps are at most 0.3 points in root mean square, else that with the
    smallest gaps; 0 and 0 where none is.

    Parameters
    ----------
    streams : sequence of tuple
        A stream and the calibration scores for it, of shape (m, d), which must be of further scenes.
    level : float
        As for `ConformalControl`.
    gains : sequence of float
        Those to try.
    shares : sequence of float
        What is tried for eta, over the gain.

    Returns
    -------
    gain, step : ndarray of float64
        Shape (d,).

    Raises
    ------
    DataError
        There are no streams.
    """
    tried = np.array([(0.0, 0.0), *((gain, share * gain) for gain, share in product(gains, shares))])
    forms = [partial(ConformalControl, level=level, gain=gain, step=step) for gain, step in tried.tolist()]
    gain, step = tried[best(streams, forms)].T
    return gain, step


@compiled
def _control(
    ordered: Floats,
    scores: Floats,
    starts: Ints,
    quantiles: Floats,
    forecast: Floats,
    excess: Floats,
    seen: Ints,
    gain: Floats,
    step: Floats,
    alpha: float,
) -> Floats:
    """Take frames, as `OnlineConformal` says, and overwrite the state, four arrays from `quantiles` on."""
    used, end = np.empty_like(scores), np.log(float(len(ordered)))
    for frame in range(len(starts) - 1):
        first, last = starts[frame], starts[frame + 1]
        seen[0] += 1
        seen[1] += last - first
        mean = seen[1] / seen[0]
        for d in range(len(quantiles)):
            expected, ahead = quantiles[d], _at_odds(ordered, d, forecast[d])
            missed = foreseen = -alpha * (last - first)
            for row in range(first, last):
                used[row, d] = expected
                missed += scores[row, d] > expected
                foreseen += scores[row, d] > ahead
            excess[d] += missed
            forecast[d] = min(max(forecast[d] + step[d] * foreseen / mean, -end), end)
            quantiles[d] = _at_odds(ordered, d, forecast[d] + gain[d] * excess[d] / mean)
    return used


@compiled
def _at_odds(ordered: Floats, d: int, path: float) -> float:
    """Return the quantile of a column of ordered scores at a logarithm of the odds of the level."""
    n = len(ordered)
    end = np.log(float(n))
    rank = int(np.ceil(np.round((n + 1) / (1 + np.exp(-path)), 9)))
    beyond = path - end if path > end else min(path + end, 0.0)
    return float(ordered[min(max(rank, 1), n) - 1, d] * np.exp(beyond))
