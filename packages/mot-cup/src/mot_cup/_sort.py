"""SORT, with and without the uncertainty of its detections.

With uncertainty off this is Bewley's tracker: constant noise in pixels, overlap of at least `iou_threshold`,
the state ``xysr``. With ``uncertainty="covariance"`` the measurement's covariance is the detection's own, in
the unit and coordinates that it was declared in, in an exact filter; the state is then ``xywh``, whose noise
grows with the box, as SORT's constants are of little use beside honest measurements (they let the area
wander by two pixels squared a frame whatever its size).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from mot_cup._association import Stage, stage_table
from mot_cup._boxes import Floats, Space
from mot_cup._detections import Detections
from mot_cup._filterpy import FilterpyModel, FilterpyTracks
from mot_cup._frames import check_step, correlated, errors_of, pack, rows_of, tracks_of
from mot_cup._kalman import make_filters, to_dense
from mot_cup._noise import NOISE, Noise, PaperCompat, Uncertainty
from mot_cup._sort_step import TRACE, run
from mot_cup._state_models import StateModel, model_number
from mot_cup._tracks import Ints, Tracks
from tenfold import SettingError

CAPACITY = 32
NO_TRACE = np.empty((0, TRACE))


class Sort:
    """Simple online and realtime tracking.

    Parameters
    ----------
    max_age : float
        Frames that a track is kept without a detection.
    min_hits : int
        Detections in a row, beyond its first, after which a track is reported; in the first `min_hits` frames
        all are.
    iou_threshold : float
        Least overlap of a detection with the track it is taken for. Not used where `stages` are given.
    stages : sequence of Stage, optional
        Stages of association.
    state : {"xysr", "xyah", "xywh"} or FilterpyModel, optional
        State model: ``"xywh"`` with the detections' covariances, else ``"xysr"``; or the user's own.
    noise : Noise, optional
        Variances of the filter, in the coordinates of the state; by default those of the model
        (`mot_cup.NOISE`). A `FilterpyModel` has its own.
    uncertainty : {"off", "covariance"} or PaperCompat
        ``"covariance"``: that of each detection is R, and P of the position of a track that it begins.
        `PaperCompat`: its variances are R as in the paper's code.
    per_class : bool
        A track is of one class and takes detections of that class alone.
    unit : str
        Of length. Detections in another are refused.

    Raises
    ------
    SettingError, UnknownNameError
        A setting is impossible.

    Notes
    -----
    Scores are passed on and not used, and are 1 where there are none.
    """

    def __init__(
        self,
        *,
        max_age: float = 1,
        min_hits: int = 3,
        iou_threshold: float = 0.3,
        stages: Sequence[Stage] | None = None,
        state: StateModel | FilterpyModel | None = None,
        noise: Noise | None = None,
        uncertainty: Uncertainty = "off",
        per_class: bool = False,
        unit: str = "px",
    ) -> None:
        if not 0 <= max_age < np.inf or min_hits < 0 or int(min_hits) != min_hits:
            raise SettingError(
                f"max_age {max_age} and min_hits {min_hits}", "0 or more, min_hits whole", "Correct them."
            )
        if uncertainty not in ("off", "covariance") and not isinstance(uncertainty, PaperCompat):
            raise SettingError(
                f"uncertainty {uncertainty!r}", '"off", "covariance" or a PaperCompat', "Choose one of them."
            )
        if stages is not None and not stages:
            raise SettingError("no stage of association", "one or more", "Give a Stage.")
        self.uncertainty: Uncertainty = uncertainty
        self.unit = unit
        if isinstance(state, FilterpyModel) and noise is not None:
            raise SettingError(
                "noise beside a FilterpyModel", "one of the two", "Let the model's filters have it."
            )
        table = stage_table(stages or [Stage("iou", iou_threshold)])
        self.space: Space
        if isinstance(state, FilterpyModel):
            self.space = state.space
            self._make: Callable[[], _CompiledTracks | FilterpyTracks] = partial(
                FilterpyTracks, state, table, float(max_age), int(min_hits), bool(per_class)
            )
        else:
            model: StateModel = state or ("xywh" if uncertainty == "covariance" else "xysr")
            number = model_number(model)
            self.space = model
            self._make = partial(
                _CompiledTracks,
                (noise or NOISE[model]).table(),
                table,
                number,
                float(max_age),
                int(min_hits),
                bool(per_class),
                uncertainty == "covariance",
            )
        self.reset()

    def reset(self) -> None:
        """Forget all tracks and begin identities at 1 again."""
        self._tracks = self._make()

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
        errors = errors_of(detections, rows, self.uncertainty, self.space)
        out, _ = self._tracks.take(rows, np.array([0, len(rows)]), errors, steps)
        return out

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
            A frame number is not whole, times do not increase, or a covariance is wanted and missing.
        SettingError
            Detections are in another unit.
        """
        self.reset()
        packed = pack(frames, times, self.unit, self.uncertainty, self.space)
        out, ends = self._tracks.take(packed.rows, packed.starts, packed.errors, packed.steps)
        return tracks_of(packed.numbers, ends, out)


class _CompiledTracks:
    """Tracks in the arrays of `mot_cup._sort_step`; `rules` are its last arguments."""

    def __init__(self, *rules: Any) -> None:
        self.rules = rules
        self.filters, self.counts = make_filters(CAPACITY), np.zeros((CAPACITY, 4))
        self.tracker = np.array([0, 1, 0])

    def take(self, rows: Floats, starts: Ints, errors: Floats, steps: Floats) -> tuple[Floats, Ints]:
        if correlated(errors):
            self.filters = to_dense(self.filters)
        out = np.empty((len(rows), 8))
        self.filters, self.counts, ends = run(
            self.filters,
            self.counts,
            self.tracker,
            rows,
            starts,
            errors,
            steps,
            out,
            NO_TRACE,
            *self.rules,
        )
        return out[: ends[-1] if len(ends) else 0], ends
