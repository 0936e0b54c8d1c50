"""Boxes (x1, y1, x2, y2): overlap, non-maximum suppression, and what a detector reports."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Detections:
    """What a detector found in one image, best score first.

    Attributes
    ----------
    boxes : Tensor
        float32 (found, 4).
    scores : Tensor
        float32 (found,), from 0 to 1.
    labels : Tensor
        int64 (found,).
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor


def areas(boxes: Tensor) -> Tensor:
    """Return the areas, (n,), of boxes (n, 4)."""
    return (boxes[:, 2:] - boxes[:, :2]).clamp(min=0).prod(1)


def intersections(a: Tensor, b: Tensor) -> Tensor:
    """Return the areas, (n, m), common to each of the boxes (n, 4) and each of (m, 4)."""
    low = torch.maximum(a[:, None, :2], b[None, :, :2])
    high = torch.minimum(a[:, None, 2:], b[None, :, 2:])
    return (high - low).clamp(min=0).prod(2)


def pairwise_iou(a: Tensor, b: Tensor) -> Tensor:
    """Return intersection over union, (n, m), of boxes (n, 4) and (m, 4); 0 for two empty ones."""
    both = intersections(a, b)
    either = areas(a)[:, None] + areas(b)[None] - both
    return torch.where(either > 0, both / either, 0.0)


def nms(boxes: Tensor, scores: Tensor, labels: Tensor, overlap: float) -> Tensor:
    """Suppress, class by class, every box that overlaps a better one.

    Parameters
    ----------
    boxes, scores, labels : Tensor
        As in `Detections`, in any order.
    overlap : float
        Intersection over union above which the box of the lower score goes.

    Returns
    -------
    Tensor
        int64, indices of what is kept, best score first.
    """
    order = scores.argsort(descending=True, stable=True)
    rivals = (pairwise_iou(boxes, boxes) > overlap) & (labels[:, None] == labels)
    suppressed = torch.zeros(len(boxes), dtype=torch.bool, device=boxes.device)
    kept = []
    for index in order.tolist():
        if not suppressed[index]:
            kept.append(index)
            suppressed |= rivals[index]
    return torch.tensor(kept, dtype=torch.int64, device=boxes.device)
