"""What trackers have in common: frames come in singly or as a sequence, and compiled code takes them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike

from mot_cup._boxes import Floats, Space
from mot_cup._detections import Detections
from mot_cup._frames import check_step, correlated, errors_of, pack, rows_of, tracks_of
from mot_cup._kalman import make_filters, to_dense
from mot_cup._noise import PaperCompat, Uncertainty
from mot_cup._tracks import Ints, Tracks
from tenfold import SettingError

CAPACITY = 32


class Tracker(ABC):
    """A tracker of boxes.

    Parameters
    ----------
    state : {"xyxy", "xysr", "xyah", "xywh"}
        Coordinates of a measurement.
    uncertainty : {"off", "covariance"} or PaperCompat
    unit : str
        Of length. Detections in another are refused.
    """

    def __init__(self, state: Space, uncertainty: Uncertainty, unit: str) -> None:
        self.state: Space = state
        self.uncertainty: Uncertainty = uncertainty
        self.unit = unit
        self.reset()

    def reset(self) -> None:
        """Forget all tracks and begin identities at 1 again."""
        self._filters = make_filters(CAPACITY)
        self._begin()

    def update(self, detections: ArrayLike | Detections, dt: float | None = None) -> Floats:
        """Take one frame.

        Parameters
        ----------
        detections : array_like or Detections
            Rows x1, y1, x2, y2, and perhaps score and class, of shape (n, 4) to (n, 6). Call this for frames
            without detections too.
        dt : float, optional
            Frames since the last call, 1 by default; it need not be whole.

        Returns
        -------
        ndarray of float64
            Shape (m, 8): x1, y1, x2, y2, identity, score, class, and the row of the detection.

        Raises
        ------
        DataError
            A box is not finite or has no area, a score is NaN, a class not whole, `dt` is not positive, or a
            covariance is wanted and missing. Nothing has then changed.
        SettingError
            The detections are in another unit.
        """
        steps = np.array([check_step(dt)])
        rows = rows_of(detections, self.unit)
        errors = errors_of(detections, rows, self.uncertainty, self.state)
        out, ends = self._take(rows, np.array([0, len(rows)]), errors, steps)
        return out[: ends[-1]]

    def track(
        self, frames: Sequence[Detections] | Mapping[int, Detections], times: ArrayLike | None = None
    ) -> Tracks:
        """Track a whole sequence from its beginning; this begins with `reset`.

        Parameters
        ----------
        frames : sequence of Detections, or mapping of int to Detections
            A sequence is numbered from 1. In a mapping the numbers between the least and the greatest that
            are missing are frames without detections; its order does not matter.
        times : array_like, optional
            When each frame was taken, in frames, of shape (frames,) with the missing ones.

        Returns
        -------
        Tracks

        Raises
        ------
        DataError
            A frame number is not whole, there are more than 100,000,000 frames from the first to the last,
            times do not increase, or a covariance is wanted and missing.
        SettingError
            Detections are in another unit.
        """
        self.reset()
        packed = pack(frames, times, self.unit, self.uncertainty, self.state)
        out, ends = self._take(packed.rows, packed.starts, packed.errors, packed.steps)
        return tracks_of(packed.numbers, ends, out)

    def _take(self, rows: Floats, starts: Ints, errors: Floats, steps: Floats) -> tuple[Floats, Ints]:
        if correlated(errors):
            self._make_dense()
        out = np.empty((self._room(len(rows), steps), 8))
        return out, self._run(rows, starts, errors, steps, out)

    def _room(self, detections: int, steps: Floats) -> int:
        """Return how many rows may be reported of so many detections."""
        return detections

    def _make_dense(self) -> None:
        self._filters = to_dense(self._filters)

    @abstractmethod
    def _begin(self) -> None:
        """Make what is kept of tracks beside their filters."""

    @abstractmethod
    def _run(self, rows: Floats, starts: Ints, errors: Floats, steps: Floats, out: Floats) -> Ints:
        """Take frames, write what is reported, and return how many rows there are after each."""


def check_life(max_age: float, min_hits: int) -> None:
    """Refuse an age or a number of hits that is none."""
    if not 0 <= max_age < np.inf or min_hits < 0 or int(min_hits) != min_hits:
        raise SettingError(
            f"max_age {max_age} and min_hits {min_hits}", "0 or more, min_hits whole", "Correct them."
        )


def check_uncertainty(uncertainty: Uncertainty) -> None:
    """Refuse what is no way to use covariances."""
    if uncertainty not in ("off", "covariance") and not isinstance(uncertainty, PaperCompat):
        raise SettingError(
            f"uncertainty {uncertainty!r}", '"off", "covariance" or a PaperCompat', "Choose one of them."
        )
