"""Semantic segmentation in small: a U-Net (Ronneberger et al., MICCAI 2015), its loss, mean IoU.

Two 3 x 3 convolutions with batch norm a level; the way down halves by max pooling, the way up
doubles by interpolation and takes the skip of its level by concatenation. Unlike the original,
borders are padded, so that the output is as large as the image.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from slr_prune._annotated import IGNORE
from tenfold import SettingError


class UNet(nn.Module):
    """A U-Net for images (n, 3, h, w), h and w at least 2 to the power of `depth`.

    Parameters
    ----------
    classes : int
        Classes of a pixel, the ground included.
    width : int
        Channels of the first level; every level below has twice as many.
    depth : int
        Number of times that the resolution is halved.

    Raises
    ------
    SettingError
        A parameter is below 1.
    """

    def __init__(self, classes: int, *, width: int = 8, depth: int = 3) -> None:
        super().__init__()
        for name, value in (("classes", classes), ("width", width), ("depth", depth)):
            if value < 1:
                raise SettingError(f"{name} is {value}", "1 or more", f"Raise {name}.")
        channels = [width * 2**level for level in range(depth + 1)]
        self.encoder = nn.ModuleList(
            nn.Sequential(conv_bn_relu(before, after), conv_bn_relu(after, after))
            for before, after in zip([3, *channels[:-1]], channels, strict=True)
        )
        self.decoder = nn.ModuleList(
            nn.Sequential(conv_bn_relu(skip + below, skip), conv_bn_relu(skip, skip))
            for skip, below in zip(channels[-2::-1], channels[:0:-1], strict=True)
        )
        self.predict = nn.Conv2d(width, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (n, classes, h, w) for images (n, 3, h, w)."""
        skips = []
        for level, block in enumerate(self.encoder):
            x = block(F.max_pool2d(x, 2) if level else x)
            skips.append(x)
        for block, skip in zip(self.decoder, skips[-2::-1], strict=True):
            x = block(torch.cat([skip, F.interpolate(x, size=skip.shape[-2:])], 1))
        logits: Tensor = self.predict(x)
        return logits


def conv_bn_relu(before: int, after: int, stride: int = 1) -> nn.Sequential:
    """Return a padded 3 x 3 convolution with batch norm and ReLU."""
    return nn.Sequential(
        nn.Conv2d(before, after, 3, stride, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU()
    )


def segmentation_loss(logits: Tensor, class_map: Tensor) -> Tensor:
    """Return cross entropy plus Dice loss over the pixels that are annotated.

    The Dice loss (Milletari et al., 3DV 2016) is one minus the mean over classes of the overlap
    2 sum p y / (sum p + sum y); it keeps small objects from drowning in the ground.

    Parameters
    ----------
    logits : Tensor
        (n, classes, h, w).
    class_map : Tensor
        int64 (n, h, w); `IGNORE` where a pixel does not count.
    """
    classes = logits.shape[1]
    known = class_map != IGNORE
    entropy = F.cross_entropy(logits, class_map, ignore_index=IGNORE, reduction="sum") / known.sum().clamp(
        min=1
    )
    shares = logits.softmax(1) * known[:, None]
    truth = (class_map[:, None] == torch.arange(classes, device=logits.device)[:, None, None]).float()
    overlap = 2 * (shares * truth).sum((0, 2, 3)) + 1
    dice = overlap / (shares.sum((0, 2, 3)) + truth.sum((0, 2, 3)) + 1)
    return entropy + 1 - dice.mean()


def mean_iou(predicted: Tensor, class_map: Tensor, classes: int) -> float:
    """Return the mean intersection over union of the classes, over all pixels together.

    Parameters
    ----------
    predicted, class_map : Tensor
        int64 of equal shape, values from 0 to `classes` - 1; pixels that are `IGNORE` in
        `class_map` do not count.
    classes : int

    Returns
    -------
    float
        From 0 to 1; classes that are neither there nor predicted do not count, and 1.0 when none is left.

    Raises
    ------
    SettingError
        The shapes differ.
    """
    if predicted.shape != class_map.shape:
        raise SettingError(
            f"predictions of shape {tuple(predicted.shape)}",
            f"the shape {tuple(class_map.shape)} of the class map",
            "Take the argmax of the logits over the classes.",
        )
    known = class_map != IGNORE
    pairs = class_map[known] * classes + predicted[known]
    confusion = torch.bincount(pairs, minlength=classes * classes).view(classes, classes).double()
    both = confusion.diagonal()
    either = confusion.sum(0) + confusion.sum(1) - both
    present = either > 0
    return (both[present] / either[present]).mean().item() if present.any() else 1.0
