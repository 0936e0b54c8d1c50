"""Metrics of tracks against truth: HOTA, CLEAR and identity metrics, in memory.

The three families are counted by `evaluate` for a sequence. `combine` adds the counts of several sequences,
which weighs them by their boxes; `average` takes the mean of their metrics, which weighs them alike. The
figures and their names are those of the public evaluation code TrackEval, as fractions, not percent.

One case in which the public code contradicts itself has one rule here. Of a sequence without truth TrackEval
reports a MOTA of 0, of the combination of such sequences alone minus the number of their boxes: here it is 0
in both. The like holds for MODA, MOTAL, sMOTA, MLR and FP_per_frame.

Benchmarks leave out some boxes before they count: `mot_challenge` and `kitti` do so. Nothing is left out
otherwise.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from mot_cup._clear import Clear, count_clear
from mot_cup._hota import ALPHAS, Hota, count_hota
from mot_cup._identity import Identity, count_identity
from mot_cup._pairing import pair
from mot_cup._preprocessing import KittiType, MotChallenge, kitti, mot_challenge
from mot_cup._tracks import Tracks
from tenfold import SettingError

__all__ = [
    "ALPHAS",
    "Clear",
    "Hota",
    "Identity",
    "KittiType",
    "MotChallenge",
    "Scores",
    "average",
    "combine",
    "evaluate",
    "kitti",
    "mot_challenge",
]


@dataclass(frozen=True)
class Scores:
    """Counts of a sequence or of several, and the metrics that follow from them.

    ``scores["HOTA"]`` is a metric; `figures` gives all, ``scores.hota.curves()`` those at every alpha.
    """

    hota: Hota
    clear: Clear
    identity: Identity

    def __add__(self, other: Scores) -> Scores:
        """Return the scores of both together."""
        return Scores(self.hota + other.hota, self.clear + other.clear, self.identity + other.identity)

    def __getitem__(self, name: str) -> float:
        """Return one of `figures`."""
        return self.figures()[name]

    def figures(self) -> dict[str, float]:
        """Return metrics and counts by their usual names; HOTA's are means over alpha."""
        return self.hota.figures() | self.clear.figures() | self.identity.figures()

    def state_dict(self) -> dict[str, dict[str, Any]]:
        """Return the counts as plain numbers and arrays."""
        return {name: dict(vars(part)) for name, part in vars(self).items()}

    @classmethod
    def from_state(cls, state: Mapping[str, Mapping[str, Any]]) -> Scores:
        """Return the scores whose `state_dict` this is."""
        return cls(Hota(**state["hota"]), Clear(**state["clear"]), Identity(**state["identity"]))


def evaluate(
    truth: Tracks,
    tracks: Tracks,
    *,
    similarities: Mapping[int, ArrayLike] | None = None,
    frames: int | None = None,
    threshold: float = 0.5,
) -> Scores:
    """Score tracks against truth.

    Parameters
    ----------
    truth, tracks : Tracks
        Of one sequence. Scores and classes are not looked at.
    similarities : mapping from frame to array_like, optional
        Of the truth's boxes with the tracks' boxes in a frame, each in their order, from 0 to 1, for every
        frame that has both: of rotated boxes, of 3-D boxes, of distances. Default: the intersection over
        union of the boxes.
    frames : int, optional
        Length of the sequence, for FP_per_frame alone. Default: from the first frame with a box to the last.
    threshold : float
        Similarity from which CLEAR and identity metrics take two boxes for one.

    Returns
    -------
    Scores

    Raises
    ------
    DataError
        Similarities of a frame have the wrong shape or are not between 0 and 1.
    SettingError
        The threshold is not above 0 and at most 1, similarities of a frame are missing, or there are more
        frames than the given number.
    """
    if not 0 < threshold <= 1:
        raise SettingError(f"threshold {threshold}", "above 0 and at most 1", "0.5 is usual.")
    if not (len(truth) or len(tracks)):
        span = 0
    else:
        both = np.concatenate([truth.frames, tracks.frames])
        span = int(both.max() - both.min()) + 1
    if frames is not None and frames < span:
        raise SettingError(
            f"{frames} frames and boxes over {span}", "all frames of the sequence", "Correct its length."
        )
    pairing = pair(truth, tracks, similarities)
    return Scores(
        count_hota(pairing),
        count_clear(pairing, span if frames is None else frames, threshold),
        count_identity(pairing, threshold),
    )


def combine(scores: Iterable[Scores]) -> Scores:
    """Return the scores of several sequences together: their counts added.

    Raises
    ------
    SettingError
        There are none.
    """
    first, *others = _some(scores)
    for other in others:
        first = first + other
    return first


def average(scores: Iterable[Scores]) -> dict[str, float]:
    """Return the mean of every figure over several sequences or their combinations.

    Raises
    ------
    SettingError
        There are none.
    """
    figures = [item.figures() for item in _some(scores)]
    return {name: float(np.mean([item[name] for item in figures])) for name in figures[0]}


def _some(scores: Iterable[Scores]) -> Sequence[Scores]:
    listed = list(scores)
    if not listed:
        raise SettingError("no scores", "those of at least one sequence", "Evaluate one.")
    return listed
