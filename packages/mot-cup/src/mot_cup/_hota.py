"""HOTA: detection, association and localisation in one number (Luiten et al., IJCV 129, 2021).

    HOTA_a = sqrt(DetA_a AssA_a)          at a similarity of at least a = .05, .10, ... .95
    DetA_a = TP / (TP + FN + FP)
    AssA_a = mean over TPs c of A(c),     A(c) = TPA(c) / (TPA(c) + FNA(c) + FPA(c))
    LocA_a = mean similarity of TPs

TPA(c) counts the matches of c's two identities with each other, FNA(c) and FPA(c) the other boxes of the
true one and of the tracked one. Boxes are matched once for all a, by most total similarity times how well
their identities go together over the sequence. Only sums are kept, which add over sequences.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mot_cup._boxes import Floats
from mot_cup._compiled import compiled
from mot_cup._matching import EPS, column_sums, match_positive, row_sums
from mot_cup._pairing import Pairing, similarity
from mot_cup._tracks import Ints

ALPHAS = np.arange(0.05, 0.99, 0.05)


@dataclass(frozen=True)
class Hota:
    """Sums that HOTA is made of, each of shape (19,): a value for every alpha of `ALPHAS`.

    Attributes
    ----------
    tp, fn, fp : ndarray of float64
        Numbers of matched boxes, missed boxes of the truth and wrong boxes of the tracks.
    similarity : ndarray of float64
        Sum over the matches.
    association, recall, precision : ndarray of float64
        Sums over the matches of A(c), TPA / (TPA + FNA) and TPA / (TPA + FPA).
    """

    tp: Floats
    fn: Floats
    fp: Floats
    similarity: Floats
    association: Floats
    recall: Floats
    precision: Floats

    def __add__(self, other: Hota) -> Hota:
        """Return the sums over both."""
        return Hota(*(getattr(self, name) + getattr(other, name) for name in self.__dataclass_fields__))

    def curves(self) -> dict[str, Floats]:
        """Return the metrics at every alpha, each of shape (19,)."""
        matches = np.maximum(1, self.tp)
        det_re = self.tp / np.maximum(1, self.tp + self.fn)
        det_pr = self.tp / np.maximum(1, self.tp + self.fp)
        det_a = self.tp / np.maximum(1, self.tp + self.fn + self.fp)
        ass_a = self.association / matches
        return {
            "HOTA": np.sqrt(det_a * ass_a),
            "DetA": det_a,
            "AssA": ass_a,
            "DetRe": det_re,
            "DetPr": det_pr,
            "AssRe": self.recall / matches,
            "AssPr": self.precision / matches,
            # Perfect where nothing is matched.
            "LocA": np.maximum(1e-10, self.similarity) / np.maximum(1e-10, self.tp),
            "OWTA": np.sqrt(det_re * ass_a),
        }

    def figures(self) -> dict[str, float]:
        """Return the metrics as means over alpha, and at the first alpha as ``HOTA(0)`` and so on."""
        curves = self.curves()
        first_hota, first_loc = float(curves["HOTA"][0]), float(curves["LocA"][0])
        return {name: float(values.mean()) for name, values in curves.items()} | {
            "HOTA(0)": first_hota,
            "LocA(0)": first_loc,
            "HOTALocA(0)": first_hota * first_loc,
        }


def count_hota(pairing: Pairing) -> Hota:
    """Count what HOTA is made of."""
    truth_count, track_count = np.bincount(pairing.truth_ids), np.bincount(pairing.track_ids)
    true, tracked, overlap = _matches(pairing, truth_count, track_count)
    pairs, which = np.unique(true * len(track_count) + tracked, return_inverse=True)
    # Every match counts for the alphas that it reaches: the first so many.
    levels = len(ALPHAS) + 1
    level = np.searchsorted(ALPHAS - EPS, overlap, side="right")
    place = which * levels + level
    counts, similarities = (
        np.bincount(place, weights, len(pairs) * levels)
        .reshape(len(pairs), levels)[:, :0:-1]
        .cumsum(1)[:, ::-1]
        for weights in (np.ones(len(place)), overlap)
    )
    tp = counts.sum(0)
    true_boxes = truth_count[pairs // max(1, len(track_count)), None]
    tracked_boxes = track_count[pairs % max(1, len(track_count)), None]
    return Hota(
        tp,
        len(pairing.truth_ids) - tp,
        len(pairing.track_ids) - tp,
        similarities.sum(0),
        (counts**2 / (true_boxes + tracked_boxes - counts)).sum(0),
        (counts**2 / true_boxes).sum(0),
        (counts**2 / tracked_boxes).sum(0),
    )


@compiled
def _matches(pairing: Pairing, truth_count: Ints, track_count: Ints) -> tuple[Ints, Ints, Floats]:
    """Return true identity, tracked identity and similarity of every match."""
    frames = len(pairing.truth_starts) - 1
    # How often two identities are alike, a box that resembles many counting little for each.
    alike = np.zeros((len(truth_count), len(track_count)))
    most = 0
    for frame in range(frames):
        true = pairing.truth_ids[pairing.truth_starts[frame] : pairing.truth_starts[frame + 1]]
        tracked = pairing.track_ids[pairing.track_starts[frame] : pairing.track_starts[frame + 1]]
        values = similarity(pairing, frame)
        most += min(values.shape)
        across, down = row_sums(values), column_sums(values)
        for row in range(len(true)):
            for column in range(len(tracked)):
                value = values[row, column]
                if value > 0:
                    shared = down[column] + across[row] - value
                    if shared > EPS:
                        alike[true[row], tracked[column]] += value / shared
    all_true, all_tracked, overlap = np.empty(most, np.int64), np.empty(most, np.int64), np.empty(most)
    found = 0
    for frame in range(frames):
        true = pairing.truth_ids[pairing.truth_starts[frame] : pairing.truth_starts[frame + 1]]
        tracked = pairing.track_ids[pairing.track_starts[frame] : pairing.track_starts[frame + 1]]
        values = similarity(pairing, frame)
        scores = np.zeros_like(values)
        for row in range(len(true)):
            for column in range(len(tracked)):
                if values[row, column] <= 0:
                    continue
                both = alike[true[row], tracked[column]]
                union = truth_count[true[row]] + track_count[tracked[column]] - both
                scores[row, column] = both / union * values[row, column]
        columns = match_positive(scores)
        for row in range(len(true)):
            if columns[row] >= 0:
                all_true[found], all_tracked[found] = true[row], tracked[columns[row]]
                overlap[found] = values[row, columns[row]]
                found += 1
    return all_true[:found], all_tracked[:found], overlap[:found]
