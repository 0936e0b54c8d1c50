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
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike

from mot_cup._boxes import Floats, Space
from mot_cup._conformal.matching import Matches
from mot_cup._conformal.split import check_scores, conformal_quantiles
from mot_cup._tracks import Ints
from mot_cup.scores import interval_score
from tenfold import DataError, SettingError, UnknownNameError

Tracked = Literal["level", "quantile"]
TRACKED: tuple[Tracked, ...] = get_args(Tracked)
STEPS: dict[Tracked, tuple[float, ...]] = {
    "level": (0.002, 0.005, 0.01, 0.02, 0.03),
    "quantile": (0.05, 0.1, 0.15, 0.2, 0.3, 0.4),
}
# Infinite and empty intervals say nothing; a step that makes more of them is not chosen.
VOID = 0.02


@dataclass(frozen=True)
class Stream:
    """The scores of one detector over time, such as an agent's in a scene.

    Parameters
    ----------
    frames : ndarray of int64
        Shape (n,), not decreasing.
    scores : ndarray of float64
        abs(prediction - truth) / sigma, of shape (n, d).
    sigma : ndarray of float64
        Shape (n, d).

    Raises
    ------
    DataError
        Shapes do not fit, frames decrease, or a score is negative or NaN.
    """

    frames: Ints
    scores: Floats
    sigma: Floats

    def __post_init__(self) -> None:
        check_scores(self.scores)
        fits = self.frames.shape == self.scores.shape[:1] and self.sigma.shape == self.scores.shape
        if not fits or (np.diff(self.frames) < 0).any():
            raise DataError(
                f"frames of shape {self.frames.shape}, scores of {self.scores.shape}, "
                f"sigma of {self.sigma.shape}",
                "one frame and one sigma for each score, in the order of frames",
                "Sort the scores by frame.",
            )

    @classmethod
    def of(cls, matches: Matches, space: Space) -> Stream:
        """Return the stream of one sequence's matched detections."""
        return cls(matches.frames, matches.scores(space), matches.sigma(space))

    def __len__(self) -> int:
        return len(self.frames)


class AdaptiveConformal:
    """Conformal quantiles that follow one stream.

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
        self.level, self.step, self.tracked = level, eta, tracked
        self._sorted = np.sort(check_scores(calibration), axis=0)
        self.quantiles = conformal_quantiles(self._sorted, level)
        # Kept apart from the quantiles: below rank 1 and above rank n the path must remember how far it is.
        self._miss_level = np.full(len(self.quantiles), 1 - level)

    @property
    def largest(self) -> Floats:
        """The largest calibration scores, of shape (d,)."""
        return np.asarray(self._sorted[-1])

    def update(self, scores: ArrayLike) -> None:
        """Take the scores of a frame whose intervals were used, and move the quantiles for the next.

        Parameters
        ----------
        scores : array_like
            abs(prediction - truth) / sigma of the frame's matched detections, of shape (n, d); n may be 0.

        Raises
        ------
        DataError
            The scores are of another shape, or one is negative or NaN.
        """
        values = np.asarray(scores, dtype=np.float64)
        if values.size == 0:
            return
        values = check_scores(values)
        if values.shape[1] != len(self.quantiles):
            raise DataError(
                f"scores of {values.shape[1]} dimensions", f"{len(self.quantiles)}", "Give all of a box."
            )
        excess = ((values > self.quantiles) - (1 - self.level)).sum(axis=0)
        if self.tracked == "quantile":
            self.quantiles = self.quantiles * np.exp(self.step * excess)
        else:
            self._miss_level = self._miss_level - self.step * excess
            self.quantiles = _at_levels(self._sorted, 1 - self._miss_level)

    def follow(self, stream: Stream) -> Floats:
        """Run through a labelled stream and return the quantiles that were in force at every score.

        Scores of one frame share their quantiles: no label is used before its frame is over.

        Returns
        -------
        ndarray of float64
            Shape (n, d).
        """
        used = np.empty_like(stream.scores)
        starts = np.flatnonzero(np.diff(stream.frames, prepend=stream.frames[:1] - 1))
        for start, end in zip(starts, np.append(starts[1:], len(stream)), strict=False):
            used[start:end] = self.quantiles
            self.update(stream.scores[start:end])
        return used


@dataclass(frozen=True)
class Assessment:
    """How the intervals of one stream did, each of shape (d,).

    Parameters
    ----------
    gap : ndarray of float64
        Coverage minus level.
    interval_score : ndarray of float64
        The mean, in the unit of sigma.
    void : ndarray of float64
        The share of intervals that were infinite or empty.
    """

    gap: Floats
    interval_score: Floats
    void: Floats


def assess(stream: Stream, adaptive: AdaptiveConformal) -> Assessment:
    """Run through a labelled stream and say how the intervals did.

    An infinite interval covers; in the interval score, which it would make infinite, it counts as one of
    the largest calibration score.
    """
    used = adaptive.follow(stream)
    finite = np.where(np.isfinite(used), used, adaptive.largest)
    errors = stream.scores * stream.sigma
    return Assessment(
        (stream.scores <= used).mean(axis=0) - adaptive.level,
        interval_score(errors, finite * stream.sigma, adaptive.level).mean(axis=0),
        (~np.isfinite(used) | (used <= 0)).mean(axis=0),
    )


def choose_step(
    streams: Sequence[tuple[Stream, ArrayLike]],
    *,
    level: float = 0.9,
    tracked: Tracked = "quantile",
    steps: Sequence[float] | None = None,
) -> Floats:
    """Choose eta for every dimension on streams of scenes other than that where it will be used.

    The step with the smallest mean abs(gap) of a stream, among those whose mean interval score is not above
    split conformal's and whose intervals are infinite or empty in at most 2 % of cases; 0 where none is.

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
    if not streams:
        raise DataError("no streams to choose a step on", "one or more", "Give streams of other scenes.")
    tried = np.array([0.0, *(STEPS[tracked] if steps is None else steps)])
    gaps, costs, voids = (
        np.array(values)
        for values in zip(*(_mean_assessment(streams, level, tracked, step) for step in tried), strict=True)
    )
    allowed = (costs <= costs[0]) & (voids <= VOID)
    return np.asarray(tried[np.where(allowed, gaps, np.inf).argmin(axis=0)])


def _mean_assessment(
    streams: Sequence[tuple[Stream, ArrayLike]], level: float, tracked: Tracked, step: float
) -> tuple[Floats, Floats, Floats]:
    found = [
        assess(stream, AdaptiveConformal(calibration, level=level, step=step, tracked=tracked))
        for stream, calibration in streams
    ]
    return (
        np.mean([np.abs(item.gap) for item in found], axis=0),
        np.mean([item.interval_score for item in found], axis=0),
        np.mean([item.void for item in found], axis=0),
    )


def _at_levels(ordered: Floats, levels: Floats) -> Floats:
    """Return the conformal quantile of each column at its own level: infinite above rank n, 0 below 1."""
    n = len(ordered)
    ranks = np.ceil(np.round((n + 1) * levels, 9))
    inside = np.take_along_axis(ordered, np.clip(ranks - 1, 0, n - 1).astype(np.intp)[None], axis=0)[0]
    return np.asarray(np.where(ranks > n, np.inf, np.where(ranks < 1, 0.0, inside)))
