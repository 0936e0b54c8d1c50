"""OC-SORT, with and without the uncertainty of its detections.

Cao et al., "Observation-centric SORT: rethinking SORT for robust multi-object tracking", CVPR 2023. With
uncertainty off this is the authors' tracker; it reports the detections themselves, and of a track of one
detection the filter's state. With ``uncertainty="covariance"`` the measurement's covariance is the
detection's own, in the unit and coordinates that it was declared in, the state is ``xywh``, and the filter's
boxes are reported. `mot_cup._ocsort_step` says what is done in a frame.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from mot_cup._association import MEASURES
from mot_cup._boxes import Floats
from mot_cup._detections import Detections
from mot_cup._frames import check_step, correlated, errors_of, pack, rows_of, tracks_of
from mot_cup._kalman import to_dense
from mot_cup._noise import NOISE, Noise
from mot_cup._ocsort_step import Live, Rules, make_live, room_for, run, step
from mot_cup._state_models import StateModel, model_number
from mot_cup._tracks import Tracks
from tenfold import SettingError


class OCSort:
    """Observation-centric SORT.

    Parameters
    ----------
    det_thresh : float
        Detections of a higher score are used.
    low_thresh : float
        With `use_byte`, those of a score between this and `det_thresh` are too, for tracks left over.
    use_byte : bool
        Whether low scores are used.
    max_age : float
        Frames that a track is kept without a detection.
    min_hits : int
        Detections in a row, beyond its first, after which a track is reported; in the first `min_hits` frames
        all are.
    iou_threshold : float
        Least overlap of a pair.
    delta_t : int
        Frames over which a direction is taken.
    inertia : float
        Weight of directions beside overlaps.
    recovery : {"iou", "giou"}
        What pairs the detections and tracks left over; the generalised overlap is moved to [0, 1].
    state : {"xysr", "xyah", "xywh"}, optional
        State model: ``"xywh"`` with the detections' covariances, else ``"xysr"``.
    noise : Noise, optional
        Variances of the filter, in the coordinates of the state; by default those of the model
        (`mot_cup.NOISE`).
    uncertainty : {"off", "covariance"}
        ``"covariance"``: that of each detection is R, and P of the position of a track that it begins.
    report : {"detection", "state"}, optional
        Which boxes are reported: ``"state"`` with the detections' covariances, else ``"detection"``.
    per_class : bool
        A track is of one class and takes detections of that class alone.
    unit : str
        Of length. Detections in another are refused.

    Raises
    ------
    SettingError, UnknownNameError
        A setting is impossible.
    """

    def __init__(
        self,
        *,
        det_thresh: float = 0.6,
        low_thresh: float = 0.1,
        use_byte: bool = False,
        max_age: float = 30,
        min_hits: int = 3,
        iou_threshold: float = 0.3,
        delta_t: int = 3,
        inertia: float = 0.2,
        recovery: Literal["iou", "giou"] = "iou",
        state: StateModel | None = None,
        noise: Noise | None = None,
        uncertainty: Literal["off", "covariance"] = "off",
        report: Literal["detection", "state"] | None = None,
        per_class: bool = False,
        unit: str = "px",
    ) -> None:
        if not all(0 <= limit <= 1 for limit in (det_thresh, low_thresh, iou_threshold)):
            raise SettingError(
                f"thresholds {det_thresh}, {low_thresh} and {iou_threshold}",
                "numbers from 0 to 1",
                "Correct them.",
            )
        if not 0 <= max_age < np.inf or min_hits < 0 or int(min_hits) != min_hits:
            raise SettingError(
                f"max_age {max_age} and min_hits {min_hits}", "0 or more, min_hits whole", "Correct them."
            )
        if delta_t < 1 or int(delta_t) != delta_t or not 0 <= inertia < np.inf:
            raise SettingError(
                f"delta_t {delta_t} and inertia {inertia}",
                "a whole number of 1 or more, and 0 or more",
                "Correct them.",
            )
        for name, value, choices in (
            ("recovery", recovery, ("iou", "giou")),
            ("uncertainty", uncertainty, ("off", "covariance")),
            ("report", report, ("detection", "state", None)),
        ):
            if value not in choices:
                raise SettingError(f"{name} {value!r}", f"one of {choices}", "Choose one of them.")
        self.uncertainty: Literal["off", "covariance"] = uncertainty
        self.unit = unit
        self.state: StateModel = state or ("xywh" if uncertainty == "covariance" else "xysr")
        self._rules = Rules(
            high=float(det_thresh),
            low=float(low_thresh),
            use_low=bool(use_byte),
            limit=float(iou_threshold),
            inertia=float(inertia),
            recovery=MEASURES.index(recovery),
            max_age=float(max_age),
            min_hits=int(min_hits),
            model=model_number(self.state),
            per_class=bool(per_class),
            as_published=uncertainty == "off",
            report_state=(report or ("state" if uncertainty == "covariance" else "detection")) == "state",
            noise=(noise or NOISE[self.state]).table(),
        )
        self._delta_t = int(delta_t)
        self._live: Live = make_live(self._delta_t)

    def reset(self) -> None:
        """Forget all tracks and begin identities at 1 again."""
        self._live = make_live(self._delta_t)

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
        elapsed = check_step(dt)
        rows = rows_of(detections, self.unit)
        errors = errors_of(detections, rows, self.uncertainty, self.state)
        self._make_room(errors, len(rows))
        out = np.empty((len(rows), 8))
        reported = step(self._rules, self._live, rows, errors, elapsed, out)
        return out[:reported]

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
        packed = pack(frames, times, self.unit, self.uncertainty, self.state)
        self._make_room(packed.errors, 0)
        out = np.empty((len(packed.rows), 8))
        self._live, ends = run(
            self._rules, self._live, packed.rows, packed.starts, packed.errors, packed.steps, out
        )
        return tracks_of(packed.numbers, ends, out)

    def _make_room(self, errors: Floats, rows: int) -> None:
        live = self._live
        if correlated(errors):
            live = live._replace(filters=to_dense(live.filters), observed=to_dense(live.observed))
        if live.tracker[0] + rows > len(live.idle):
            live = room_for(live, rows)
        self._live = live
