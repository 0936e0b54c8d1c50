"""Classifiers of torchvision by name, with random weights or those of a file."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from tenfold import DataError, MissingExtraError, SettingError, UnknownNameError


def vision_model(name: str, classes: int = 1000, *, weights: Path | None = None, seed: int = 0) -> nn.Module:
    """Return a classifier of torchvision; nothing is downloaded.

    Parameters
    ----------
    name : str
        As torchvision has it: ``"resnet50"``, ``"mobilenet_v2"``, ``"swin_t"``, ...
    classes : int
        Number of outputs.
    weights : Path, optional
        File of a state dict, as ``torch.save(model.state_dict(), ...)`` writes it, for this model
        with this number of classes; random weights when not given.
    seed : int
        Seeds random weights; torch's global generator is left untouched.

    Raises
    ------
    MissingExtraError
        torchvision is not installed.
    UnknownNameError
        torchvision has no classifier of that name.
    SettingError
        `classes` is below 1.
    DataError
        The file is missing or corrupt, or holds the weights of another model.
    """
    if classes < 1:
        raise SettingError(f"classes is {classes}", "1 or more", "Raise classes.")
    try:
        from torchvision import models
    except ImportError as error:
        raise MissingExtraError(
            f"the model {name!r} was asked for and torchvision is not installed",
            "torchvision 0.25 or later",
            "Install it: pip install 'slr-prune[vision]'.",
        ) from error
    known = models.list_models(module=models)
    if name not in known:
        raise UnknownNameError("classifier of torchvision", name, known)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: nn.Module = models.get_model(name, weights=None, num_classes=classes)
    if weights is not None:
        _load(model, name, weights)
    return model


def _load(model: nn.Module, name: str, path: Path) -> None:
    try:
        model.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    except Exception as error:  # torch.load has no narrower promise about broken files
        raise DataError(
            f"{path} cannot be loaded into {name} ({error})",
            f"a state dict of {name} with as many classes",
            "Save it with torch.save(model.state_dict(), path).",
        ) from error
