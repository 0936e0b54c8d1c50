"""What the encoders and heads are made of."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


def conv_bn(
    channels_in: int, channels_out: int, kernel: int, *, stride: int = 1, dilation: int = 1, groups: int = 1
) -> nn.Sequential:
    """Return a convolution that divides height and width by `stride`, and its batch norm."""
    padding = dilation * (kernel - 1) // 2
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, kernel, stride, padding, dilation, groups, bias=False),
        nn.BatchNorm2d(channels_out),
    )


def resized(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Return `x` (n, c, h, w) interpolated to (n, c, *size); itself if it has that size."""
    if (x.shape[-2], x.shape[-1]) == size:
        return x
    return F.interpolate(x, size=size, mode="bilinear", align_corners=False)
