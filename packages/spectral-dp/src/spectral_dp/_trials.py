"""One private training of an experiment: its examples, its first weights, its noise."""

from __future__ import annotations

import math
from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import nn

from spectral_dp._methods import (
    Examples,
    Kept,
    Training,
    accuracy,
    inputs,
    pretrain,
    quietly,
    spectrum,
    train,
)
from spectral_dp._planning import noise_multiplier
from spectral_dp._projections import Projection
from spectral_dp.models import build
from tenfold import SettingError, data

PUBLIC = {"mnist-5k": "fashion-mnist", "mnist": "fashion-mnist", "fashion-mnist": "mnist"}
PUBLIC_IMAGES = 5000


@dataclass(frozen=True)
class Splits:
    """The private examples of a run, and images of the public set where a method needs them."""

    variant: str
    train: Examples
    validation: Examples
    test: Examples
    public: Examples | None


@dataclass(frozen=True)
class Start:
    """A method before private training: its network, its projections, and the examples as it sees them."""

    method: str
    model: nn.Module
    projections: dict[str, Projection]
    splits: Splits


@dataclass(frozen=True)
class Trained:
    """A network after private training, and the epsilon that it spent."""

    model: nn.Module
    epsilon: float

    def accuracy(self, examples: Examples) -> float:
        """Return the accuracy in percent on examples as the method sees them."""
        return accuracy(self.model, examples)


def load(dataset: str, examples: int = 0, public: bool = False) -> Splits:
    """Load a data set.

    Parameters
    ----------
    dataset : str
    examples : int
        Training examples to keep, the first ones; 0 for all.
    public : bool
        Load the public data set, too.

    Raises
    ------
    SettingError
        There is no public data set beside this one.
    """
    if public and dataset not in PUBLIC:
        raise SettingError(
            f"pretraining or a subspace on {dataset}",
            f"a data set with a public one beside it: {', '.join(PUBLIC)}",
            "Leave subspaces out of methods, with pretrain_epochs=0.",
        )
    found = data.load(dataset)
    whole = _examples(found.train)
    count = examples or len(whole)
    return Splits(
        found.variant,
        Examples(whole.x[:count], whole.y[:count]),
        _examples(found.validation),
        _examples(found.test),
        _examples(data.load(PUBLIC[dataset]).train) if public else None,
    )


def _examples(split: data.Split) -> Examples:
    # MNIST's published mean and deviation: statistics of the training images would be private.
    x = (torch.from_numpy(split.images).float() / 255 - 0.1307) / 0.3081
    x = x.permute(0, 3, 1, 2) if x.ndim == 4 else x[:, None]
    return Examples(x.contiguous(), torch.from_numpy(split.labels).long())


def noise(epsilon: float, delta: float, samples: int, batch_size: int, epochs: int) -> float:
    """Return the noise multiplier that keeps a training to its budget."""
    batches = math.ceil(samples / batch_size)
    return noise_multiplier(epsilon, 1 / batches, epochs * batches, delta)


def start(model: str, method: str, splits: Splits, kept: Kept, pretrain_epochs: int, seed: int) -> Start:
    """Return what every private training of a method starts from, pretrained if wanted."""
    train, validation, test = (
        inputs(method, part, kept.ratio) for part in (splits.train, splits.validation, splits.test)
    )
    channels, height, width = validation.x.shape[1:]
    network = build(model, (channels, height, width), seed)
    few = None
    if splits.public is not None:
        if pretrain_epochs:
            pretrain(network, inputs(method, splits.public, kept.ratio), pretrain_epochs, seed)
        few = Examples(splits.public.x[:PUBLIC_IMAGES], splits.public.y[:PUBLIC_IMAGES])
        few = inputs(method, few, kept.ratio)
    projections = spectrum(method, network, few, kept)
    return Start(method, network, projections, Splits(splits.variant, train, validation, test, few))


def fit(first: Start, how: Training, seed: int) -> Trained:
    """Train a copy of the network privately."""
    with quietly():
        torch.manual_seed(seed)
        model, spent = train(first.method, deepcopy(first.model), first.projections, first.splits.train, how)
    return Trained(model, spent)
