"""DeepLab's MobileNetV2: the paper's lighter encoder.

MobileNetV2 (Sandler et al., CVPR 2018, table 2) up to its last bottleneck. The last stride is a dilation by
2, so that the output has a sixteenth of the resolution. The seven groups of bottlenecks make five blocks:
those up to a quarter of the resolution with the stem, one at an eighth, two at a sixteenth, and the dilated.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from dgba.models._layers import conv_bn

STEM = 32
WIDTH = 320


@dataclass(frozen=True)
class Bottlenecks:
    """Bottlenecks in a row: the table's t, c, n and s, and a dilation."""

    expansion: int
    width: int
    count: int
    stride: int
    dilation: int = 1


BLOCKS = (
    (Bottlenecks(1, 16, 1, 1), Bottlenecks(6, 24, 2, 2)),
    (Bottlenecks(6, 32, 3, 2),),
    (Bottlenecks(6, 64, 4, 2),),
    (Bottlenecks(6, 96, 3, 1),),
    (Bottlenecks(6, 160, 3, 1, dilation=2), Bottlenecks(6, WIDTH, 1, 1, dilation=2)),
)


def mobilenet_v2_block(index: int) -> nn.Module:
    """Return block `index` of five, counted from 0; takes images or what the block before returns."""
    layers: list[nn.Module] = []
    width = BLOCKS[index - 1][-1].width if index else STEM
    if index == 0:
        layers += [conv_bn(3, STEM, 3, stride=2), nn.ReLU6()]
    for row in BLOCKS[index]:
        for number in range(row.count):
            stride = row.stride if number == 0 else 1
            layers.append(InvertedResidual(width, row.width, row.expansion, stride, row.dilation))
            width = row.width
    return nn.Sequential(*layers)


class InvertedResidual(nn.Module):
    """Expand, convolve each channel alone, project; beside the identity where the shape stays."""

    def __init__(
        self, channels_in: int, channels_out: int, expansion: int, stride: int, dilation: int
    ) -> None:
        super().__init__()
        width = expansion * channels_in
        expand = [conv_bn(channels_in, width, 1), nn.ReLU6()] if expansion > 1 else []
        self.residual = nn.Sequential(
            *expand,
            conv_bn(width, width, 3, stride=stride, dilation=dilation, groups=width),
            nn.ReLU6(),
            conv_bn(width, channels_out, 1),
        )
        self.keeps_shape = stride == 1 and channels_in == channels_out

    def forward(self, x: Tensor) -> Tensor:
        """Return (n, channels_out, h / stride, w / stride) for `x` of shape (n, channels_in, h, w)."""
        residual: Tensor = self.residual(x)
        return x + residual if self.keeps_shape else residual
