"""Metrics of the usual tasks, as sums over images.

A metric of a data set is a function of statistics that add up over images, such as the pixels that are
right and the pixels there are. So a data set streams through, and a bootstrap over images is a product
of resampling counts with the matrix of statistics, shape (images, k).

The paper reports, for NYUv2: mean IoU and pixel accuracy; mean and median angle and the share of angles
within 11.25, 22.5 and 30 degrees; absolute and relative error and the share of depths within factors
1.25, 1.25^2 and 1.25^3; for Tiny-Taskonomy the mean absolute error of keypoints and edges.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from dgba._entries import check_classes, check_same_shape, directions, rows, valid_entries, valid_vectors


class Metric(ABC):
    """A metric of a data set by way of additive statistics per sample.

    Attributes
    ----------
    higher_is_better : bool
    """

    higher_is_better: bool

    @abstractmethod
    def statistics(self, output: Tensor, target: Tensor) -> Tensor:
        """Return what adds up over samples, float64, shape (n, k).

        Parameters
        ----------
        output, target : Tensor
            Both with n first.

        Raises
        ------
        SettingError
            Their shapes do not fit.
        """

    @abstractmethod
    def values(self, totals: Tensor) -> Tensor:
        """Return the metric of each sum of statistics; NaN where nothing counts.

        Parameters
        ----------
        totals : Tensor
            float64, shape (..., k).

        Returns
        -------
        Tensor
            float64, shape (...).
        """

    def value(self, total: Tensor) -> float:
        """Return the metric of one sum of statistics, shape (k,); NaN if nothing counts."""
        return self.values(total).item()

    def __call__(self, output: Tensor, target: Tensor) -> float:
        """Return the metric of one batch."""
        return self.value(self.statistics(output, target).sum(0))


class MeanMetric(Metric):
    """A metric that is a mean over entries that count: its statistics are a sum and a count."""

    @abstractmethod
    def entries(self, output: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Return values and where they count, of the same shape (n, ...)."""

    def statistics(self, output: Tensor, target: Tensor) -> Tensor:
        """Return sum and count of each sample. See `Metric.statistics`."""
        values, valid = self.entries(output, target)
        total = rows(torch.where(valid, values.double(), 0)).sum(1)
        return torch.stack([total, rows(valid).sum(1).double()], 1)

    def values(self, totals: Tensor) -> Tensor:
        """Return sums over counts. See `Metric.values`."""
        return totals[..., 0] / totals[..., 1]


@dataclass(frozen=True)
class SampleMean(MeanMetric):
    """The mean over samples of any function; samples for which it gives NaN do not count.

    Attributes
    ----------
    function : callable
        Takes output and target, returns n numbers.
    higher_is_better : bool
    """

    function: Callable[[Tensor, Tensor], Tensor]
    higher_is_better: bool = False

    def entries(self, output: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Return the function's values. See `MeanMetric.entries`."""
        values = self.function(output, target)
        return values, ~values.isnan()


@dataclass(frozen=True)
class Accuracy(MeanMetric):
    """The share of classes that are right: of images, or of pixels.

    Attributes
    ----------
    ignore_value : int, optional
        Label that does not count.
    """

    ignore_value: int | None = None
    higher_is_better = True

    def entries(self, output: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Return which classes are right. See `MeanMetric.entries`."""
        check_classes(output, target, self.ignore_value)
        return output.max(1).indices == target, valid_entries(target, self.ignore_value)


@dataclass(frozen=True)
class MeanIoU(Metric):
    """Intersection over union of each class's pixels, the mean of the classes that occur.

    A class occurs if it is in a target or a prediction. Intersections and unions are those of the
    data set, not of an image.

    Attributes
    ----------
    classes : int
    ignore_value : int, optional
        Label of pixels that do not count.
    """

    classes: int
    ignore_value: int | None = None
    higher_is_better = True

    def statistics(self, output: Tensor, target: Tensor) -> Tensor:
        """Return each class's intersection, then each class's union, in pixels."""
        check_classes(output, target, self.ignore_value)
        valid = valid_entries(target, self.ignore_value)
        found = output.max(1).indices
        hits = self._counts(target, valid & (found == target))
        unions = self._counts(target, valid) + self._counts(found, valid) - hits
        return torch.cat([hits, unions], 1).double()

    def values(self, totals: Tensor) -> Tensor:
        """Return the mean over classes. See `Metric.values`."""
        hits, unions = totals[..., : self.classes], totals[..., self.classes :]
        return (hits / unions).nanmean(-1)

    def _counts(self, labels: Tensor, where: Tensor) -> Tensor:
        cells = rows(torch.where(where, labels.long(), self.classes))
        counts = cells.new_zeros(len(cells), self.classes + 1).scatter_add_(1, cells, torch.ones_like(cells))
        return counts[:, : self.classes]


@dataclass(frozen=True)
class MeanAngle(MeanMetric):
    """The mean angle between vectors along dimension 1, in degrees.

    Attributes
    ----------
    ignore_value : float, optional
        As in `dgba.losses.cosine`.
    """

    ignore_value: float | None = None
    higher_is_better = False

    def entries(self, output: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Return the angles. See `MeanMetric.entries`."""
        return angles(output, target, self.ignore_value)


@dataclass(frozen=True)
class AngleWithin(MeanMetric):
    """The share of angles between vectors along dimension 1 that are below a bound.

    Attributes
    ----------
    degrees : float
    ignore_value : float, optional
        As in `dgba.losses.cosine`.
    """

    degrees: float
    ignore_value: float | None = None
    higher_is_better = True

    def entries(self, output: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Return which angles are below the bound. See `MeanMetric.entries`."""
        found, valid = angles(output, target, self.ignore_value)
        return found < self.degrees, valid


@dataclass(frozen=True)
class MedianAngle(Metric):
    """The median angle between vectors along dimension 1, in degrees.

    A median does not add up; a histogram does. It has bins of 0.1 degrees, in which angles are
    taken as evenly spread, so that the median is exact to 0.1 degrees.

    Attributes
    ----------
    ignore_value : float, optional
        As in `dgba.losses.cosine`.
    """

    ignore_value: float | None = None
    higher_is_better = False
    bins: ClassVar[int] = 1800

    def statistics(self, output: Tensor, target: Tensor) -> Tensor:
        """Return each sample's histogram of angles from 0 to 180 degrees."""
        found, valid = angles(output, target, self.ignore_value)
        numbers = rows((found * (self.bins / 180)).long().clamp(0, self.bins - 1))
        ones = rows(valid).double()
        return ones.new_zeros(len(ones), self.bins).scatter_add_(1, numbers, ones)

    def values(self, totals: Tensor) -> Tensor:
        """Return where half of the histogram lies below. See `Metric.values`."""
        below = totals.cumsum(-1)
        half = below[..., -1:] / 2
        number = (below < half).sum(-1, keepdim=True).clamp(max=self.bins - 1)
        inside = totals.gather(-1, number)
        share = (half - (below.gather(-1, number) - inside)) / inside
        return ((number + share) * (180 / self.bins)).squeeze(-1)


@dataclass(frozen=True)
class AbsoluteError(MeanMetric):
    """The mean absolute difference.

    Attributes
    ----------
    ignore_value : float, optional
        Entries of the target that are equal to it do not count.
    """

    ignore_value: float | None = None
    higher_is_better = False

    def entries(self, output: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Return the absolute differences. See `MeanMetric.entries`."""
        check_same_shape(output, target)
        return (output - target).abs(), valid_entries(target, self.ignore_value)


@dataclass(frozen=True)
class RelativeError(MeanMetric):
    """The mean absolute difference over the target, where the target is above 0.

    Attributes
    ----------
    ignore_value : float, optional
        Entries of the target that are equal to it do not count.
    """

    ignore_value: float | None = None
    higher_is_better = False

    def entries(self, output: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Return the relative differences. See `MeanMetric.entries`."""
        check_same_shape(output, target)
        return (output - target).abs() / target, valid_entries(target, self.ignore_value) & (target > 0)


@dataclass(frozen=True)
class RatioWithin(MeanMetric):
    """The share of depths with max(output / target, target / output) below a factor: delta.

    Targets that are not above 0 do not count; outputs that are not above 0 are outside.

    Attributes
    ----------
    factor : float
    ignore_value : float, optional
        Entries of the target that are equal to it do not count.
    """

    factor: float
    ignore_value: float | None = None
    higher_is_better = True

    def entries(self, output: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Return which depths are within the factor. See `MeanMetric.entries`."""
        check_same_shape(output, target)
        inside = (output < self.factor * target) & (target < self.factor * output)
        return inside, valid_entries(target, self.ignore_value) & (target > 0)


def angles(output: Tensor, target: Tensor, ignore_value: float | None = None) -> tuple[Tensor, Tensor]:
    """Return the angles between vectors along dimension 1, in degrees, and which of them count.

    Parameters
    ----------
    output, target : Tensor
        Of any length, shape (n, k, ...).
    ignore_value : float, optional
        As in `dgba.losses.cosine`.

    Returns
    -------
    angles, valid : Tensor
        Of the outputs' type, and bool, shape (n, ...).

    Raises
    ------
    SettingError
        The shapes differ or have one dimension only.
    """
    check_same_shape(output, target, dimensions=2)
    u, v = directions(output), directions(target)
    # acos(u v) loses half the digits near 0; this form does not (Kahan).
    found = 2 * torch.atan2((u - v).square().sum(1).sqrt(), (u + v).square().sum(1).sqrt())
    return found * (180 / math.pi), valid_vectors(target, ignore_value)
