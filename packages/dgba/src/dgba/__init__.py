"""Soft thresholding of noisy sparse vectors.

>>> import numpy as np
>>> soft_threshold(np.array([-3.0, 0.5, 2.0]), 1.0)
array([-2.,  0.,  1.])
"""

from dgba._soft_threshold import soft_threshold, universal_threshold

__version__ = "0.1.0"

__all__ = ["__version__", "soft_threshold", "universal_threshold"]
