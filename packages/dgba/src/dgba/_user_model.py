"""A model of the user's with its tasks and data, by the names that a command line gives."""

from __future__ import annotations

import pickle
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from dgba._attack import Targets
from dgba._tasks import Task
from tenfold import DataError, SettingError
from tenfold.experiment.cli import user_function


def read_model(name: str, weights: Path | None) -> nn.Module:
    """Build the model that ``module:function`` returns, and fill it from a file if there is one.

    Parameters
    ----------
    name : str
        Of a function or class that returns a module when called without arguments; modules in the
        current folder are found.
    weights : Path, optional
        What ``torch.save(model.state_dict(), path)`` wrote; a state dict under ``"state_dict"`` or
        ``"model"`` is taken as well.

    Raises
    ------
    SettingError
        The function fails or returns something else.
    DataError
        The file is missing, broken, or of another model.
    """
    model = _call(name)
    if not isinstance(model, nn.Module):
        raise SettingError(
            f"{name} returned a {type(model).__name__}", "an nn.Module", "Name the function that builds it."
        )
    if weights is None:
        return model
    try:
        state = torch.load(weights, map_location="cpu", weights_only=True)
        for key in ("state_dict", "model"):
            if isinstance(state, dict) and isinstance(state.get(key), dict):
                state = state[key]
        model.load_state_dict(state)
    except (OSError, EOFError, RuntimeError, pickle.UnpicklingError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())[:300]
        raise DataError(
            f"{weights} does not fit {name} ({reason})",
            "a file of torch.save(model.state_dict(), path) of this model",
            "Check --model and --weights.",
        ) from error
    return model


def read_tasks(name: str) -> tuple[Task, ...]:
    """Return the tasks that ``module:function`` returns.

    Raises
    ------
    SettingError
        The function fails or returns something else.
    """
    tasks = _call(name)
    found = tuple(tasks) if isinstance(tasks, Iterable) else ()
    if not found or not all(isinstance(task, Task) for task in found):
        raise SettingError(
            f"{name} returned {tasks!r:.80}",
            "a sequence of dgba.Task",
            "Return [segmentation('seg', 21), ...].",
        )
    return found


def read_batches(name: str, images: int, batch_size: int) -> list[tuple[Tensor, Targets]]:
    """Return the first images of what ``module:function`` returns, in batches.

    Parameters
    ----------
    name : str
        Of a function that returns a data set of ``(image, targets)``, or an iterable of batches
        ``(images, targets)``.
    images : int
        How many.
    batch_size : int
        Of a data set's batches.

    Raises
    ------
    SettingError
        The function fails or returns something else.
    DataError
        There are no images.
    """
    data = _call(name)
    if isinstance(data, Dataset):
        data = DataLoader(data, batch_size)
    if not isinstance(data, Iterable):
        raise SettingError(
            f"{name} returned a {type(data).__name__}",
            "a torch Dataset of (image, targets), or batches (images, targets)",
            "Return one of these.",
        )
    batches: list[tuple[Tensor, Targets]] = []
    left = images
    for batch in data:
        if left <= 0:
            break
        some, targets = _checked(name, batch)
        batches.append((some[:left], {key: target[:left] for key, target in targets.items()}))
        left -= len(some)
    if not batches:
        raise DataError(f"{name} gave no images", "one at least", "Look for an empty data set.")
    return batches


def _checked(name: str, batch: Any) -> tuple[Tensor, Targets]:
    if (
        isinstance(batch, Sequence)
        and len(batch) == 2
        and isinstance(batch[0], Tensor)
        and isinstance(batch[1], dict)
        and all(isinstance(target, Tensor) and len(target) == len(batch[0]) for target in batch[1].values())
    ):
        return batch[0], batch[1]
    raise SettingError(
        f"{name} gave a batch of {type(batch).__name__}",
        "(images, targets): a tensor, and a tensor of as many by task name",
        "Return images in [0, 1] and a dict of targets.",
    )


def _call(name: str) -> Any:
    make = user_function(name)
    try:
        return make()
    except Exception as error:  # it is the user's own code
        raise SettingError(
            f"{name} failed ({type(error).__name__}: {error})",
            "a function that works without arguments",
            "Wrap it in one that gives its arguments.",
        ) from error
