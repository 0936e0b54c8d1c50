"""Multi-object tracking with calibrated detection uncertainty."""

from mot_cup._association import Stage
from mot_cup._bytetrack import ByteTrack
from mot_cup._detections import BoxCovariance, Detections, DetectionSequence
from mot_cup._filterpy import FilterpyModel
from mot_cup._innovations import Innovations
from mot_cup._noise import BYTETRACK_PAPER_FACTORS, NOISE, PAPER_FACTORS, Noise, PaperCompat, height_noise
from mot_cup._ocsort import OCSort
from mot_cup._rotated import RotatedDetections
from mot_cup._rotated_sort import RotatedNoise, RotatedSort, RotatedTracks
from mot_cup._sort import Sort
from mot_cup._tracks import Tracks

__version__ = "0.1.0"

__all__ = [
    "BYTETRACK_PAPER_FACTORS",
    "NOISE",
    "PAPER_FACTORS",
    "BoxCovariance",
    "ByteTrack",
    "DetectionSequence",
    "Detections",
    "FilterpyModel",
    "Innovations",
    "Noise",
    "OCSort",
    "PaperCompat",
    "RotatedDetections",
    "RotatedNoise",
    "RotatedSort",
    "RotatedTracks",
    "Sort",
    "Stage",
    "Tracks",
    "__version__",
    "height_noise",
]
