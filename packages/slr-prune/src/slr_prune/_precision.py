"""Mean average precision as COCO defines it (Lin et al., ECCV 2014, and its evaluation code).

In every image the detections of a class take, best score first, the object that they overlap most
and that no better one took, if the overlap reaches the threshold. Over all images precision is
made monotone and averaged at the recalls 0, 0.01, ..., 1. A detection that took nothing and lies
in an ignored region, by the threshold's share of its own area, does not count.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from slr_prune._annotated import AnnotatedImages
from slr_prune._boxes import Detections, areas, intersections, pairwise_iou
from tenfold import SettingError

COCO_THRESHOLDS = tuple(0.5 + 0.05 * step for step in range(10))

RECALLS = np.linspace(0, 1, 101)


def mean_average_precision(
    found: Sequence[Detections], examples: AnnotatedImages, thresholds: Sequence[float] = (0.5,)
) -> list[float]:
    """Return the mean over classes of average precision, one figure for every threshold.

    Parameters
    ----------
    found : sequence of Detections
        One for every image of `examples`.
    examples : AnnotatedImages
    thresholds : sequence of float
        Intersections over union that a match needs, above 0; the mean of the result over
        `COCO_THRESHOLDS` is COCO's headline figure.

    Returns
    -------
    list of float
        From 0 to 1. Classes without an object do not count; 0.0 when there is no object at all.

    Raises
    ------
    SettingError
        There is not one `Detections` for every image.
    """
    if len(found) != len(examples):
        raise SettingError(
            f"detections in {len(found)} images", f"{len(examples)}, as there are images", "Detect in all."
        )
    wanted = np.asarray(thresholds, float)
    precisions = []
    for label in range(len(examples.classes)):
        objects = sum(int((labels == label).sum()) for labels in examples.labels)
        if objects:
            precisions.append(_average_precision(label, objects, found, examples, wanted))
    return np.mean(precisions, 0).tolist() if precisions else [0.0] * len(thresholds)


def _average_precision(
    label: int,
    objects: int,
    found: Sequence[Detections],
    examples: AnnotatedImages,
    thresholds: NDArray[np.float64],
) -> NDArray[np.float64]:
    nothing = np.zeros((len(thresholds), 0), bool)
    scores, right, counted = [np.zeros(0)], [nothing], [nothing]
    for detections, boxes, labels, ignored in zip(
        found, examples.boxes, examples.labels, examples.ignored, strict=True
    ):
        mine = torch.nonzero(detections.labels == label).flatten()
        if not len(mine):
            continue
        mine = mine[detections.scores[mine].argsort(descending=True, stable=True)]
        candidates = detections.boxes[mine].double()
        taken = _match(pairwise_iou(candidates, boxes[labels == label].double()).numpy(), thresholds)
        scores.append(detections.scores[mine].double().numpy())
        right.append(taken)
        counted.append(taken | ~(_share_within(candidates, ignored.double()) >= thresholds[:, None]))
    order = np.argsort(-np.concatenate(scores), kind="stable")
    hits, count = np.concatenate(right, 1)[:, order], np.concatenate(counted, 1)[:, order]
    return np.array([_area(hit[which], objects) for hit, which in zip(hits, count, strict=True)])


def _match(overlaps: NDArray[np.float64], thresholds: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return which detections find an object, (thresholds, detections), from (detections, objects)."""
    matched = np.zeros((len(thresholds), len(overlaps)), bool)
    if not overlaps.shape[1]:
        return matched
    rows = np.arange(len(thresholds))
    free = np.ones((len(thresholds), overlaps.shape[1]), bool)
    for index, overlap in enumerate(overlaps):
        left = np.where(free, overlap, -1.0)
        best = left.argmax(1)
        matched[:, index] = left[rows, best] >= thresholds
        free[rows, best] &= ~matched[:, index]
    return matched


def _share_within(boxes: Tensor, regions: Tensor) -> NDArray[np.float64]:
    """Return the largest share of every box that one region covers."""
    if not len(regions):
        return np.zeros(len(boxes))
    share = intersections(boxes, regions) / areas(boxes)[:, None].clamp(min=1e-12)
    return share.amax(1).numpy()


def _area(hits: NDArray[np.bool_], objects: int) -> float:
    """Return the average precision of detections in order of their scores."""
    true = hits.cumsum()
    precision = np.maximum.accumulate((true / np.arange(1, len(hits) + 1))[::-1])[::-1]
    place = np.searchsorted(true / objects, RECALLS, side="left")
    return float(np.append(precision, 0.0)[np.minimum(place, len(hits))].mean())
