"""Conformal quantiles that follow a stream: what the forms of them share.

Labels are those of a frame whose intervals were used. How good a form is, `assess` says of one labelled
stream; `best` is how its settings are chosen, on streams of scenes other than that where it will be used.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mot_cup._boxes import Floats, Space
from mot_cup._conformal.matching import Matches
from mot_cup._conformal.split import check_scores, conformal_quantiles
from mot_cup._tracks import Ints
from mot_cup.scores import interval_score
from tenfold import DataError

# Infinite and empty intervals say nothing; settings that make more of them are not chosen.
VOID = 0.02
# Root mean square of the gaps of streams, from which on narrower intervals are worth more than less of a gap.
CLOSE = 0.003


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


class OnlineConformal(ABC):
    """Conformal quantiles that follow one stream.

    Parameters
    ----------
    calibration : array_like
        Scores of calibration data, of shape (n, d).
    level : float
        The nominal coverage 1 - alpha, of every dimension.

    Attributes
    ----------
    quantiles : ndarray of float64
        Shape (d,): those of the next frame, to be multiplied by its sigma; at first split conformal's.

    Raises
    ------
    DataError
        The scores are not of that shape, or one is negative or NaN.
    SettingError
        The level is not between 0 and 1 or needs more scores.
    """

    def __init__(self, calibration: ArrayLike, level: float) -> None:
        self.level = level
        scores = check_scores(calibration)
        # Settings are chosen by hundreds of runs from the same scores, which are then given in order.
        ordered = bool((scores[1:] >= scores[:-1]).all())
        self._sorted = scores if ordered else np.sort(scores, axis=0)
        self.quantiles = conformal_quantiles(self._sorted, level)

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
        self._check_dimensions(values)
        self._take(values, np.array([0, len(values)]))

    def follow(self, stream: Stream) -> Floats:
        """Run through a labelled stream and return the quantiles that were in force at every score.

        Scores of one frame share their quantiles: no label is used before its frame is over.

        Returns
        -------
        ndarray of float64
            Shape (n, d).

        Raises
        ------
        DataError
            The stream is of other dimensions.
        """
        self._check_dimensions(stream.scores)
        starts = np.flatnonzero(np.diff(stream.frames, prepend=stream.frames[:1] - 1))
        return self._take(np.ascontiguousarray(stream.scores), np.append(starts, len(stream)))

    def _check_dimensions(self, scores: Floats) -> None:
        if scores.shape[1] != len(self.quantiles):
            raise DataError(
                f"scores of {scores.shape[1]} dimensions", f"{len(self.quantiles)}", "Give all of a box."
            )

    @abstractmethod
    def _take(self, scores: Floats, starts: Ints) -> Floats:
        """Take the scores of frames, and return the quantiles that were in force at each.

        Parameters
        ----------
        scores : ndarray of float64
            Shape (n, d).
        starts : ndarray of int64
            Shape (frames + 1,): the first row of each frame, none of which is empty, and n.
        """


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


def assess(stream: Stream, online: OnlineConformal) -> Assessment:
    """Run through a labelled stream and say how the intervals did.

    An infinite interval covers; in the interval score, which it would make infinite, it counts as one of
    the largest calibration score.
    """
    return assess_quantiles(stream, online.follow(stream), online.level, online.largest)


def assess_quantiles(stream: Stream, used: Floats, level: float, largest: ArrayLike = np.inf) -> Assessment:
    """Say how the intervals of given quantiles did on a labelled stream.

    Parameters
    ----------
    stream : Stream
    used : ndarray of float64
        The quantiles in force at every score, of shape (n, d).
    level : float
        The nominal coverage.
    largest : array_like
        What infinite quantiles count as in the interval score.
    """
    finite = np.where(np.isfinite(used), used, largest)
    errors = stream.scores * stream.sigma
    return Assessment(
        (stream.scores <= used).mean(axis=0) - level,
        interval_score(errors, finite * stream.sigma, level).mean(axis=0),
        (~np.isfinite(used) | (used <= 0)).mean(axis=0),
    )


def best(
    streams: Sequence[tuple[Stream, ArrayLike]], forms: Sequence[Callable[[ArrayLike], OnlineConformal]]
) -> NDArray[np.intp]:
    """Return, for every dimension, which form does best on streams.

    Allowed are those whose mean interval score is not above that of the first, and whose intervals are
    infinite or empty in at most 2 % of cases. Of these, among which the first always is, it is that with the
    least interval score where the root mean square of the streams' gaps is at most 0.3 points, and where
    none reaches that, the one with the smallest.

    Parameters
    ----------
    streams : sequence of tuple
        A stream and the calibration scores for it, of shape (m, d), which must be of further scenes.
    forms : sequence of callable
        Each makes a form from calibration scores. The first is split conformal.

    Returns
    -------
    ndarray of intp
        Shape (d,).

    Raises
    ------
    DataError
        There are no streams.
    """
    if not streams:
        raise DataError("no streams to choose on", "one or more", "Give streams of other scenes.")
    gaps, costs, voids = [], [], []
    for form in forms:
        found = [assess(stream, form(calibration)) for stream, calibration in streams]
        gaps.append(np.sqrt(np.mean([item.gap**2 for item in found], axis=0)))
        costs.append(np.mean([item.interval_score for item in found], axis=0))
        voids.append(np.mean([item.void for item in found], axis=0))
    gap, cost = np.array(gaps), np.array(costs)
    allowed = (cost <= cost[0]) & (np.array(voids) <= VOID)
    close = allowed & (gap <= CLOSE)
    narrowest = np.where(close, cost, np.inf).argmin(axis=0)
    nearest = np.where(allowed, gap, np.inf).argmin(axis=0)
    return np.asarray(np.where(close.any(axis=0), narrowest, nearest))
