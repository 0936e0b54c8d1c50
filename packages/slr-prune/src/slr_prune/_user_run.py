"""Prune a user's model, retrain it where asked to, and make it small: what ``slr-prune prune`` runs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from slr_prune._admm import ADMMPruner
from slr_prune._compact import compact
from slr_prune._example import ExampleInputs, run_model
from slr_prune._gradual import GradualPruner
from slr_prune._latency import latency, sparsity_for_latency
from slr_prune._oneshot import OneShotPruner
from slr_prune._pruner import Pruner
from slr_prune._schemes import METHODS
from slr_prune._sensitivity import sensitivity_scan
from slr_prune._slr import SLRPruner
from slr_prune._targets import erk, from_sensitivity, global_magnitude
from slr_prune._training import annealed_sgd
from slr_prune._units import COUPLED
from slr_prune._user_data import Images, Subset
from tenfold import SettingError, UnknownNameError
from tenfold.experiment import Run

TARGETS = ("uniform", "erk", "global", "sensitivity")

# GMP raises the sparsity over this share of its optimizer steps and trains on under the masks.
_RAMP = 0.7
# A sensitivity scan evaluates the model many times, each on at most so many of the train images.
_SCANNED = 2000


@dataclass(frozen=True)
class PruneSettings:
    """Settings of ``slr-prune prune``; a resumed run must have the same.

    Attributes
    ----------
    model, weights : str
        Name of what builds the model, and digest of the file.
    example : tuple of int
        Shape of the example input; empty where a program brings its own.
    structure : str
    method, targets : str
        One of `METHODS`, one of `TARGETS`.
    sparsity : float, optional
        For all layers together or each of them, as `targets` has it.
    layers : dict of str to float
        Sparsity by layer name or pattern.
    ignored_layers : tuple of str
    round_to : int
    milliseconds, speedup : float, optional
        What the compacted model is to take, instead of a sparsity.
    epochs, retrain_epochs : int
        Epochs with the pruner, and after hard-pruning under the masks.
    batch_size : int
    lr, rho : float
        Learning rate (SGD with momentum 0.9, annealed to a twentieth along a cosine in each of the
        two stages), and the penalty of SLR and ADMM.
    """

    model: str
    weights: str
    example: tuple[int, ...]
    structure: str
    method: str
    targets: str
    sparsity: float | None
    layers: Mapping[str, float]
    ignored_layers: tuple[str, ...]
    round_to: int
    milliseconds: float | None
    speedup: float | None
    epochs: int
    retrain_epochs: int
    batch_size: int
    lr: float
    rho: float

    def __post_init__(self) -> None:
        for kind, value, known in (("method", self.method, METHODS), ("targets", self.targets, TARGETS)):
            if value not in known:
                raise UnknownNameError(kind, value, known)
        for name, least in (("epochs", 1), ("retrain_epochs", 0), ("batch_size", 1), ("round_to", 1)):
            if getattr(self, name) < least:
                raise SettingError(
                    f"{name} is {getattr(self, name)}", f"a whole number from {least} on", f"Raise {name}."
                )
        if not (self.lr > 0 and math.isfinite(self.lr)):
            raise SettingError(f"lr is {self.lr}", "a finite number above 0", "Try 0.01.")
        timed = [value for value in (self.milliseconds, self.speedup) if value is not None]
        if len(timed) > 1 or (timed and (self.sparsity is not None or self.layers)):
            raise SettingError(
                "several of a sparsity, a latency and a speedup",
                "one of them",
                "Choose what to aim at.",
            )
        if not timed and self.sparsity is None and not self.layers:
            raise SettingError(
                "neither a sparsity nor a latency",
                "--sparsity, --layer, --latency or --speedup",
                "Say how much to prune, for example --sparsity 0.7.",
            )
        if timed and self.structure not in COUPLED:
            raise SettingError(
                f"a latency or speedup with structure {self.structure!r}",
                f"one of {', '.join(COUPLED)}, which remove channels",
                "Choose --structure filter.",
            )
        if self.targets != "uniform" and (self.layers or self.sparsity is None or self.structure in COUPLED):
            raise SettingError(
                f"targets {self.targets!r} with "
                + (f"structure {self.structure!r}" if self.structure in COUPLED else "sparsities by layer"),
                "--sparsity alone, and a structure within single layers",
                "Use --targets uniform: coupled layers need one sparsity, and --layer sets its own.",
            )


@dataclass(frozen=True, eq=False)
class Outcome:
    """What pruning made of a model.

    Attributes
    ----------
    model : nn.Module
        Compacted.
    sparsity : dict of str to float
        By pruned layer or group of layers.
    found : float, optional
        Sparsity that the latency asked for.
    """

    model: nn.Module
    sparsity: dict[str, float]
    found: float | None


def prune_model(
    run: Run[PruneSettings],
    model: nn.Module,
    example_inputs: ExampleInputs,
    train: Images | None,
) -> Outcome:
    """Prune `model` in place as the settings say, and return it compacted.

    Parameters
    ----------
    run : Run
        Its checkpoints make it resumable: with the same result as an undisturbed run.
    model : nn.Module
        Trained.
    example_inputs : Tensor, sequence or mapping
    train : Images, optional
        To train on. Without them, only one-shot pruning is possible.

    Raises
    ------
    SettingError
        The method or the targets need `train`; or the settings do not fit the model.
    DivergedError
        The loss became NaN or infinite.
    """
    settings = run.settings
    if train is None and (settings.method != "oneshot" or settings.retrain_epochs):
        raise SettingError(
            f"method {settings.method!r} with {settings.retrain_epochs} epochs of retraining, without data",
            "--method oneshot --retrain-epochs 0 where there is no --data to train on",
            "Give --data FOLDER, or prune one-shot.",
        )
    torch.manual_seed(run.seed)  # of dropout
    generator = torch.Generator().manual_seed(run.seed)
    sparsity, found = _sparsity(run, model, example_inputs, train)
    steps = 1 if train is None else settings.epochs * _batches(train, settings.batch_size)
    pruner = _pruner(settings, model, sparsity, example_inputs, steps)
    if train is not None and settings.method != "oneshot":
        _train(run, "prune", settings.epochs, model, pruner, train, generator)
    pruner.finalize()
    if train is not None and settings.retrain_epochs:
        _train(run, "retrain", settings.retrain_epochs, model, pruner, train, generator)
    model.eval()
    return Outcome(compact(model, example_inputs), pruner.sparsity, found)


@torch.no_grad()
def accuracy(model: nn.Module, images: Images, batch_size: int, *, whole: bool = False) -> float:
    """Return the percentage of images classified correctly, in evaluation mode.

    Parameters
    ----------
    model : nn.Module
    images : Images
    batch_size : int
    whole : bool
        Fill up the last batch, for programs that take no other number of images.
    """
    model.eval()
    correct = 0
    for index in torch.arange(len(images.labels)).split(batch_size):
        filled = F.pad(index, (0, batch_size - len(index))) if whole else index
        predicted = model(images.batch(filled))[: len(index)].argmax(1)
        correct += int((predicted == images.labels[index]).sum())
    return 100 * correct / len(images.labels)


def check_outputs(model: nn.Module, example_inputs: ExampleInputs, images: Images) -> None:
    """Raise `SettingError` unless a model gives a score for every class of the images."""
    output = run_model(model, example_inputs)
    classes = int(images.labels.max()) + 1
    if not isinstance(output, Tensor) or output.dim() != 2 or output.shape[1] < classes:
        came = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise SettingError(
            f"a model whose output is {came} for images of {classes} classes",
            f"a tensor of shape (batch, {classes})",
            "Give the data that the model was trained for.",
        )


def _sparsity(
    run: Run[PruneSettings], model: nn.Module, example_inputs: ExampleInputs, train: Images | None
) -> tuple[float | dict[str, float], float | None]:
    """Return what the pruner is to aim at, and the sparsity that a latency asked for."""
    settings = run.settings
    if settings.milliseconds is not None or settings.speedup is not None:
        # In a stage, since a resumed run would measure other times.
        for _ in run.stage("latency", 1):
            search = sparsity_for_latency(
                model,
                example_inputs,
                milliseconds=settings.milliseconds,
                speedup=settings.speedup,
                structure=settings.structure,
                ignored_layers=settings.ignored_layers,
                round_to=settings.round_to,
                measure=lambda candidate: latency(candidate, example_inputs, threads=run.threads),
            )
            run.log("latency/sparsity", search.sparsity)
        (found,) = run.history["latency/sparsity"]
        if not found:
            raise SettingError(
                "a target that the dense model meets already",
                "fewer milliseconds, or a speedup above 1",
                "Ask for more, or keep the model as it is.",
            )
        return found, found
    if settings.layers:
        everywhere = {} if settings.sparsity is None else {"*": settings.sparsity}
        return {**everywhere, **settings.layers}, None
    assert settings.sparsity is not None
    if settings.targets == "uniform":
        return settings.sparsity, None
    if settings.targets == "erk":
        return erk(model, settings.sparsity, settings.ignored_layers), None
    if settings.targets == "global":
        return global_magnitude(model, settings.sparsity, settings.ignored_layers), None
    if train is None:
        raise SettingError(
            "targets 'sensitivity' without data",
            "--data, to measure how much each layer's pruning costs",
            "Give --data FOLDER, or choose --targets erk.",
        )
    order = torch.randperm(len(train.labels), generator=torch.Generator().manual_seed(run.seed))
    some = Subset(train, order[:_SCANNED])
    scan = sensitivity_scan(
        model, lambda pruned: accuracy(pruned, some, settings.batch_size), structure=settings.structure
    )
    return from_sensitivity(scan, settings.sparsity, settings.ignored_layers), None


def _pruner(
    settings: PruneSettings,
    model: nn.Module,
    sparsity: float | Mapping[str, float],
    example_inputs: ExampleInputs,
    steps: int,
) -> Pruner:
    shared: dict[str, Any] = {"structure": settings.structure, "ignored_layers": settings.ignored_layers}
    if settings.structure in COUPLED:
        shared |= {"example_inputs": example_inputs, "round_to": settings.round_to}
    if settings.method == "slr":
        return SLRPruner(model, sparsity, rho=settings.rho, **shared)
    if settings.method == "admm":
        return ADMMPruner(model, sparsity, rho=settings.rho, **shared)
    if settings.method == "gmp":
        return GradualPruner(model, sparsity, steps=max(1, round(_RAMP * steps)), **shared)
    return OneShotPruner(model, sparsity, **shared)


def _train(
    run: Run[PruneSettings],
    stage: str,
    epochs: int,
    model: nn.Module,
    pruner: Pruner,
    train: Images,
    generator: torch.Generator,
) -> None:
    """Train for the epochs of a stage beside the pruner, from wherever an earlier attempt stopped."""
    settings = run.settings
    optimizer, schedule = annealed_sgd(model, settings.lr, epochs)
    state = {
        "model": model,
        "pruner": pruner,
        "optimizer": optimizer,
        "schedule": schedule,
        "generator": generator,
        "dropout": torch.default_generator,
    }
    for _ in run.stage(stage, epochs, **state):
        loss = _train_epoch(model, pruner, train, optimizer, settings.batch_size, generator)
        run.log(f"{stage}/loss", loss)
        pruner.step(loss)
        schedule.step()


def _train_epoch(
    model: nn.Module,
    pruner: Pruner,
    train: Images,
    optimizer: torch.optim.Optimizer,
    batch_size: int,
    generator: torch.Generator,
) -> float:
    """Train for one epoch and return the mean cross entropy."""
    model.train()
    images = len(train.labels)
    total = torch.zeros((), dtype=torch.float64)
    # Batches of about the same size: batch normalisation cannot train on a single image left over.
    for index in torch.randperm(images, generator=generator).tensor_split(_batches(train, batch_size)):
        loss = F.cross_entropy(model(train.batch(index)), train.labels[index])
        optimizer.zero_grad()
        loss.backward()
        pruner.add_gradient()
        optimizer.step()
        pruner.constrain()
        total += loss.detach().double() * len(index)
    return total.item() / images


def _batches(train: Images, batch_size: int) -> int:
    return -(-len(train.labels) // batch_size)
