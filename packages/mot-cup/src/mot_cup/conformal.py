"""Conformal calibration of a detector's uncertainty.

>>> matches = pooled([match(detections, truth) for detections, truth in sequences])  # doctest: +SKIP
>>> calibration = calibrate(matches, level=0.9973)                                   # doctest: +SKIP
>>> calibration.save(Path("calibration.json"))                                       # doctest: +SKIP
>>> calibrated = calibration.apply(frame)                                            # doctest: +SKIP

Split conformal (`calibrate`, `conformal_quantiles`) covers what is exchangeable with the calibration data.
`ConformalControl` and `AdaptiveConformal` keep the coverage on a stream that is not, where labels come in
after their frame;
`InnovationConformal` follows a filter's innovations where none do, and is only as good as the filter.
Coverage is always of *matched* detections: see `match`.
"""

from mot_cup._conformal.adaptive import AdaptiveConformal, Tracked, choose_step
from mot_cup._conformal.calibration import Calibration, calibrate
from mot_cup._conformal.control import ConformalControl, choose_gains
from mot_cup._conformal.innovations import InnovationConformal
from mot_cup._conformal.matching import Matches, match, pooled
from mot_cup._conformal.online import Assessment, OnlineConformal, Stream, assess, assess_quantiles
from mot_cup._conformal.split import (
    PAPER_LEVEL,
    Region,
    bonferroni_quantiles,
    conformal_quantiles,
    max_score_quantiles,
    normal_deviations,
    region_quantiles,
    scaled_sigma,
    smallest_size,
)

__all__ = [
    "PAPER_LEVEL",
    "AdaptiveConformal",
    "Assessment",
    "Calibration",
    "ConformalControl",
    "InnovationConformal",
    "Matches",
    "OnlineConformal",
    "Region",
    "Stream",
    "Tracked",
    "assess",
    "assess_quantiles",
    "bonferroni_quantiles",
    "calibrate",
    "choose_gains",
    "choose_step",
    "conformal_quantiles",
    "match",
    "max_score_quantiles",
    "normal_deviations",
    "pooled",
    "region_quantiles",
    "scaled_sigma",
    "smallest_size",
]
