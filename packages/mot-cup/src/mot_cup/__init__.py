"""Multi-object tracking with calibrated detection uncertainty."""

from mot_cup._bytetrack import ByteTrack
from mot_cup._detections import BoxCovariance, Detections
from mot_cup._ocsort import OCSort
from mot_cup._tracks import Tracks

__version__ = "0.1.0"

__all__ = ["BoxCovariance", "ByteTrack", "Detections", "OCSort", "Tracks", "__version__"]
