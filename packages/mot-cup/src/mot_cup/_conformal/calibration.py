"""What a calibration found, kept: quantiles that turn a detector's covariances into calibrated ones.

The detector's covariance S becomes D S D with D = diag(q) / k, where k is how many standard deviations a
normal error reaches at the level: sigma q / 3 in the paper, at 0.9973. Correlations stay as they are.

The quantiles are ratios, so that a calibration made in metres holds for pixels. They belong to one
parametrisation of the box and to one detector.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mot_cup._boxes import Floats, Space, check_space
from mot_cup._conformal.matching import Matches, covariance_in, sigma
from mot_cup._conformal.split import (
    PAPER_LEVEL,
    Region,
    check_region,
    normal_deviations,
    region_quantiles,
)
from mot_cup._detections import BoxCovariance, Detections
from mot_cup._tracks import Ints
from mot_cup.scores import check_level
from tenfold import DataError
from tenfold.experiment import write_json

SCHEMA = "mot-cup.calibration/1"


@dataclass(frozen=True)
class Calibration:
    """Conformal quantiles of a detector.

    Parameters
    ----------
    quantiles : ndarray of float64
        Shape (k, 4): a row for each of `classes`, or one row.
    sizes : ndarray of int64
        Shape (k,): from how many matched detections each row is.
    classes : ndarray of int64, optional
        Shape (k,); None when the row holds for all classes.
    level : float
        The nominal coverage, of matched detections.
    space : {"xyxy", "xywh", "xyah", "xysr"}
        The dimensions of the quantiles.
    region : {"each", "max-score", "bonferroni"}
        Whether the level is of every dimension by itself or of all four at once.

    Raises
    ------
    DataError
        Shapes do not fit, or a quantile is negative or not finite.
    SettingError, UnknownNameError
        The level, space or region is not one.
    """

    quantiles: Floats
    sizes: Ints
    classes: Ints | None = None
    level: float = PAPER_LEVEL
    space: Space = "xywh"
    region: Region = "each"

    def __post_init__(self) -> None:
        check_level(self.level)
        check_space(self.space)
        check_region(self.region)
        quantiles = np.asarray(self.quantiles, dtype=np.float64)
        sizes = np.asarray(self.sizes, dtype=np.int64)
        classes = None if self.classes is None else np.asarray(self.classes, dtype=np.int64)
        rows = 1 if classes is None else len(classes)
        if quantiles.shape != (rows, 4) or sizes.shape != (rows,):
            raise DataError(
                f"quantiles of shape {quantiles.shape} and sizes of {sizes.shape}",
                f"shapes ({rows}, 4) and ({rows},)",
                "Make a calibration by calibrate.",
            )
        if not (np.isfinite(quantiles) & (quantiles >= 0)).all():
            raise DataError(
                f"quantiles {quantiles.tolist()}", "finite, 0 or more", "Make a calibration by calibrate."
            )
        for name, value in (("quantiles", quantiles), ("sizes", sizes), ("classes", classes)):
            object.__setattr__(self, name, value)

    @property
    def deviations(self) -> float:
        """How many standard deviations of a normal error the region reaches: 3 in the paper."""
        return normal_deviations(self.level, self.region)

    def half_widths(self, detections: Detections) -> Floats:
        """Return half the length of the interval around each coordinate, of shape (n, 4).

        Parameters
        ----------
        detections : Detections
            With a covariance; the widths are in the detections' unit and in `space`.

        Raises
        ------
        DataError
            There is no covariance, one is 0 in a dimension, or a class was not calibrated.
        """
        return sigma(detections, self.space) * self._rows(detections)

    def covariance(self, detections: Detections) -> BoxCovariance:
        """Return the calibrated covariances of detections, in `space` and the detections' unit.

        Errors are those of `half_widths`.
        """
        own = covariance_in(self.space, detections)
        factors = self._rows(detections) / self.deviations
        return BoxCovariance(
            own.matrices * factors[:, :, None] * factors[:, None, :], self.space, detections.unit
        )

    def apply(self, detections: Detections) -> Detections:
        """Return the detections with their calibrated covariances; empty frames come back as they are."""
        if not len(detections):
            return detections
        return dataclasses.replace(detections, covariance=self.covariance(detections))

    def save(self, path: Path) -> None:
        """Write the calibration as JSON, whole or not at all.

        Raises
        ------
        OutputError
            The file cannot be written.
        """
        document = {"schema": SCHEMA, **dataclasses.asdict(self)}
        for name in ("quantiles", "sizes", "classes"):
            value = document[name]
            document[name] = None if value is None else value.tolist()
        write_json(path, document)

    @classmethod
    def load(cls, path: Path) -> Calibration:
        """Read what `save` wrote.

        Raises
        ------
        DataError
            The file is missing, is not JSON, or is not a calibration.
        """
        try:
            document: Any = json.loads(path.read_text(encoding="utf-8"))
            if document.pop("schema") != SCHEMA:
                raise ValueError("another schema")
            return cls(**document)
        except (OSError, ValueError, AttributeError, KeyError, TypeError, DataError, LookupError) as error:
            raise DataError(
                f"the calibration {path} cannot be read ({error})",
                f"a file of schema {SCHEMA} written by Calibration.save",
                "Run mot-cup calibrate again.",
            ) from error

    def _rows(self, detections: Detections) -> Floats:
        if self.classes is None:
            return np.broadcast_to(self.quantiles, (len(detections), 4))
        equal = detections.classes[:, None] == self.classes
        if not equal.any(axis=1).all():
            unknown = sorted(set(detections.classes.tolist()) - set(self.classes.tolist()))
            raise DataError(
                f"detections of the classes {unknown}",
                f"of those calibrated: {self.classes.tolist()}",
                "Calibrate them, or calibrate without per_class.",
            )
        return np.asarray(self.quantiles[equal.argmax(axis=1)])


def calibrate(
    matches: Matches,
    *,
    level: float = PAPER_LEVEL,
    space: Space = "xywh",
    region: Region = "each",
    per_class: bool = False,
) -> Calibration:
    """Calibrate a detector's covariances on matched detections.

    The coverage is of matched detections only, and only of such as are exchangeable with these: of other
    scenes it may be far from the level.

    Parameters
    ----------
    matches : Matches
        Of `match`, or several of them by `pooled`.
    level : float
        The nominal coverage.
    space : {"xyxy", "xywh", "xyah", "xysr"}
        In which dimensions the intervals are.
    region : {"each", "max-score", "bonferroni"}
        Whether the level is of every dimension by itself or of all four at once.
    per_class : bool
        Whether every class has quantiles of its own, from its own boxes.

    Raises
    ------
    DataError
        The detections have no covariance, or one is 0 in a dimension.
    SettingError
        The level needs more matched detections, of a class when `per_class`.
    UnknownNameError
        There is no such space or region.
    """
    scores = matches.scores(space) if len(matches) else np.empty((0, 4))
    if not per_class:
        quantiles = region_quantiles(scores, level, region)
        return Calibration(quantiles[None], np.array([len(scores)]), None, level, space, region)
    of = matches.detections.classes
    classes, sizes = np.unique(of, return_counts=True)
    rows = [region_quantiles(scores[of == number], level, region) for number in classes]
    return Calibration(np.array(rows).reshape(-1, 4), sizes, classes, level, space, region)
