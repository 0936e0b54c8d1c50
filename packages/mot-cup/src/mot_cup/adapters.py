"""Detections as other libraries give them, and tracks as they take them.

None of the libraries is imported: what is read are the attributes and keys that their results have.

>>> detections = from_torchvision(model([image])[0])                     # doctest: +SKIP
>>> rows = tracker.update(detections)                                    # doctest: +SKIP

>>> tracked = to_supervision(found, tracker.update(from_supervision(found)))  # doctest: +SKIP
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from mot_cup._boxes import Floats, Space
from mot_cup._detections import BoxCovariance, Detections
from tenfold import DataError


class SupervisionDetections(Protocol):
    """What is used of ``supervision.Detections``."""

    xyxy: NDArray[Any]
    confidence: NDArray[Any] | None
    class_id: NDArray[Any] | None
    tracker_id: NDArray[Any] | None

    def __getitem__(self, index: Any, /) -> Any:
        """Return some of the detections."""


Found = TypeVar("Found", bound=SupervisionDetections)


def from_supervision(detections: SupervisionDetections) -> Detections:
    """Take ``supervision.Detections``: boxes, confidences and classes.

    Parameters
    ----------
    detections : supervision.Detections
        Scores are 1 where it has no confidence, classes 0 where it has no class.

    Raises
    ------
    DataError
        As `Detections` does.
    """
    return Detections(
        detections.xyxy,
        detections.confidence,  # type: ignore[arg-type]
        detections.class_id,  # type: ignore[arg-type]
    )


def to_supervision(detections: Found, rows: Floats) -> Found:
    """Return the ``supervision.Detections`` that were tracked, with their identities as ``tracker_id``.

    Parameters
    ----------
    detections : supervision.Detections
        What went into the tracker, by `from_supervision`. Masks and data come along.
    rows : ndarray of float64
        What `update` returned, of shape (m, 8).

    Returns
    -------
    supervision.Detections
        With the boxes of the tracks.

    Raises
    ------
    DataError
        The rows are of other detections.
    """
    of_detection = rows[:, 7].astype(np.intp)
    if len(rows) and not 0 <= of_detection.min() <= of_detection.max() < len(detections.xyxy):
        raise DataError(
            f"a track of row {of_detection.max()} and {len(detections.xyxy)} detections",
            "the detections that the tracker was given",
            "Pass those of the same frame.",
        )
    found: Found = copy.copy(detections[of_detection])
    found.xyxy = rows[:, :4].astype(detections.xyxy.dtype)
    found.tracker_id = rows[:, 4].astype(int)
    return found


def from_torchvision(output: Mapping[str, Any], space: Space = "xywh") -> Detections:
    """Take what a detector of torchvision returns for an image.

    Parameters
    ----------
    output : mapping
        Tensors ``boxes`` of shape (n, 4), x1, y1, x2, y2 in pixels, ``scores`` and ``labels`` of shape (n,),
        on any device; ``log_variances`` of shape (n, 4), where the detector has a head for them
        (`mot_cup.direct.LogVarianceHead`).
    space : {"xyxy", "xywh", "xyah", "xysr"}
        What the log-variances are of, in pixels.

    Raises
    ------
    DataError
        A key is missing, or as `Detections` does.
    """
    missing = {"boxes", "scores", "labels"} - set(output)
    if missing:
        raise DataError(
            f"an output with {', '.join(sorted(output))}",
            "boxes, scores and labels",
            "Pass the dictionary of one image, not the list of all.",
        )
    covariance = None
    if "log_variances" in output:
        covariance = BoxCovariance.diagonal(np.exp(_array(output["log_variances"])), space, "px")
    return Detections(
        _array(output["boxes"]),
        _array(output["scores"]),
        _array(output["labels"]).astype(np.int64),
        covariance,
    )


def _array(values: Any) -> Floats:
    """Return a tensor's values, on any device and with or without a gradient."""
    if hasattr(values, "detach"):
        values = values.detach().cpu().numpy()
    return np.asarray(values, dtype=np.float64)
