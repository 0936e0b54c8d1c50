"""Adaptive conformal prediction: intervals that keep their coverage on a stream that is not exchangeable.

Split conformal holds on average over what is like the calibration data; one scene can be far off. Gibbs
and Candes (2021) let the level follow the misses. When the n_t labels of frame t are known, *after* its
intervals were used,

    level      alpha <- alpha_t + eta sum_i (alpha - miss_i),   q = the quantile at 1 - alpha_t
    quantile   log q <- log q_t + eta sum_i (miss_i - alpha)

The sums telescope: over n boxes the share of misses differs from alpha by the change of the path over
eta n, whatever the data. In the first, the paper's, alpha_t can leave [0, 1], where the interval is
infinite or empty. The second, the quantile tracking of Angelopoulos, Candes and Tibshirani (2023) in
logarithms, is always finite and never empty, and starts from the same quantile. Every label moves the
path, so that a frame counts as much as it holds.

A stream whose quantile is far from the calibration's has its gap for as long as the path stays there, which
in a short one is all of its time: `mot_cup._conformal.control` brings that back, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike

from mot_cup._boxes import Floats
from mot_cup._conformal.online import OnlineConformal, Stream, best
from mot_cup._tracks import Ints
from tenfold import SettingError, UnknownNameError

Tracked = Literal["level", "quantile"]
TRACKED: tuple[Tracked, ...] = get_args(Tracked)
STEPS: dict[Tracked, tuple[float, ...]] = {
    "level": (0.002, 0.005, 0.01, 0.02, 0.03),
    "quantile": (0.05, 0.1, 0.15, 0.2, 0.3, 0.4),
}


class AdaptiveConformal(OnlineConformal):
    """Conformal quantiles that follow one stream by its misses.

    Parameters
    ----------
    calibration : array_like
        Scores of calibration data, of shape (n, d).
    level : float
        The nominal coverage 1 - alpha, of every dimension.
    step : float or array_like
        Eta, how far one label moves the path; for all dimensions or each of the d. 0 is split conformal.
        Choose it on other scenes, by `choose_step`.
    tracked : {"quantile", "level"}
        What moves.

    Attributes
    ----------
    quantiles : ndarray of float64
        Shape (d,): those of the next frame, to be multiplied by its sigma.

    Raises
    ------
    DataError
        The scores are not of that shape, or one is negative or NaN.
    SettingError
        A step is negative, or the level is not between 0 and 1 or needs more scores.
    UnknownNameError
        Nothing of that name is tracked.

    Notes
    -----
    A tracker gets its covariances by ``dataclasses.replace(calibration, quantiles=adaptive.quantiles[None])``
    where the quantile is tracked, which is always finite; `calibration` is of the same level and space.

    Examples
    --------
    >>> adaptive = AdaptiveConformal(np.ones((100, 4)), level=0.9, step=0.1)
    >>> adaptive.quantiles.tolist()
    [1.0, 1.0, 1.0, 1.0]
    >>> adaptive.update([[2.0, 0.5, 0.5, 0.5]])
    >>> adaptive.quantiles.round(3).tolist()
    [1.094, 0.99, 0.99, 0.99]
    """

    def __init__(
        self,
        calibration: ArrayLike,
        *,
        level: float = 0.9,
        step: ArrayLike = 0.1,
        tracked: Tracked = "quantile",
    ) -> None:
        if tracked not in TRACKED:
            raise UnknownNameError("tracked value", tracked, TRACKED)
        eta = np.asarray(step, dtype=np.float64)
        if not (eta >= 0).all() or not np.isfinite(eta).all():
            raise SettingError(f"a step of {eta.tolist()}", "0 or more", "Choose one by choose_step.")
        super().__init__(calibration, level)
        self.step, self.tracked = eta, tracked
        # Kept apart from the quantiles: below rank 1 and above rank n the path must remember how far it is.
        self._miss_level = np.full(len(self.quantiles), 1 - level)

    def _take(self, scores: Floats, starts: Ints) -> Floats:
        used = np.empty_like(scores)
        for start, end in pairwise(starts.tolist()):
            used[start:end] = self.quantiles
            self._move(((scores[start:end] > self.quantiles) - (1 - self.level)).sum(axis=0))
        return used

    def _move(self, excess: Floats) -> None:
        if self.tracked == "quantile":
            self.quantiles = self.quantiles * np.exp(self.step * excess)
        else:
            self._miss_level = self._miss_level - self.step * excess
            self.quantiles = _at_levels(self._sorted, 1 - self._miss_level)


def choose_step(
    streams: Sequence[tuple[Stream, ArrayLike]],
    *,
    level: float = 0.9,
    tracked: Tracked = "quantile",
    steps: Sequence[float] | None = None,
) -> Floats:
    """Choose eta for every dimension on streams of scenes other than that where it will be used.

    Of those whose mean interval score is not above split conformal's and whose intervals are infinite or
    empty in at most 2 % of cases, it is that with the least interval score where the root mean square of the
    streams' gaps is at most 0.3 points, else that with the smallest; 0 where none is.

    Parameters
    ----------
    streams : sequence of tuple
        A stream and the calibration scores for it, of shape (m, d), which must be of further scenes.
    level, tracked
        As for `AdaptiveConformal`.
    steps : sequence of float, optional
        Those to try; `STEPS` of `tracked` by default.

    Returns
    -------
    ndarray of float64
        Shape (d,).

    Raises
    ------
    DataError
        There are no streams.
    """
    tried = np.array([0.0, *(STEPS[tracked] if steps is None else steps)])
    forms = [partial(AdaptiveConformal, level=level, step=step, tracked=tracked) for step in tried]
    return np.asarray(tried[best(streams, forms)])


def _at_levels(ordered: Floats, levels: Floats) -> Floats:
    """Return the conformal quantile of each column at its own level: infinite above rank n, 0 below 1."""
    n = len(ordered)
    ranks = np.ceil(np.round((n + 1) * levels, 9))
    inside = np.take_along_axis(ordered, np.clip(ranks - 1, 0, n - 1).astype(np.intp)[None], axis=0)[0]
    return np.asarray(np.where(ranks > n, np.inf, np.where(ranks < 1, 0.0, inside)))
