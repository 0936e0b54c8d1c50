"""A model of the user's with its tasks and data, by the names that a command line gives.

The options, settings and loop over batches that `dgba attack` and `dgba report` have in common.
"""

from __future__ import annotations

import pickle
import shlex
import shutil
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import torch
import typer
from rich.console import Console
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from dgba._attack import Targets
from dgba._tasks import Task
from tenfold import DataError, SettingError
from tenfold.experiment import Run
from tenfold.experiment.cli import INTERRUPTED, progress, user_function

Batches: TypeAlias = list[tuple[Tensor, Targets]]

ModelOption = Annotated[str, typer.Option(help="What builds it: mypkg.nets:make.")]
TasksOption = Annotated[str, typer.Option(help="What returns its tasks: mypkg.nets:tasks.")]
DataOption = Annotated[str, typer.Option(help="What returns a data set, or batches: mypkg.data:test.")]
WeightsOption = Annotated[Path | None, typer.Option(help="State dict to fill the model with.")]
ImagesOption = Annotated[int, typer.Option(min=1, help="How many, the first ones.")]
BatchSizeOption = Annotated[int, typer.Option(min=1, help="Images a batch.")]
SeedOption = Annotated[int, typer.Option(help="Of random starts and queries.")]
ThreadsOption = Annotated[int | None, typer.Option(min=1, help="Threads of torch.")]
OutOption = Annotated[Path, typer.Option(help="Folder for checkpoints and pictures.")]
JsonOption = Annotated[str | None, typer.Option("--json", help="Write the figures here; - for stdout.")]
ResumeOption = Annotated[bool, typer.Option("--resume", help="Go on after an interruption.")]
DebugOption = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]


@dataclass(frozen=True)
class UserModel:
    """What a user's model, its tasks and the images are read from.

    Attributes
    ----------
    model, tasks, data : str
        As for `read_model`, `read_tasks` and `read_batches`.
    weights : str
        Path of a state dict; empty for none.
    images, batch_size : int
        As for `read_batches`.
    """

    model: str
    weights: str
    tasks: str
    data: str
    images: int
    batch_size: int

    def load(self) -> tuple[nn.Module, tuple[Task, ...], Batches]:
        """Return the model, its tasks and the images in batches."""
        batches = read_batches(self.data, self.images, self.batch_size)
        weights = Path(self.weights) if self.weights else None
        return read_model(self.model, weights), read_tasks(self.tasks), batches


def over_batches(
    settings: UserModel,
    batches: Batches,
    add: Callable[[Tensor, Targets], None],
    *,
    seed: int,
    out: Path,
    resume: bool,
    **state: Any,
) -> None:
    """Call `add` on every batch, with a checkpoint of the state after each.

    Raises
    ------
    typer.Exit
        It was interrupted; how to go on has been printed.
    """
    if not resume:
        shutil.rmtree(out / "checkpoints", ignore_errors=True)
    try:
        with progress() as notify:
            run = Run(settings, settings.data, seed, torch.get_num_threads(), out, notify)
            for number in run.stage("batches", len(batches), **state):
                add(*batches[number])
    except KeyboardInterrupt:
        again = [*sys.argv[1:], *([] if resume else ["--resume"])]
        Console(stderr=True).print(
            f"interrupted; go on with: {shlex.join([Path(sys.argv[0]).name, *again])}", soft_wrap=True
        )
        raise typer.Exit(INTERRUPTED) from None


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


def read_batches(name: str, images: int, batch_size: int) -> Batches:
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
    batches: Batches = []
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
