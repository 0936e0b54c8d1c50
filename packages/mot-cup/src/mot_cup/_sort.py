"""SORT, with and without the uncertainty of its detections.

With uncertainty off this is Bewley's tracker: constant noise in pixels, overlap of at least `iou_threshold`,
the state ``xysr``. With ``uncertainty="covariance"`` the measurement's covariance is the detection's own, in
the unit and coordinates that it was declared in, in an exact filter; the state is then ``xywh``, whose noise
grows with the box, as SORT's constants are of little use beside honest measurements (they let the area
wander by two pixels squared a frame whatever its size).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike

from mot_cup._association import Stage, stage_table
from mot_cup._boxes import Floats
from mot_cup._detections import Detections
from mot_cup._filterpy import FilterpyModel, FilterpyTracks
from mot_cup._innovations import Innovations
from mot_cup._noise import NOISE, Noise, Uncertainty
from mot_cup._sort_step import FRAME, INNOVATION, OWNER, POSTERIOR, SPREAD, STATE, TRACE, run
from mot_cup._state_models import StateModel, model_number
from mot_cup._tracker import CAPACITY, Tracker, check_life, check_uncertainty
from mot_cup._tracks import Ints, Tracks
from tenfold import SettingError

NO_TRACE = np.empty((0, TRACE))


class Sort(Tracker):
    """Simple online and realtime tracking.

    Parameters
    ----------
    max_age : float
        Frames that a track is kept without a detection, at whatever rate they come.
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
    keep_innovations : bool
        Keep those of the last call, in `innovations`.
    per_class : bool
        A track is of one class and takes detections of that class alone.
    unit : str
        Of length. Detections in another are refused.
    begin_score : float
        Detections of lower scores continue tracks but begin none. By default all do.
    coast : float
        Frames after its last detection in which a track is still reported, where it is predicted to be, with
        the score 0 and the row -1; at most `max_age`. Of tracks that may coast all detections count towards
        `min_hits`, in a row or not. With 0, as in SORT, a track is reported with a detection alone.

    Raises
    ------
    SettingError, UnknownNameError
        A setting is impossible.

    Notes
    -----
    Scores are passed on, and used by `begin_score` alone. They are 1 where there are none.
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
        keep_innovations: bool = False,
        per_class: bool = False,
        unit: str = "px",
        begin_score: float = -np.inf,
        coast: float = 0,
    ) -> None:
        check_life(max_age, min_hits)
        if np.isnan(begin_score):
            raise SettingError("begin_score nan", "a number", "Give the least score that begins a track.")
        if not 0 <= coast <= max_age:
            raise SettingError(f"coast {coast} and max_age {max_age}", "0 to max_age", "Correct it.")
        check_uncertainty(uncertainty)
        if stages is not None and not stages:
            raise SettingError("no stage of association", "one or more", "Give a Stage.")
        self._stages = stage_table(stages or [Stage("iou", iou_threshold)])
        self._rules = float(max_age), int(min_hits), bool(per_class)
        self._begin_score, self._coast = float(begin_score), float(coast)
        self._keep = bool(keep_innovations)
        if isinstance(state, FilterpyModel):
            if self._keep:
                raise SettingError(
                    "innovations of a FilterpyModel", "one of the two", "Its filters have their own y and S."
                )
            if noise is not None:
                raise SettingError(
                    "noise beside a FilterpyModel", "one of the two", "Let its filters have it."
                )
            if coast or begin_score > -np.inf:
                raise SettingError(
                    "coast or begin_score beside a FilterpyModel",
                    "a state model of this package",
                    "Leave them out.",
                )
            self._own: FilterpyModel | None = state
            super().__init__(state.space, uncertainty, unit)
        else:
            model: StateModel = state or ("xywh" if uncertainty == "covariance" else "xysr")
            self._own = None
            self._number = model_number(model)
            self._noise = (noise or NOISE[model]).table()
            super().__init__(model, uncertainty, unit)

    @property
    def innovations(self) -> Innovations:
        """The innovations of the last call of `update` or `track`; frames are numbered as `track` does.

        Raises
        ------
        SettingError
            They are not kept.
        """
        if not self._keep:
            raise SettingError("innovations that are not kept", "keep_innovations=True", "Make it with that.")
        trace, taken = self._trace, ~np.isnan(self._trace[:, INNOVATION])
        frames = np.repeat(np.arange(len(self._starts) - 1), np.diff(self._starts))
        rows = np.arange(len(trace)) - self._starts[frames]
        kept = trace[taken]
        return Innovations(
            frames[taken] + self._first,
            rows[taken],
            kept[:, OWNER].astype(np.int64),
            kept[:, INNOVATION:SPREAD],
            kept[:, SPREAD:STATE].reshape(-1, 4, 4),
            kept[:, STATE:POSTERIOR],
            kept[:, POSTERIOR:OWNER].reshape(-1, 4, 4),
            self.state,
        )

    def track(
        self, frames: Sequence[Detections] | Mapping[int, Detections], times: ArrayLike | None = None
    ) -> Tracks:
        tracks = super().track(frames, times)
        if isinstance(frames, Mapping) and frames:
            self._first = int(min(frames))
        return tracks

    def _begin(self) -> None:
        self._trace, self._starts, self._first = NO_TRACE, np.zeros(1, np.int64), 1
        self._counts, self._counters = np.zeros((CAPACITY, 4)), np.array([0, 1, 0])
        if self._own is not None:
            self._tracks = FilterpyTracks(self._own, self._stages, *self._rules)

    def _room(self, detections: int, steps: Floats) -> int:
        if not self._coast:
            return detections
        # A track coasts once for each of its detections, and those alive already once more.
        frames = min(len(steps), int(self._coast / steps.min(initial=1.0)))
        return detections + (detections + int(self._counters[0])) * frames

    def _run(self, rows: Floats, starts: Ints, errors: Floats, steps: Floats, out: Floats) -> Ints:
        if self._own is not None:
            return self._tracks.run(rows, starts, errors, steps, out)
        trace = np.empty((len(rows), TRACE)) if self._keep else NO_TRACE
        self._trace, self._starts, self._first = trace, starts, int(self._counters[FRAME]) + 1
        self._filters, self._counts, ends = run(
            self._filters,
            self._counts,
            self._counters,
            rows,
            starts,
            errors,
            steps,
            out,
            trace,
            self._noise,
            self._stages,
            self._number,
            *self._rules,
            self._begin_score,
            self._coast,
            self.uncertainty == "covariance",
        )
        return ends
