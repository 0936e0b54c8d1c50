"""MLP-Mixer (Tolstikhin et al., NeurIPS 2021) for small images.

An image becomes a table of patches by channels. Every block mixes the patches of a channel, then
the channels of a patch, each time by a perceptron of one hidden layer:

    U = X + W2 gelu(W1 norm(X))  over patches,      Y = U + W4 gelu(W3 norm(U))  over channels
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from tenfold import SettingError


class Mixer(nn.Module):
    """An MLP-Mixer; half a million parameters by default.

    Parameters
    ----------
    classes : int
    image_size : int
        Height and width of the images, 32 for CIFAR-10 and 28 for MNIST.
    image_channels : int
    patch_size : int
        Divides `image_size`.
    channels : int
        Features of a patch, C in the paper.
    depth : int
        Number of blocks.
    patch_hidden, channel_hidden : int
        Hidden units of the two perceptrons, D_S and D_C.

    Raises
    ------
    SettingError
        A parameter is below 1, or patches do not tile the image.
    """

    def __init__(
        self,
        classes: int = 10,
        *,
        image_size: int = 32,
        image_channels: int = 3,
        patch_size: int = 4,
        channels: int = 128,
        depth: int = 6,
        patch_hidden: int = 64,
        channel_hidden: int = 256,
    ) -> None:
        super().__init__()
        sizes = {
            "classes": classes,
            "image_size": image_size,
            "image_channels": image_channels,
            "patch_size": patch_size,
            "channels": channels,
            "depth": depth,
            "patch_hidden": patch_hidden,
            "channel_hidden": channel_hidden,
        }
        for name, value in sizes.items():
            if value < 1:
                raise SettingError(f"{name} is {value}", "1 or more", f"Raise {name}.")
        if image_size % patch_size:
            raise SettingError(
                f"patches of {patch_size} in images of {image_size}",
                "a divisor",
                "Choose another patch_size.",
            )
        patches = (image_size // patch_size) ** 2
        self.embed = nn.Conv2d(image_channels, channels, patch_size, patch_size)
        self.blocks = nn.Sequential(
            *(MixerBlock(patches, channels, patch_hidden, channel_hidden) for _ in range(depth))
        )
        self.norm = nn.LayerNorm(channels)
        self.head = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (n, classes) for images (n, image_channels, image_size, image_size)."""
        table = self.embed(x).flatten(2).transpose(1, 2)
        logits: Tensor = self.head(self.norm(self.blocks(table)).mean(1))
        return logits


class MixerBlock(nn.Module):
    """Mix patches, then channels, of a table (n, patches, channels)."""

    def __init__(self, patches: int, channels: int, patch_hidden: int, channel_hidden: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(channels)
        self.patch1 = nn.Linear(patches, patch_hidden)
        self.patch2 = nn.Linear(patch_hidden, patches)
        self.norm2 = nn.LayerNorm(channels)
        self.channel1 = nn.Linear(channels, channel_hidden)
        self.channel2 = nn.Linear(channel_hidden, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Return a table of the same shape."""
        mixed = self.patch2(F.gelu(self.patch1(self.norm1(x).transpose(1, 2)))).transpose(1, 2)
        x = x + mixed
        result: Tensor = x + self.channel2(F.gelu(self.channel1(self.norm2(x))))
        return result
