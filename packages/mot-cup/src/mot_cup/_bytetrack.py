"""ByteTrack, with and without the uncertainty of its detections.

Zhang et al., "ByteTrack: multi-object tracking by associating every detection box", ECCV 2022. With
uncertainty off this is the authors' tracker, state ``xyah`` and noise that grows with the height; its
overlaps count pixels at both edges of a box, and a track of one detection is not predicted.

`PaperCompat` is the filter of the paper: the detection's calibrated variances are R, those of a track's first
detection its first P of the position and, for ever after, Q of the position. Its association of what is left
over is the stage ``leftover=Stage("nll", tau)``.

``uncertainty="covariance"`` is exact: the detection's covariance in the unit and coordinates that it was
declared in is R, and P of the position of a track that it begins; Q stays the tracker's, and all tracks are
predicted.
"""

from __future__ import annotations

import numpy as np

from mot_cup._association import FREE, MEASURES, Stage
from mot_cup._boxes import Floats
from mot_cup._bytetrack_step import NOTES, run
from mot_cup._noise import NOISE, Noise, PaperCompat, Uncertainty
from mot_cup._state_models import StateModel, model_number
from mot_cup._tracker import CAPACITY, Tracker, check_uncertainty
from mot_cup._tracks import Ints
from tenfold import SettingError


class ByteTrack(Tracker):
    """Tracking that also uses detections of low score, for tracks that have no other.

    Parameters
    ----------
    track_thresh : float
        Detections of a higher score are high.
    low_thresh : float
        Detections of a score between this and `track_thresh` are low.
    new_thresh : float, optional
        Least score of a detection that begins a track, `track_thresh` + 0.1 by default.
    match_thresh : float
        Greatest cost 1 - overlap * score of a high detection and a track.
    second_thresh : float
        Greatest cost 1 - overlap of a low detection and a track.
    unconfirmed_thresh : float
        As `match_thresh`, for tracks of one detection.
    duplicate_thresh : float
        Of a lost track and another whose 1 - overlap is less, the shorter-lived ends.
    track_buffer : int
        Frames that a track is kept without a detection, at 30 frames a second.
    frame_rate : float
        Frames a second, which scales `track_buffer`.
    fuse_score : bool
        Whether costs count the score; the authors do so except on MOT20.
    edge : float
        What overlaps add to widths and heights, in `unit`: the authors count a pixel at both edges.
    leftover : Stage, optional
        Association of what the low scores leave over, tracks of one detection at last too.
    state : {"xyah", "xywh"}, optional
        State model: ``"xywh"`` with the detections' covariances, else ``"xyah"``.
    noise : Noise, optional
        Variances of the filter, in the coordinates of the state; by default those of the model
        (`mot_cup.NOISE`).
    uncertainty : {"off", "covariance"} or PaperCompat
        See `mot_cup._bytetrack`.
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
        track_thresh: float = 0.6,
        low_thresh: float = 0.1,
        new_thresh: float | None = None,
        match_thresh: float = 0.9,
        second_thresh: float = 0.5,
        unconfirmed_thresh: float = 0.7,
        duplicate_thresh: float = 0.15,
        track_buffer: int = 30,
        frame_rate: float = 30,
        fuse_score: bool = True,
        edge: float = 1.0,
        leftover: Stage | None = None,
        state: StateModel | None = None,
        noise: Noise | None = None,
        uncertainty: Uncertainty = "off",
        per_class: bool = False,
        unit: str = "px",
    ) -> None:
        shares = (track_thresh, low_thresh, match_thresh, second_thresh, unconfirmed_thresh, duplicate_thresh)
        if not all(0 <= share <= 1 for share in shares):
            raise SettingError(f"thresholds {shares}", "numbers from 0 to 1", "Correct them.")
        if not (track_buffer >= 0 and 0 < frame_rate < np.inf and 0 <= edge < np.inf):
            raise SettingError(
                f"track_buffer {track_buffer}, frame_rate {frame_rate} and edge {edge}",
                "0 or more, the frame rate positive",
                "Correct them.",
            )
        check_uncertainty(uncertainty)
        if state == "xysr":
            raise SettingError("the state xysr", '"xyah" or "xywh"', "Noise here grows with the height.")
        chosen: StateModel = state or ("xywh" if uncertainty == "covariance" else "xyah")
        limits = [
            track_thresh,
            low_thresh,
            track_thresh + 0.1 if new_thresh is None else new_thresh,
            match_thresh,
            second_thresh,
            unconfirmed_thresh,
            duplicate_thresh,
            int(frame_rate / 30.0 * track_buffer),
            edge,
            leftover.limit if leftover else 0.0,
        ]
        self._rules = (
            (noise or NOISE[chosen]).table(),
            np.array(limits, dtype=np.float64),
            model_number(chosen),
            MEASURES.index(leftover.measure) if leftover else FREE,
            bool(fuse_score),
            bool(per_class),
            isinstance(uncertainty, PaperCompat),
            uncertainty == "covariance",
        )
        super().__init__(chosen, uncertainty, unit)

    def _begin(self) -> None:
        self._notes = np.zeros((CAPACITY, NOTES))
        self._tracker = np.array([0.0, 1.0, 0.0, 0.0])

    def _run(self, rows: Floats, starts: Ints, errors: Floats, steps: Floats, out: Floats) -> Ints:
        self._filters, self._notes, ends = run(
            self._filters, self._notes, self._tracker, rows, starts, errors, steps, out, *self._rules
        )
        return ends
