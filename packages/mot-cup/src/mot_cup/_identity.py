"""Identity metrics: IDF1, IDP, IDR (Ristani et al., ECCV workshops 2016).

    IDF1 = IDTP / (IDTP + IDFP / 2 + IDFN / 2)

Every true identity has at most one track in the whole sequence, and the other way round, so that most boxes
agree: those of the pair in the same frame with a similarity that reaches the threshold, IDTP in all.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mot_cup._boxes import Floats
from mot_cup._compiled import compiled
from mot_cup._matching import match_positive
from mot_cup._pairing import Pairing, similarity


@dataclass(frozen=True)
class Identity:
    """Counts that the identity metrics are made of.

    Attributes
    ----------
    idtp, idfn, idfp : int
        Numbers of boxes under the right identity, and of the others of the truth and of the tracks.
    """

    idtp: int
    idfn: int
    idfp: int

    def __add__(self, other: Identity) -> Identity:
        """Return the counts of both."""
        return Identity(self.idtp + other.idtp, self.idfn + other.idfn, self.idfp + other.idfp)

    def figures(self) -> dict[str, float]:
        """Return metrics and counts."""
        return {
            "IDF1": self.idtp / max(1, self.idtp + 0.5 * self.idfp + 0.5 * self.idfn),
            "IDR": self.idtp / max(1, self.idtp + self.idfn),
            "IDP": self.idtp / max(1, self.idtp + self.idfp),
            "IDTP": self.idtp,
            "IDFN": self.idfn,
            "IDFP": self.idfp,
        }


def count_identity(pairing: Pairing, threshold: float) -> Identity:
    """Count what the identity metrics are made of."""
    n, m = len(pairing.truth_ids), len(pairing.track_ids)
    identities, tracks = (int(ids.max(initial=-1)) + 1 for ids in (pairing.truth_ids, pairing.track_ids))
    agreeing = _agreeing(pairing, identities, tracks, threshold)
    columns = match_positive(agreeing)
    idtp = int(agreeing[columns >= 0, columns[columns >= 0]].sum())
    return Identity(idtp, n - idtp, m - idtp)


@compiled
def _agreeing(pairing: Pairing, identities: int, tracks: int, threshold: float) -> Floats:
    """Return the number of frames in which two identities agree, of shape (identities, tracks)."""
    counts = np.zeros((identities, tracks))
    for frame in range(len(pairing.truth_starts) - 1):
        true = pairing.truth_ids[pairing.truth_starts[frame] : pairing.truth_starts[frame + 1]]
        tracked = pairing.track_ids[pairing.track_starts[frame] : pairing.track_starts[frame + 1]]
        values = similarity(pairing, frame)
        for row in range(len(true)):
            for column in range(len(tracked)):
                if values[row, column] >= threshold:
                    counts[true[row], tracked[column]] += 1
    return counts
