"""A small network for images of 64 x 64 pixels, which trains in about a minute on one core.

Five blocks at a half, a quarter and three times an eighth of the resolution; the second and third end in a
residual convolution, the last is dilated. A head adds projections of the five outputs from coarse to fine,
as a feature pyramid does (Lin et al., CVPR 2017), and unfolds each entry of half the resolution into 2 x 2
pixels (Shi et al., CVPR 2016), so that nothing is computed at full resolution.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from dgba.models._layers import conv_bn, resized

WIDTHS = (24, 48, 64, 96, 96)
PYRAMID = 24


def small_block(index: int) -> nn.Module:
    """Return block `index` of five, counted from 0; takes images or what the block before returns."""
    before, width = (3, *WIDTHS)[index], WIDTHS[index]
    if index == 0:
        return nn.Sequential(conv_bn(before, width, 4, stride=2), nn.ReLU())
    if index < 3:
        return nn.Sequential(conv_bn(before, width, 3, stride=2), nn.ReLU(), Residual(width))
    return nn.Sequential(conv_bn(before, width, 3, dilation=index - 2), nn.ReLU())


class Residual(nn.Module):
    """A convolution beside the identity."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.change = conv_bn(width, width, 3)

    def forward(self, x: Tensor) -> Tensor:
        """Return (n, width, h, w) for the same."""
        return F.relu(x + self.change(x))


class PyramidHead(nn.Module):
    """Sum the blocks' outputs from coarse to fine, and unfold the sum into pixels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(nn.Conv2d(width, PYRAMID, 1) for width in WIDTHS)
        self.mix = nn.Sequential(nn.ReLU(), conv_bn(PYRAMID, PYRAMID, 3), nn.ReLU())
        self.output = nn.Sequential(nn.Conv2d(PYRAMID, 4 * channels, 1), nn.PixelShuffle(2))

    def forward(self, features: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
        """Return (n, channels, *size) of the five blocks' outputs."""
        scales = [lateral(x) for lateral, x in zip(self.lateral, features, strict=True)]
        x = scales.pop()
        while scales:
            finer = scales.pop()
            x = finer + resized(x, (finer.shape[-2], finer.shape[-1]))
        return resized(self.output(self.mix(x)), size)
