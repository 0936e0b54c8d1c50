"""DeepLab's head: atrous spatial pyramid pooling (Chen et al., TPAMI 2018, section 3.2).

Convolutions of 3 x 3 at four dilations read the encoder's last output side by side; their sum is the task's
output, interpolated to the size of the images.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from dgba.models._layers import resized

RATES = (6, 12, 18, 24)


class ASPPHead(nn.Module):
    """Atrous spatial pyramid pooling of the last of the features.

    Parameters
    ----------
    width : int
        Channels of the last block's output.
    channels : int
        Channels of the task's output.
    """

    def __init__(self, width: int, channels: int) -> None:
        super().__init__()
        self.rates = nn.ModuleList(
            nn.Conv2d(width, channels, 3, padding=rate, dilation=rate) for rate in RATES
        )

    def forward(self, features: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
        """Return (n, channels, *size) of the five blocks' outputs."""
        return resized(torch.stack([conv(features[-1]) for conv in self.rates]).sum(0), size)
