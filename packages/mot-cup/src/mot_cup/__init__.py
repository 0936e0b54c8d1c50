"""Multi-object tracking with calibrated detection uncertainty."""

from mot_cup._detections import BoxCovariance, Detections
from mot_cup._rotated import RotatedDetections
from mot_cup._tracks import Tracks

__version__ = "0.1.0"

__all__ = ["BoxCovariance", "Detections", "RotatedDetections", "Tracks", "__version__"]
