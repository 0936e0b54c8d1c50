"""A model of the user's: a file of weights, and the name of what builds the module for them."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from slr_prune._reload import load_compacted
from slr_prune._vision import vision_model
from slr_prune.models import INPUTS, MODELS, build
from tenfold import DataError, MissingExtraError, SettingError, UnknownNameError
from tenfold.experiment.cli import user_function

_VISION_INPUT = (3, 224, 224)


def build_model(name: str, classes: int | None) -> tuple[nn.Module, tuple[int, ...] | None]:
    """Build a model by name.

    Parameters
    ----------
    name : str
        Of a model of this package, of a classifier of torchvision, or ``module:function`` for a
        function (or class) that returns a module when called without arguments; modules in the
        current folder are found.
    classes : int, optional
        Outputs of a classifier of torchvision; 1000 when not given.

    Returns
    -------
    model : nn.Module
    shape : tuple of int, optional
        Of one input, where the name tells it.

    Raises
    ------
    UnknownNameError
        There is no such model, or no such function in the module; the nearest one is named.
    SettingError
        The module cannot be imported, the function fails or returns something else, or `classes`
        is given for a model that has its own number.
    MissingExtraError
        The name may be torchvision's, which is not installed.
    """
    if ":" not in name and name not in MODELS:
        return _build_of_torchvision(name, 1000 if classes is None else classes), _VISION_INPUT
    if classes is not None:
        raise SettingError(
            f"{classes} classes for model {name!r}, which has its own number of outputs",
            "a number of classes only for classifiers of torchvision",
            "Leave --classes out.",
        )
    if name in MODELS:
        return build(name, 0), INPUTS.get(name)
    return _call(name), None


def load_weights(model: nn.Module, path: Path) -> nn.Module:
    """Fill a model with the state dict in a file, as ``torch.save(model.state_dict(), path)`` wrote it.

    A file in which the state dict lies under ``"state_dict"`` or ``"model"`` is taken as well, and
    so is one of `slr_prune.save`, which gives a smaller copy of the model.

    Raises
    ------
    DataError
        The file is missing, truncated or no state dict, or does not fit the model: the first
        name or shape that differs is given.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, EOFError, RuntimeError, pickle.UnpicklingError, LookupError, ValueError) as error:
        raise DataError(
            f"{path} cannot be read ({str(error).splitlines()[0]})",
            "a whole file of torch.save(model.state_dict(), path)",
            "Save the state dict again, not the model itself, or look for a broken copy.",
        ) from error
    if isinstance(content, Mapping) and "format" in content:
        return load_compacted(path, model)
    for key in ("state_dict", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping) or not all(isinstance(item, Tensor) for item in content.values()):
        raise DataError(
            f"{path} holds a {type(content).__name__} that is no state dict",
            "tensors by name",
            "Write it with torch.save(model.state_dict(), path).",
        )
    _check_fit(path, content, model.state_dict())
    model.load_state_dict(content)
    return model


def _check_fit(path: Path, state: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    remedy = "Check --model and --classes: the file must be of this architecture."
    for name, tensor in expected.items():
        if name not in state:
            raise DataError(f"{path} lacks {name!r}", "every tensor of the model", remedy)
        if state[name].shape != tensor.shape:
            raise DataError(
                f"{name!r} of {path} has shape {tuple(state[name].shape)}",
                f"shape {tuple(tensor.shape)}, as in the model",
                remedy,
            )
    for name in state:
        if name not in expected:
            raise DataError(f"{path} has {name!r}, which the model has not", "only its tensors", remedy)


def _build_of_torchvision(name: str, classes: int) -> nn.Module:
    try:
        return vision_model(name, classes)
    except UnknownNameError as error:
        raise UnknownNameError("model", name, [*MODELS, *error.known]) from error
    except MissingExtraError as error:
        raise MissingExtraError(
            f"no model of this package is named {name!r}, and torchvision is not installed",
            f"one of {', '.join(MODELS)}, module:function, or a classifier of torchvision",
            error.remedy,
        ) from error


def _call(name: str) -> nn.Module:
    make = user_function(name)
    try:
        model = make()
    except Exception as error:  # it is the user's own code
        raise SettingError(
            f"{name} failed ({type(error).__name__}: {error})",
            "a function that builds a model without arguments",
            "Wrap it in one that gives its arguments.",
        ) from error
    if not isinstance(model, nn.Module):
        raise SettingError(
            f"{name} returned a {type(model).__name__}", "an nn.Module", "Name the function that builds it."
        )
    return model
