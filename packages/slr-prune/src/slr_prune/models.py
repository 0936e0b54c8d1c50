"""The small networks of the experiments, their sparsity targets, and their seeded construction."""

from collections.abc import Callable

import torch
from torch import nn

from tenfold import UnknownNameError


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


MODELS: dict[str, Callable[[], nn.Module]] = {"lenet-300-100": LeNet300, "lenet-5": LeNet5}

TARGETS: dict[tuple[str, str], dict[str, float]] = {
    ("lenet-300-100", "irregular"): {"fc1": 0.98, "fc2": 0.96, "fc3": 0.80},
    ("lenet-300-100", "filter"): {"fc1": 0.80, "fc2": 0.60},
    ("lenet-5", "irregular"): {"conv1": 0.60, "conv2": 0.95, "fc1": 0.99, "fc2": 0.90},
    ("lenet-5", "filter"): {"conv1": 0.50, "conv2": 0.70, "fc1": 0.80},
}
"""Sparsity of every layer by model and structure; the first is the specification's setting."""


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
