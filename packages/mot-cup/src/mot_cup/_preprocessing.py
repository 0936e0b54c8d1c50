"""What MOTChallenge and KITTI leave out of truth and tracks before they count.

In MOTChallenge's truth a box has a class, and a mark that is 0 where the box is not to be found. Then

1. boxes of the truth of all classes and the tracks' boxes are matched by most total overlap, at least .5;
   the tracks' boxes that are matched to a distractor (a person on a vehicle, a reflection, ...) are left out,
   neither right nor wrong;
2. boxes of the truth that are no pedestrians, or whose mark is 0, are left out.

MOT15 has no classes: there only the mark counts. KITTI counts cars or pedestrians:

1. boxes of the truth of the type and of its like (vans for cars, sitting persons for pedestrians) and the
   tracks' boxes are matched as above; the tracks' boxes that are matched to one of the like, or to one that
   is truncated or largely occluded, are left out;
2. so are the tracks' boxes without a match that are at most 25 pixels high, or lie in a DontCare region by
   more than half;
3. boxes of the truth that are of the like, truncated or largely occluded are left out.
"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np

from mot_cup._boxes import Floats
from mot_cup._compiled import compiled
from mot_cup._kitti import KITTI_TYPES, KittiObjects
from mot_cup._matching import EPS, match_positive
from mot_cup._pairing import Pairing, pair, similarity
from mot_cup._tracks import Ints, Tracks
from tenfold import DataError, UnknownNameError

MotChallenge = Literal["MOT15", "MOT16", "MOT17", "MOT20"]
PEDESTRIAN, CLASSES = 1, 13
# Person on vehicle, static person, distractor, reflection.
DISTRACTORS = (2, 7, 8, 12)
NON_MOT_VEHICLE = 6
KittiType = Literal["Car", "Pedestrian"]
LIKE: dict[KittiType, str] = {"Car": "Van", "Pedestrian": "Person"}
MAX_OCCLUDED, MIN_HEIGHT = 2, 25


def mot_challenge(truth: Tracks, tracks: Tracks, benchmark: MotChallenge = "MOT17") -> tuple[Tracks, Tracks]:
    """Return truth and tracks without what a MOTChallenge benchmark leaves out.

    Parameters
    ----------
    truth : Tracks
        Its scores are the marks, and its classes those of MOTChallenge, 1 to 13, as
        `mot_cup.io.read_mot_tracks` reads them.
    tracks : Tracks
    benchmark : {"MOT15", "MOT16", "MOT17", "MOT20"}

    Raises
    ------
    DataError
        A class of the truth is unknown, or a track is of another class than pedestrian (1) or none.
    UnknownNameError
        There is no such benchmark.
    """
    if benchmark not in get_args(MotChallenge):
        raise UnknownNameError("MOTChallenge benchmark", benchmark, get_args(MotChallenge))
    marked = np.trunc(truth.scores) != 0
    if (tracks.classes > PEDESTRIAN).any():
        raise DataError(
            f"tracks of class {tracks.classes.max()}",
            "pedestrians (1) or no classes",
            "Leave the others out: MOTChallenge counts pedestrians.",
        )
    if benchmark == "MOT15":
        return truth[marked], tracks
    unknown = truth.classes[(truth.classes < 1) | (truth.classes > CLASSES)]
    if len(unknown):
        raise DataError(
            f"class {unknown[0]} in the truth",
            f"classes from 1 to {CLASSES}",
            "Use MOT15, or no preprocessing, for truth without classes.",
        )
    distractors = DISTRACTORS + ((NON_MOT_VEHICLE,) if benchmark == "MOT20" else ())
    rows = matched_rows(pair(truth, tracks), 0.5)
    matched_class = np.append(truth.classes, 0)[rows]
    return truth[marked & (truth.classes == PEDESTRIAN)], tracks[~np.isin(matched_class, distractors)]


def kitti(labels: KittiObjects, tracks: Tracks, kind: KittiType = "Car") -> tuple[Tracks, Tracks]:
    """Return truth and tracks of a type without what KITTI's tracking benchmark leaves out.

    Parameters
    ----------
    labels : KittiObjects
        As `mot_cup.io.read_kitti_tracks` reads them, DontCare included.
    tracks : Tracks
        In pixels. Of the type, or without classes (0); others are left out.
    kind : {"Car", "Pedestrian"}

    Raises
    ------
    UnknownNameError
        KITTI does not evaluate the type.
    """
    if kind not in LIKE:
        raise UnknownNameError("type that KITTI evaluates", kind, LIKE)
    some, number = labels.of(kind, LIKE[kind]), KITTI_TYPES.index(kind)
    tracks = tracks[np.isin(tracks.classes, (0, number))]
    counts = (some.classes == number) & (some.occluded <= MAX_OCCLUDED) & (some.truncated <= 0)
    rows = matched_rows(pair(some.tracks(), tracks), 0.5)
    beside = ~np.append(counts, True)[rows]
    small = tracks.boxes[:, 3] - tracks.boxes[:, 1] <= MIN_HEIGHT + EPS
    unlabelled = _covered(labels.of("DontCare"), tracks) > 0.5 + EPS
    keep = np.where(rows >= 0, ~beside, ~(small | unlabelled))
    return some.tracks()[counts], tracks[keep]


def _covered(regions: KittiObjects, tracks: Tracks) -> Floats:
    """Return the largest share of every box of the tracks that a region of its frame covers."""
    result = np.zeros(len(tracks))
    for frame, rows in tracks.by_frame():
        boxes, others = tracks.boxes[rows, None], regions.boxes[regions.frames == frame]
        sides = np.minimum(boxes[..., 2:], others[:, 2:]) - np.maximum(boxes[..., :2], others[:, :2])
        areas = (boxes[..., 2:] - boxes[..., :2]).prod(2)
        shares = np.maximum(sides, 0).prod(2) / np.where(areas > EPS, areas, np.inf)
        result[rows] = shares.max(1, initial=0)
    return result


@compiled
def matched_rows(pairing: Pairing, threshold: float) -> Ints:
    """Return the row of the truth that every box of the tracks is matched to, -1 where it is to none."""
    rows = np.full(len(pairing.track_ids), -1)
    for frame in range(len(pairing.truth_starts) - 1):
        values = similarity(pairing, frame)
        columns = match_positive(np.where(values >= threshold - EPS, values, 0.0))
        for row in range(len(columns)):
            if columns[row] >= 0:
                rows[pairing.track_starts[frame] + columns[row]] = pairing.truth_starts[frame] + row
    return rows
