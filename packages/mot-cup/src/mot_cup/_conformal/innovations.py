"""The scale of a detector's errors from a filter's innovations, where no labels come in.

An innovation v, detection less prediction, has in a consistent filter the variance S = H P H' + R. Let kappa
be the conformal quantile of abs(v) / sqrt(S) on streams that a calibration holds for. On a stream where the
errors are m times what was calibrated, innovations miss kappa too often or too rarely, so that m can follow
them as adaptive conformal follows the misses of labels,

    log m <- log m + eta sum_i (miss_i - alpha),   miss_i: abs(v_i) > kappa sqrt(S_i),

when the filter gets R times m^2. The quantiles of the errors are then m times the calibrated ones.

This supposes more than labels do. What the detections of an object share over time, such as the edge of a car
that stays hidden for seconds, is in no innovation; and a turn that the filter does not expect looks like an
error. Try the step on streams with labels before it is used: where the coverage does not come nearer to the
level, innovations tell nothing of the errors, and the calibration should stay as it is.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import ArrayLike

from mot_cup._boxes import Floats
from mot_cup._conformal.calibration import Calibration
from mot_cup._conformal.split import check_scores, conformal_quantiles
from mot_cup._detections import BoxCovariance, Detections
from mot_cup._sort import Sort
from tenfold import DataError, SettingError


class InnovationConformal:
    """Calibrated covariances whose scale follows the innovations of one stream.

    Parameters
    ----------
    calibration : Calibration
        Of streams with labels; its space is that of the innovations.
    innovations : array_like
        abs(v) / sqrt(S) of a filter on streams that `calibration` holds for, with covariances by it, of shape
        (n, 4).
    level : float
        The nominal coverage 1 - alpha of innovations.
    step : float
        Eta, how far one innovation moves the logarithm of the scale.
    bound : float
        The scale stays between 1 / bound and bound: in a dimension where a filter trusts its prediction less
        than any detection, no scale makes the misses right.

    Attributes
    ----------
    scale : ndarray of float64
        Shape (4,): m, what multiplies the calibrated standard deviations and quantiles.

    Raises
    ------
    DataError
        The innovations are not of that shape, or one is negative or NaN.
    SettingError
        A number is out of its range, or the level needs more innovations.
    """

    def __init__(
        self,
        calibration: Calibration,
        innovations: ArrayLike,
        *,
        level: float = 0.9,
        step: float = 0.02,
        bound: float = 8.0,
    ) -> None:
        if not 0 <= step < np.inf or not 1 < bound < np.inf:
            raise SettingError(
                f"a step of {step} and a bound of {bound}", "0 or more, and more than 1", "Correct them."
            )
        self.calibration, self.level, self.step, self.bound = calibration, level, step, bound
        self._kappa = conformal_quantiles(_four(innovations), level)
        self.scale: Floats = np.ones(4)

    def apply(self, detections: Detections) -> Detections:
        """Return detections with covariances calibrated and scaled; empty frames come back as they are."""
        if not len(detections):
            return detections
        calibrated = self.calibration.covariance(detections)
        matrices = calibrated.matrices * np.outer(self.scale, self.scale)
        return dataclasses.replace(
            detections, covariance=BoxCovariance(matrices, calibrated.space, calibrated.unit)
        )

    def half_widths(self, detections: Detections) -> Floats:
        """Return half the length of the interval around each coordinate, of shape (n, 4)."""
        return self.calibration.half_widths(detections) * self.scale

    def track(self, tracker: Sort, detections: Detections, dt: float | None = None) -> Floats:
        """Track one frame with covariances of the scale as it is, then let its innovations move the scale.

        Parameters
        ----------
        tracker : Sort
            With `keep_innovations`, uncertainty ``"covariance"`` and a state of the calibration's space.
        detections : Detections
            As the detector gives them.
        dt : float, optional
            As for `Sort.update`.

        Returns
        -------
        ndarray of float64
            As of `Sort.update`.

        Raises
        ------
        SettingError
            The tracker is not of that kind.
        """
        if tracker.uncertainty != "covariance" or tracker.state != self.calibration.space:
            raise SettingError(
                f"a tracker of state {tracker.state} and uncertainty {tracker.uncertainty}",
                f"{self.calibration.space}, the calibration's, and covariance",
                "Make another.",
            )
        rows = tracker.update(self.apply(detections), dt)
        self.update(tracker.innovations.scores())
        return rows

    def update(self, innovations: ArrayLike) -> None:
        """Take the innovations of a frame whose detections came from `apply`, and move the scale.

        Parameters
        ----------
        innovations : array_like
            abs(v) / sqrt(S) of the frame's associated detections, of shape (n, 4); n may be 0.

        Raises
        ------
        DataError
            They are of another shape, or one is negative or NaN.
        """
        values = np.asarray(innovations, dtype=np.float64)
        if values.size == 0:
            return
        excess = ((_four(values) > self._kappa) - (1 - self.level)).sum(axis=0)
        self.scale = np.clip(self.scale * np.exp(self.step * excess), 1 / self.bound, self.bound)


def _four(innovations: ArrayLike) -> Floats:
    values = check_scores(innovations)
    if values.shape[1] != 4:
        raise DataError(f"innovations of {values.shape[1]} dimensions", "4", "Give all of a box.")
    return values
