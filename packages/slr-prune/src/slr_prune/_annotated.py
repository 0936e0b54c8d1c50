"""Images with objects in them: what detection and segmentation learn from.

Boxes are (x1, y1, x2, y2) in pixels, measured at pixel edges: a box around the pixels of columns
a to b and rows c to d is (a, c, b + 1, d + 1), and the whole image is (0, 0, width, height).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

IGNORE = -1


@dataclass(frozen=True, eq=False)
class AnnotatedImages:
    """Images of one size with their objects.

    Attributes
    ----------
    classes : tuple of str
        Names of the object classes; K of them.
    images : Tensor
        float32 (n, 3, h, w), from 0 to 1.
    boxes : tuple of Tensor
        float32 (objects, 4) for every image.
    labels : tuple of Tensor
        int64 (objects,) for every image, from 0 to K - 1.
    ignored : tuple of Tensor
        float32 (regions, 4) for every image: boxes in which nobody said what is there. A detection
        in one is neither right nor wrong.
    masks : tuple of Tensor or None
        bool (objects, h, w) for every image; None where the data has boxes alone.
    class_map : Tensor or None
        int64 (n, h, w): 0 for the ground, 1 + label for an object, `IGNORE` where nobody said.
    """

    classes: tuple[str, ...]
    images: Tensor
    boxes: tuple[Tensor, ...]
    labels: tuple[Tensor, ...]
    ignored: tuple[Tensor, ...]
    masks: tuple[Tensor, ...] | None
    class_map: Tensor | None

    def __len__(self) -> int:
        return len(self.images)

    def split(self, sizes: Sequence[int]) -> list[AnnotatedImages]:
        """Cut into consecutive parts of `sizes` images."""
        ends = torch.tensor([0, *sizes]).cumsum(0).tolist()
        return [self._part(slice(start, end)) for start, end in pairwise(ends)]

    def _part(self, part: slice) -> AnnotatedImages:
        return AnnotatedImages(
            self.classes,
            self.images[part],
            self.boxes[part],
            self.labels[part],
            self.ignored[part],
            None if self.masks is None else self.masks[part],
            None if self.class_map is None else self.class_map[part],
        )


def boxes_of_masks(masks: Tensor) -> Tensor:
    """Return the tight boxes, float32 (objects, 4), of bool masks (objects, h, w), none empty."""
    sides = []
    for axis, size in ((1, masks.shape[2]), (2, masks.shape[1])):
        hit = masks.any(axis).byte()
        sides.append((hit.argmax(1), size - hit.flip(1).argmax(1)))
    (left, right), (top, bottom) = sides
    return torch.stack([left, top, right, bottom], 1).float()
