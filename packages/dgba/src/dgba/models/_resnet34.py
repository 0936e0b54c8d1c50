"""DeepLab's ResNet-34: the paper's encoder for NYUv2 and Taskonomy.

ResNet-34 (He et al., CVPR 2016) whose last two stages are dilated by 2 and 4 in place of their strides, so
that its output has an eighth of the resolution. The five blocks are the stem with its pooling, and the four
stages.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from dgba.models._layers import conv_bn

WIDTHS = (64, 64, 128, 256, 512)
DEPTHS = (0, 3, 4, 6, 3)
STRIDES = (2, 1, 2, 1, 1)
DILATIONS = (1, 1, 1, 2, 4)


def resnet34_block(index: int) -> nn.Module:
    """Return block `index` of five, counted from 0; takes images or what the block before returns."""
    if index == 0:
        return nn.Sequential(conv_bn(3, WIDTHS[0], 7, stride=2), nn.ReLU(), nn.MaxPool2d(3, 2, padding=1))
    width, dilation = WIDTHS[index], DILATIONS[index]
    return nn.Sequential(
        BasicBlock(WIDTHS[index - 1], width, STRIDES[index], dilation),
        *(BasicBlock(width, width, 1, dilation) for _ in range(DEPTHS[index] - 1)),
    )


class BasicBlock(nn.Module):
    """Two 3 x 3 convolutions beside a shortcut, projected where the shape changes."""

    def __init__(self, channels_in: int, channels_out: int, stride: int, dilation: int) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            conv_bn(channels_in, channels_out, 3, stride=stride, dilation=dilation),
            nn.ReLU(),
            conv_bn(channels_out, channels_out, 3, dilation=dilation),
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or channels_in != channels_out:
            self.shortcut = conv_bn(channels_in, channels_out, 1, stride=stride)

    def forward(self, x: Tensor) -> Tensor:
        """Return relu(residual(x) + shortcut(x)) for `x` of shape (n, channels_in, h, w)."""
        return F.relu(self.residual(x) + self.shortcut(x))
