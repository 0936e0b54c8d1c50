"""CLEAR MOT: MOTA, MOTP and their counts (Bernardin and Stiefelhagen, EURASIP J. IVP 2008).

    MOTA = 1 - (FN + FP + IDSW) / boxes of the truth
    MOTP = mean similarity of TPs

Boxes are matched frame by frame where their similarity reaches the threshold: first the pairs of identities
that the frame before had, then most total similarity. An identity switch is a true identity matched to
another track than the last time it was matched. MT, PT and ML count true identities that are matched in more
than .8, in .2 to .8 and in less than .2 of their boxes; Frag counts interruptions.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from mot_cup._compiled import compiled
from mot_cup._matching import EPS, match_positive
from mot_cup._pairing import Pairing, similarity
from mot_cup._tracks import Ints


@dataclass(frozen=True)
class Clear:
    """Counts that the CLEAR metrics are made of.

    Attributes
    ----------
    tp, fn, fp : int
        Numbers of matched boxes, missed boxes of the truth and wrong boxes of the tracks.
    idsw, frag : int
        Numbers of identity switches and of interruptions.
    mt, pt, ml : int
        Numbers of true identities that are mostly tracked, partly tracked and mostly lost.
    frames : int
        Number of frames, 0 where there is no truth or no track.
    similarity : float
        Sum over the matches.
    """

    tp: int
    fn: int
    fp: int
    idsw: int
    frag: int
    mt: int
    pt: int
    ml: int
    frames: int
    similarity: float

    def __add__(self, other: Clear) -> Clear:
        """Return the counts of both."""
        return Clear(*(getattr(self, name) + getattr(other, name) for name in self.__dataclass_fields__))

    def figures(self) -> dict[str, float]:
        """Return metrics and counts.

        Without truth its shares are 0, and MLR is 1.
        """
        boxes, identities = max(1, self.tp + self.fn), max(1, self.mt + self.pt + self.ml)
        # No error is counted against a truth that is not there.
        fp, idsw = (self.fp, self.idsw) if self.tp + self.fn else (0, 0)
        return {
            "MOTA": (self.tp - fp - idsw) / boxes,
            "MOTP": self.similarity / max(1, self.tp),
            "MODA": (self.tp - fp) / boxes,
            "MOTAL": (self.tp - fp - (math.log10(idsw) if idsw else 0)) / boxes,
            "sMOTA": (self.similarity - fp - idsw) / boxes,
            "CLR_Re": self.tp / boxes,
            "CLR_Pr": self.tp / max(1, self.tp + self.fp),
            "CLR_F1": self.tp / max(1, self.tp + 0.5 * self.fn + 0.5 * self.fp),
            "FP_per_frame": fp / max(1, self.frames),
            "MTR": self.mt / identities,
            "PTR": self.pt / identities,
            "MLR": self.ml / identities if self.tp + self.fn else 1.0,
            "MOTP_sum": self.similarity,
            "CLR_TP": self.tp,
            "CLR_FN": self.fn,
            "CLR_FP": self.fp,
            "IDSW": self.idsw,
            "MT": self.mt,
            "PT": self.pt,
            "ML": self.ml,
            "Frag": self.frag,
            "CLR_Frames": self.frames,
        }


def count_clear(pairing: Pairing, frames: int, threshold: float) -> Clear:
    """Count what the CLEAR metrics are made of, in a sequence of so many frames."""
    n, m = len(pairing.truth_ids), len(pairing.track_ids)
    boxes = np.bincount(pairing.truth_ids)
    if not n or not m:
        return Clear(0, n, m, 0, 0, 0, 0, len(boxes), 0, 0.0)
    tp, idsw, frag, total, matched = _count(pairing, len(boxes), threshold)
    share = matched / boxes
    mt, tracked = int((share > 0.8).sum()), int((share >= 0.2).sum())
    return Clear(tp, n - tp, m - tp, idsw, frag, mt, tracked - mt, len(boxes) - tracked, frames, total)


@compiled
def _count(pairing: Pairing, identities: int, threshold: float) -> tuple[int, int, int, float, Ints]:
    """Return TP, IDSW, Frag, the sum of similarities and the number of matched boxes of every identity."""
    tp, idsw, total = 0, 0, 0.0
    matched, starts = np.zeros(identities, np.int64), np.zeros(identities, np.int64)
    # The track of a true identity when it was last matched, and in the frame before.
    last, before = np.full(identities, -1), np.full(identities, -1)
    for frame in range(len(pairing.truth_starts) - 1):
        true = pairing.truth_ids[pairing.truth_starts[frame] : pairing.truth_starts[frame + 1]]
        tracked = pairing.track_ids[pairing.track_starts[frame] : pairing.track_starts[frame + 1]]
        if len(true) == 0 or len(tracked) == 0:
            continue
        values = similarity(pairing, frame)
        scores = np.zeros_like(values)
        for row in range(len(true)):
            for column in range(len(tracked)):
                if values[row, column] >= threshold - EPS:
                    scores[row, column] = values[row, column]
                    if before[true[row]] == tracked[column]:
                        scores[row, column] += 1000
        columns = match_positive(scores)
        now = np.full(identities, -1)
        for row in range(len(true)):
            column = columns[row]
            if column < 0:
                continue
            identity, track = true[row], tracked[column]
            tp += 1
            total += values[row, column]
            idsw += 0 <= last[identity] != track
            starts[identity] += before[identity] < 0
            matched[identity] += 1
            last[identity] = now[identity] = track
        before = now
    return tp, idsw, np.maximum(starts - 1, 0).sum(), total, matched
