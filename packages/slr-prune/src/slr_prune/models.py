"""The networks of the experiments, their sparsity targets, and their seeded construction.

Beside the small ones, `vision_model` builds torchvision's classifiers and `text_encoder` a small BERT.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from slr_prune._encoder import text_encoder
from slr_prune._mixer import Mixer
from slr_prune._vision import vision_model
from tenfold import UnknownNameError

__all__ = [
    "COUPLED",
    "INPUTS",
    "MODELS",
    "TARGETS",
    "VGG16",
    "LeNet5",
    "LeNet300",
    "Mixer",
    "ResNet20",
    "ResidualBlock",
    "build",
    "text_encoder",
    "vision_model",
]


class LeNet300(nn.Sequential):
    """LeNet-300-100 (LeCun et al., 1998): 784-300-100-10, input (n, 1, 28, 28)."""

    def __init__(self) -> None:
        super().__init__()
        self.flatten = nn.Flatten()
        self.fc1 = nn.Linear(784, 300)
        self.relu1 = nn.ReLU()
        self.fc2 = nn.Linear(300, 100)
        self.relu2 = nn.ReLU()
        self.fc3 = nn.Linear(100, 10)


class LeNet5(nn.Sequential):
    """LeNet-5 in Caffe's form, as the pruning literature uses it: input (n, 1, 28, 28)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 20, 5)
        self.pool1 = nn.MaxPool2d(2)
        self.conv2 = nn.Conv2d(20, 50, 5)
        self.pool2 = nn.MaxPool2d(2)
        self.flatten = nn.Flatten()
        self.fc1 = nn.Linear(800, 500)
        self.relu = nn.ReLU()
        self.fc2 = nn.Linear(500, 10)


class ResNet20(nn.Sequential):
    """ResNet-20 for CIFAR (He et al., 2016, section 4.2): input (n, 3, 32, 32).

    Three stages of three blocks with 16, 32 and 64 channels. Where the shape changes, the shortcut
    is a 1 x 1 convolution (option B), so that channels of the two branches stay aligned.
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.relu = nn.ReLU()
        self.stage1 = nn.Sequential(*(ResidualBlock(16, 16, 1) for _ in range(3)))
        self.stage2 = nn.Sequential(ResidualBlock(16, 32, 2), *(ResidualBlock(32, 32, 1) for _ in range(2)))
        self.stage3 = nn.Sequential(ResidualBlock(32, 64, 2), *(ResidualBlock(64, 64, 1) for _ in range(2)))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.fc = nn.Linear(64, 10)


class ResidualBlock(nn.Module):
    """Two 3 x 3 convolutions beside a shortcut (He et al., 2016, figure 2)."""

    def __init__(self, channels_in: int, channels_out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels_out)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels_out)
        self.shortcut = nn.Sequential()
        if stride != 1 or channels_in != channels_out:
            self.shortcut = nn.Sequential(
                nn.Conv2d(channels_in, channels_out, 1, stride, bias=False), nn.BatchNorm2d(channels_out)
            )

    def forward(self, x: Tensor) -> Tensor:
        """Return relu(F(x) + shortcut(x)) for `x` of shape (n, channels_in, h, w)."""
        residual = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(residual + self.shortcut(x))


class VGG16(nn.Sequential):
    """VGG-16 with batch normalisation in its CIFAR form, one classifier layer: input (n, 3, 32, 32)."""

    WIDTHS = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))

    def __init__(self) -> None:
        super().__init__()
        channels = 3
        for stage, widths in enumerate(self.WIDTHS, start=1):
            for layer, width in enumerate(widths, start=1):
                name = f"{stage}_{layer}"
                self.add_module(f"conv{name}", nn.Conv2d(channels, width, 3, padding=1, bias=False))
                self.add_module(f"bn{name}", nn.BatchNorm2d(width))
                self.add_module(f"relu{name}", nn.ReLU())
                channels = width
            self.add_module(f"pool{stage}", nn.MaxPool2d(2))
        self.add_module("flatten", nn.Flatten())
        self.add_module("fc", nn.Linear(channels, 10))


MODELS: dict[str, Callable[[], nn.Module]] = {
    "lenet-300-100": LeNet300,
    "lenet-5": LeNet5,
    "resnet-20": ResNet20,
    "vgg-16": VGG16,
    "mlp-mixer": Mixer,
}

INPUTS: dict[str, tuple[int, int, int]] = {
    "lenet-300-100": (1, 28, 28),
    "lenet-5": (1, 28, 28),
    "resnet-20": (3, 32, 32),
    "vgg-16": (3, 32, 32),
    "mlp-mixer": (3, 32, 32),
}
"""Channels, height and width of the images that a model takes."""

TARGETS: dict[tuple[str, str], dict[str, float]] = {
    ("lenet-300-100", "irregular"): {"fc1": 0.98, "fc2": 0.96, "fc3": 0.80},
    ("lenet-300-100", "filter"): {"fc1": 0.80, "fc2": 0.60},
    ("lenet-5", "irregular"): {"conv1": 0.60, "conv2": 0.95, "fc1": 0.99, "fc2": 0.90},
    ("lenet-5", "filter"): {"conv1": 0.50, "conv2": 0.70, "fc1": 0.80},
    ("resnet-20", "irregular"): {"stage*": 0.80},
    ("resnet-20", "filter"): {"*": 0.70},
    ("vgg-16", "irregular"): {"conv1_2": 0.80, "conv[2-5]_*": 0.80},
    ("vgg-16", "filter"): {"*": 0.70},
    ("mlp-mixer", "irregular"): {"blocks.*": 0.80},
    ("mlp-mixer", "filter"): {"blocks.*": 0.50},
}
"""Sparsity of every layer or pattern of layers by model and structure.

The first is the specification's setting. The first layer and the classifier of ResNet-20, VGG-16
and MLP-Mixer stay dense in ``"irregular"``; their ``"filter"`` takes channels out of all layers
that write them, see `COUPLED`.
"""

COUPLED = frozenset({("resnet-20", "filter"), ("vgg-16", "filter"), ("mlp-mixer", "filter")})
"""Which of `TARGETS` prune coupled channels, by ``example_inputs``."""


def build(name: str, seed: int) -> nn.Module:
    """Build a model with weights drawn from `seed`, leaving torch's global generator untouched.

    Raises
    ------
    UnknownNameError
        No model has that name.
    """
    if name not in MODELS:
        raise UnknownNameError("model", name, MODELS)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return MODELS[name]()
