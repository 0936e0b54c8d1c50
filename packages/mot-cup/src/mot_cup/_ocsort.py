"""OC-SORT, with and without the uncertainty of its detections.

Cao et al., "Observation-centric SORT: rethinking SORT for robust multi-object tracking", CVPR 2023. With
uncertainty off this is the authors' tracker; it reports the detections themselves, and of a track of one
detection the filter's state. With ``uncertainty="covariance"`` the measurement's covariance is the
detection's own, in the unit and coordinates that it was declared in, the state is ``xywh``, and the filter's
boxes are reported. `mot_cup._ocsort_step` says what is done in a frame.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from mot_cup._association import MEASURES
from mot_cup._boxes import Floats
from mot_cup._kalman import make_filters, to_dense
from mot_cup._noise import NOISE, Noise
from mot_cup._ocsort_step import noted, run
from mot_cup._state_models import StateModel, model_number
from mot_cup._tracker import CAPACITY, Tracker, check_life
from mot_cup._tracks import Ints
from tenfold import SettingError


class OCSort(Tracker):
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
        Frames that a track is kept without a detection, at whatever rate they come.
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
        check_life(max_age, min_hits)
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
        chosen: StateModel = state or ("xywh" if uncertainty == "covariance" else "xysr")
        limits = [det_thresh, low_thresh, iou_threshold, inertia, max_age]
        self._rules = (
            (noise or NOISE[chosen]).table(),
            np.array(limits, dtype=np.float64),
            model_number(chosen),
            MEASURES.index(recovery),
            int(min_hits),
            bool(use_byte),
            bool(per_class),
            uncertainty == "off",
            (report or ("state" if uncertainty == "covariance" else "detection")) == "state",
        )
        self._delta_t = int(delta_t)
        super().__init__(chosen, uncertainty, unit)

    def _begin(self) -> None:
        self._observed = make_filters(CAPACITY)
        self._notes = np.zeros((CAPACITY, noted(self._delta_t)))
        self._tracker = np.array([0, 1, 0])

    def _make_dense(self) -> None:
        super()._make_dense()
        self._observed = to_dense(self._observed)

    def _run(self, rows: Floats, starts: Ints, errors: Floats, steps: Floats, out: Floats) -> Ints:
        self._filters, self._observed, self._notes, ends = run(
            self._filters,
            self._observed,
            self._notes,
            self._tracker,
            rows,
            starts,
            errors,
            steps,
            out,
            *self._rules,
        )
        return ends
