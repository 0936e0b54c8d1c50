"""Detections beside the truth that they are of.

Errors exist only where a detection has a truth. So everything that is calibrated or scored on these pairs
is of matched detections: false alarms and missed objects are not in it, and neither are errors so large
that the boxes overlap less than the limit. The limit is therefore low, that from which SORT associates;
the authors match at 0.5.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mot_cup._boxes import Floats, Space, to_space
from mot_cup._detections import BoxCovariance, Detections
from mot_cup._matching import match_positive, overlaps
from mot_cup._tracks import Ints, Tracks
from tenfold import DataError, SettingError

IOU = 0.3


@dataclass(frozen=True)
class Matches:
    """Matched detections of one or more sequences and their truth.

    Parameters
    ----------
    frames : ndarray of int64
        Shape (n,): the frame of each.
    detections : Detections
        All of them as one, with a covariance.
    truth : ndarray of float64
        Corners of the true boxes, of shape (n, 4), in the detections' unit.
    """

    frames: Ints
    detections: Detections
    truth: Floats

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, rows: NDArray[np.intp] | NDArray[np.bool_] | slice) -> Matches:
        """Return some of the pairs."""
        return Matches(self.frames[rows], self.detections[rows], self.truth[rows])

    def errors(self, space: Space) -> Floats:
        """Return detection minus truth, of shape (n, 4), in a parametrisation."""
        return to_space(self.detections.boxes, space) - to_space(self.truth, space)

    def sigma(self, space: Space) -> Floats:
        """Return the detector's standard deviations, of shape (n, 4), in a parametrisation.

        Raises
        ------
        DataError
            The detections have no covariance, or one is 0 in a dimension.
        """
        return sigma(self.detections, space)

    def scores(self, space: Space) -> Floats:
        """Return the nonconformity scores abs(detection - truth) / sigma, of shape (n, 4)."""
        return np.abs(self.errors(space)) / self.sigma(space)


def match(frames: Mapping[int, Detections], truth: Tracks, iou: float = IOU) -> Matches:
    """Match the detections of a sequence to its truth, one to one within a frame and class.

    Those pairs are taken that have the largest sum of overlaps (intersection over union).

    Parameters
    ----------
    frames : mapping of int to Detections
        The detections of every frame that has any.
    truth : Tracks
        True boxes, in the detections' unit.
    iou : float
        The overlap from which a detection can be of a true box.

    Raises
    ------
    SettingError
        The limit is not above 0 and at most 1.
    """
    if not 0 < iou <= 1:
        raise SettingError(f"a limit of {iou} for the overlap", "above 0 and at most 1", "Correct it.")
    numbers, found, boxes = [], [], []
    for frame, rows in truth.by_frame():
        if frame not in frames:
            continue
        detections = frames[frame]
        overlap = overlaps(detections.boxes, truth.boxes[rows])
        apart = detections.classes[:, None] != truth.classes[rows]
        partners = match_positive(np.where(apart | (overlap < iou), 0.0, overlap))
        matched = partners >= 0
        numbers.append(np.full(matched.sum(), frame))
        found.append(detections[matched])
        boxes.append(truth.boxes[rows][partners[matched]])
    if not found:
        return Matches(np.empty(0, np.int64), Detections(np.empty((0, 4))), np.empty((0, 4)))
    return Matches(np.concatenate(numbers), _joined(found), np.concatenate(boxes))


def pooled(matches: Sequence[Matches]) -> Matches:
    """Return the pairs of several sequences as one; empty ones do not count.

    Raises
    ------
    DataError
        There is no pair at all, or the detections differ in unit or in the space of their covariances.
    """
    some = [item for item in matches if len(item)]
    if not some:
        raise DataError(
            "no detection that overlaps a true box of its class and frame",
            "one or more",
            "Check that detections and truth are of the same sequence and in the same unit.",
        )
    return Matches(
        np.concatenate([item.frames for item in some]),
        _joined([item.detections for item in some]),
        np.concatenate([item.truth for item in some]),
    )


def sigma(detections: Detections, space: Space) -> Floats:
    """Return standard deviations of detections, of shape (n, 4), in a parametrisation.

    Raises
    ------
    DataError
        As `covariance_in`.
    """
    return np.sqrt(np.diagonal(covariance_in(space, detections).matrices, 0, 1, 2))


def covariance_in(space: Space, detections: Detections) -> BoxCovariance:
    """Return the detections' own covariances in a parametrisation.

    Raises
    ------
    DataError
        The detections have no covariance, or a variance is 0.
    """
    if detections.covariance is None:
        raise DataError(
            "detections without a covariance",
            "one for each",
            "Give what the detector says; BoxCovariance.diagonal of ones where it says nothing.",
        )
    covariance = detections.covariance.to_space(detections.boxes, space)
    variances = np.diagonal(covariance.matrices, 0, 1, 2)
    if not (variances > 0).all():
        row = int(np.argmin((variances > 0).all(axis=1)))
        raise DataError(
            f"the variances of detection {row} are {variances[row].tolist()} in {space}",
            "above 0",
            "Give every dimension an error; a conformal score divides by it.",
        )
    return covariance


def _joined(parts: Sequence[Detections]) -> Detections:
    units = {part.unit for part in parts}
    covariances = [part.covariance for part in parts]
    spaces = {None if covariance is None else covariance.space for covariance in covariances}
    if len(units) > 1 or len(spaces) > 1:
        raise DataError(
            f"detections in units {sorted(units)} with covariances in {sorted(map(str, spaces))}",
            "one unit and one parametrisation",
            "Convert them by BoxCovariance.to_unit and to_space.",
        )
    (unit,), (space,) = units, spaces
    covariance = None
    if space is not None:
        matrices = np.concatenate([item.matrices for item in covariances if item is not None])
        covariance = BoxCovariance(matrices, space, unit)
    boxes, scores, classes = (
        np.concatenate([getattr(part, name) for part in parts]) for name in ("boxes", "scores", "classes")
    )
    return Detections(boxes, scores, classes, covariance, unit)
