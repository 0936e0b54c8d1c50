"""Readers and writers of tracking files: MOTChallenge, KITTI, V2X-Sim.

Detections come as a `DetectionSequence`, a mapping from frame to `Detections`, which trackers take; boxes
with identities, truth or results, as `Tracks`. `read_detections` and `read_tracks` find out the format by
themselves.

A wrong line ends in a `tenfold.DataError` that names the file and the line. Files are written to a temporary
one, then renamed, with as many digits as bring back the same numbers.
"""

from __future__ import annotations

from pathlib import Path

from mot_cup._detections import DetectionSequence
from mot_cup._kitti import (
    KITTI_TYPES,
    KittiObjects,
    read_kitti_detections,
    read_kitti_tracks,
    write_kitti_detections,
    write_kitti_tracks,
)
from mot_cup._mot import (
    SequenceInfo,
    read_mot_detections,
    read_mot_tracks,
    read_sequence_info,
    write_mot_detections,
    write_mot_tracks,
    write_sequence_info,
)
from mot_cup._mot_covariances import read_mot_covariances, write_mot_covariances
from mot_cup._tracks import Tracks
from mot_cup._v2xsim import (
    PIXELS_PER_METRE,
    V2XSimSequence,
    read_v2xsim,
    read_v2xsim_detections,
    write_v2xsim_detections,
)

__all__ = [
    "KITTI_TYPES",
    "PIXELS_PER_METRE",
    "KittiObjects",
    "SequenceInfo",
    "V2XSimSequence",
    "read_detections",
    "read_kitti_detections",
    "read_kitti_tracks",
    "read_mot_covariances",
    "read_mot_detections",
    "read_mot_tracks",
    "read_sequence_info",
    "read_tracks",
    "read_v2xsim",
    "read_v2xsim_detections",
    "write_kitti_detections",
    "write_kitti_tracks",
    "write_mot_covariances",
    "write_mot_detections",
    "write_mot_tracks",
    "write_sequence_info",
    "write_v2xsim_detections",
]


def read_detections(path: Path) -> DetectionSequence:
    """Read detections in pixels, by the number of values in a line.

    V2X-Sim's have 14, KITTI's 15, MOTChallenge's with covariances 20, and the rest are MOTChallenge's.

    Raises
    ------
    DataError
        As the reader of the format does.
    """
    commas = _first_line(path).count(",")
    if commas == 13:
        return read_v2xsim_detections(path)
    if commas == 14:
        return read_kitti_detections(path).detections()
    if commas == 19:
        return read_mot_covariances(path)
    return read_mot_detections(path)


def read_tracks(path: Path) -> Tracks:
    """Read truth or results in pixels: KITTI's where lines have no commas, else MOTChallenge's.

    Raises
    ------
    DataError
        As the reader of the format does.
    """
    first = _first_line(path)
    if first.strip() and "," not in first:
        return read_kitti_tracks(path).tracks()
    return read_mot_tracks(path)


def _first_line(path: Path) -> str:
    """Return the first line that is not empty; what cannot be read is left to the readers to say."""
    try:
        with path.open(encoding="utf-8") as file:
            return next((line for line in file if line.strip()), "")
    except (OSError, UnicodeDecodeError):
        return ""
