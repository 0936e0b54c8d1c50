"""A small network for images of 64 x 64 pixels, which trains in about a minute on one core.

Five blocks of a convolution, batch normalisation and ReLU, at full, half, quarter and twice an eighth of
the resolution; a head adds projections of the four scales from coarse to fine, as a feature pyramid does
(Lin et al., CVPR 2017).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

WIDTHS = (16, 24, 48, 64, 96)
STRIDES = (1, 2, 2, 2, 1)
HEAD = 16


def small_block(index: int) -> nn.Module:
    """Return block `index` of five, counted from 0."""
    channels = WIDTHS[index - 1] if index else 3
    return nn.Sequential(
        nn.Conv2d(channels, WIDTHS[index], 3, STRIDES[index], padding=1, bias=False),
        nn.BatchNorm2d(WIDTHS[index]),
        nn.ReLU(),
    )


class PyramidHead(nn.Module):
    """Sum the scales from coarse to fine, and read the output off the sum at full resolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(nn.Conv2d(width, HEAD, 1) for width in WIDTHS)
        self.mix = nn.Sequential(
            nn.ReLU(), nn.Conv2d(HEAD, HEAD, 3, padding=1, bias=False), nn.BatchNorm2d(HEAD)
        )
        self.output = nn.Conv2d(HEAD, channels, 1)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Return (n, channels, h, w) of the five blocks' outputs, the first at full resolution."""
        full, half, *coarse = [lateral(x) for lateral, x in zip(self.lateral, features, strict=True)]
        x = coarse.pop()
        while coarse:
            finer = coarse.pop()
            x = finer + _resized(x, finer)
        x = self.mix(half + _resized(x, half))
        output: Tensor = self.output(F.relu(full + _resized(x, full)))
        return output


def _resized(x: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(x, size=like.shape[-2:], mode="bilinear", align_corners=False)
