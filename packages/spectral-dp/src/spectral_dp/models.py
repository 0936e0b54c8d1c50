"""The networks of the experiments: no layer mixes samples, and every layer has a norm of its own."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tenfold import SettingError, UnknownNameError


def mlp(shape: tuple[int, ...], classes: int = 10, widths: tuple[int, ...] = (128, 64)) -> nn.Sequential:
    """Return a perceptron with tanh between its layers.

    Parameters
    ----------
    shape : tuple of int
        Of one input.
    classes : int
    widths : tuple of int
        Of the hidden layers.
    """
    layers: list[nn.Module] = [nn.Flatten()]
    inputs = math.prod(shape)
    for width in widths:
        layers += [nn.Linear(inputs, width), nn.Tanh()]
        inputs = width
    return nn.Sequential(*layers, nn.Linear(inputs, classes))


class LeNet5(nn.Module):
    """LeNet-5 (LeCun et al., 1998) with tanh.

    Parameters
    ----------
    shape : tuple of int
        Channels, height and width of an image, 12 x 12 or more.
    classes : int
    """

    def __init__(self, shape: tuple[int, int, int], classes: int = 10) -> None:
        super().__init__()
        channels, height, width = shape
        self.conv1 = nn.Conv2d(channels, 6, 5, padding=2)
        self.conv2 = nn.Conv2d(6, 16, 5)
        self.fc1 = nn.Linear(16 * ((height // 2 - 4) // 2) * ((width // 2 - 4) // 2), 120)
        self.fc2 = nn.Linear(120, 84)
        self.fc3 = nn.Linear(84, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return the scores of the classes."""
        x = F.avg_pool2d(torch.tanh(self.conv1(x)), 2)
        x = F.avg_pool2d(torch.tanh(self.conv2(x)), 2).flatten(1)
        scores: Tensor = self.fc3(torch.tanh(self.fc2(torch.tanh(self.fc1(x)))))
        return scores


class ResNet(nn.Module):
    """A small residual network with group normalisation.

    Parameters
    ----------
    shape : tuple of int
        Channels, height and width of an image.
    classes : int
    width : int
        Channels of the first block, a multiple of 4; the second has twice as many.
    """

    def __init__(self, shape: tuple[int, int, int], classes: int = 10, width: int = 16) -> None:
        super().__init__()
        self.stem = nn.Conv2d(shape[0], width, 3, padding=1)
        self.norm = nn.GroupNorm(4, width)
        self.blocks = nn.Sequential(_Block(width, width, 2), _Block(width, 2 * width, 2))
        self.head = nn.Linear(2 * width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return the scores of the classes."""
        x = self.blocks(F.relu(self.norm(self.stem(x))))
        scores: Tensor = self.head(x.mean((2, 3)))
        return scores


class _Block(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1)
        self.norm1 = nn.GroupNorm(4, outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.norm2 = nn.GroupNorm(4, outputs)
        self.shortcut = nn.Conv2d(inputs, outputs, 1, stride=stride)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.norm1(self.conv1(x)))
        return F.relu(self.norm2(self.conv2(y)) + self.shortcut(x))


class Transformer(nn.Module):
    """A small transformer over the rows of an image, its positions encoded by fixed waves.

    Parameters
    ----------
    shape : tuple of int
        Channels, height and width of an image.
    classes : int
    width : int
        Features of a token, a multiple of 4.
    """

    def __init__(self, shape: tuple[int, int, int], classes: int = 10, width: int = 32) -> None:
        super().__init__()
        channels, height, columns = shape
        self.embed = nn.Linear(channels * columns, width)
        self.attention = _Attention(width)
        self.norm1 = nn.LayerNorm(width)
        self.feed = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
        self.norm2 = nn.LayerNorm(width)
        self.head = nn.Linear(width, classes)
        angles = torch.arange(height)[:, None] * 100.0 ** (-torch.arange(0, width, 2) / width)
        self.register_buffer("positions", torch.cat([angles.sin(), angles.cos()], 1))

    def forward(self, x: Tensor) -> Tensor:
        """Return the scores of the classes."""
        x = self.embed(x.transpose(1, 2).flatten(2)) + self.positions
        x = x + self.attention(self.norm1(x))
        x = x + self.feed(self.norm2(x))
        scores: Tensor = self.head(x.mean(1))
        return scores


class _Attention(nn.Module):
    HEADS = 4

    def __init__(self, width: int) -> None:
        super().__init__()
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = (
            layer(x).unflatten(2, (self.HEADS, -1)).transpose(1, 2)
            for layer in (self.query, self.key, self.value)
        )
        mixed = F.scaled_dot_product_attention(query, key, value)
        out: Tensor = self.out(mixed.transpose(1, 2).flatten(2))
        return out


MODELS: dict[str, Callable[[tuple[int, int, int]], nn.Module]] = {
    "mlp": mlp,
    "wide-mlp": lambda shape: mlp(shape, widths=(1024, 512)),
    "lenet-5": LeNet5,
    "resnet": ResNet,
    "transformer": Transformer,
}


def build(name: str, shape: tuple[int, int, int], seed: int) -> nn.Module:
    """Return a network for images of a shape, with weights drawn by the seed.

    Parameters
    ----------
    name : str
        A key of `MODELS`.
    shape : tuple of int
        Channels, height and width.
    seed : int

    Raises
    ------
    UnknownNameError
        There is no such network.
    SettingError
        The images are too small for it.
    """
    if name not in MODELS:
        raise UnknownNameError("model", name, MODELS)
    if name == "lenet-5" and min(shape[1:]) < 12:
        raise SettingError(f"images of {shape[1]} x {shape[2]}", "12 x 12 or more", "Choose another model.")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return MODELS[name](shape)
