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

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike

from mot_cup._association import FREE, MEASURES, Stage
from mot_cup._boxes import Floats
from mot_cup._bytetrack_step import Live, Rules, make_live, room_for, run, step
from mot_cup._detections import Detections
from mot_cup._frames import check_step, correlated, errors_of, pack, rows_of, tracks_of
from mot_cup._kalman import to_dense
from mot_cup._noise import NOISE, Noise, PaperCompat, Uncertainty
from mot_cup._state_models import StateModel, model_number
from mot_cup._tracks import Tracks
from tenfold import SettingError


class ByteTrack:
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
        limits = (track_thresh, low_thresh, match_thresh, second_thresh, unconfirmed_thresh, duplicate_thresh)
        if not all(0 <= limit <= 1 for limit in limits):
            raise SettingError(f"thresholds {limits}", "numbers from 0 to 1", "Correct them.")
        if not (track_buffer >= 0 and 0 < frame_rate < np.inf and 0 <= edge < np.inf):
            raise SettingError(
                f"track_buffer {track_buffer}, frame_rate {frame_rate} and edge {edge}",
                "0 or more, the frame rate positive",
                "Correct them.",
            )
        if uncertainty not in ("off", "covariance") and not isinstance(uncertainty, PaperCompat):
            raise SettingError(
                f"uncertainty {uncertainty!r}", '"off", "covariance" or a PaperCompat', "Choose one of them."
            )
        self.uncertainty: Uncertainty = uncertainty
        self.unit = unit
        self.state: StateModel = state or ("xywh" if uncertainty == "covariance" else "xyah")
        if self.state == "xysr":
            raise SettingError(
                "the state xysr", '"xyah" or "xywh"', "ByteTrack's noise grows with the height."
            )
        self._rules = Rules(
            high=track_thresh,
            low=low_thresh,
            new=track_thresh + 0.1 if new_thresh is None else new_thresh,
            first_limit=match_thresh,
            second_limit=second_thresh,
            unconfirmed_limit=unconfirmed_thresh,
            duplicate_limit=duplicate_thresh,
            max_lost=float(int(frame_rate / 30.0 * track_buffer)),
            edge=float(edge),
            fuse_score=bool(fuse_score),
            leftover=MEASURES.index(leftover.measure) if leftover else FREE,
            leftover_limit=float(leftover.limit) if leftover else 0.0,
            model=model_number(self.state),
            per_class=bool(per_class),
            first_is_measured=uncertainty != "off",
            first_is_process=isinstance(uncertainty, PaperCompat),
            predict_unconfirmed=uncertainty == "covariance",
            noise=(noise or NOISE[self.state]).table(),
        )
        self._live: Live = make_live()

    def reset(self) -> None:
        """Forget all tracks and begin identities at 1 again."""
        self._live = make_live()

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
        if correlated(errors):
            self._live = self._live._replace(filters=to_dense(self._live.filters))
        if self._live.tracker[0] + rows > len(self._live.counts):
            self._live = room_for(self._live, rows)
