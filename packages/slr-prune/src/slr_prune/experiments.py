"""The paper's experiment: accuracy at hard-prune without retraining, and epochs to get there.

A dense network is trained once a seed. From that checkpoint every method gets the same budgets of
epochs, each with a learning-rate schedule of its own, and in each budget the same number of
candidates of its one tuned hyperparameter; after every epoch the network is hard-pruned on the
side and measured on the validation split. The candidate with the best accuracy at the end of its
budget is the method's result in that budget, the best of the budgets is its result; a candidate
that diverges is out. The test split is read for the results alone, and chooses nothing.

How soon a method reaches an accuracy is the least epoch at which its result in any budget is
there. A short schedule is the fair test of that: a long one still has a high learning rate halfway.
Passes over the training set that a method spends beyond training count as epochs, too.

What follows the paper: SLR and ADMM from a dense checkpoint, sparsity per layer, hard-pruning
without retraining, then retraining under the masks. What differs: data and networks that fit a
laptop, and GMP in the comparison.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from torch import Tensor, nn

from slr_prune._admm import ADMMPruner
from slr_prune._gradual import GradualPruner
from slr_prune._lagrangian import LagrangianPruner
from slr_prune._oneshot import OneShotPruner
from slr_prune._pruner import Pruner
from slr_prune._results import epochs_table, methods_table, plot, remedies_table, retraining_table
from slr_prune._schemes import CONDITIONS, METHODS, NAMES, REMEDIES, Scheme
from slr_prune._slr import SLRPruner
from slr_prune._training import Examples, Loop, Precision, accuracy, annealed_sgd, train_epoch
from slr_prune.models import COUPLED, INPUTS, TARGETS, build
from tenfold import CheckpointError, DivergedError, SettingError, UnknownNameError
from tenfold.experiment import Claim, Experiment, Run, load_state, save_state

PAPER_SPEEDUP = 3.0
MARGIN = 0.5
DETAILS = ("residual", "step size", *CONDITIONS)


@dataclass(frozen=True)
class Settings:
    """Settings of ``slr-prune run``.

    Attributes
    ----------
    model, structure : str
        A key of `slr_prune.models.TARGETS`.
    sparsity : tuple of float
        Sparsity of the layers of that target, in its order; empty for the target's own.
    examples : int
        Training examples to use, the first ones of the data set; 0 for all.
    dense_epochs : int
    epochs : tuple of int
        Budgets: epochs of a candidate of a method, shortest first.
    retrain_epochs : int
        Epochs under the masks after the hard-prune of every method's result.
    batch_size : int
    dense_lr, lr : float
        Learning rates of dense training, and of pruning and retraining: SGD with momentum 0.9,
        annealed to a twentieth along a cosine, epoch by epoch.
    rhos : tuple of float
        Candidates for SLR and ADMM.
    ramps : tuple of float
        Candidates for GMP: the fraction of its epochs in which the sparsity rises.
    iterations : int
        Iterations of SLR and ADMM in an epoch.
    remedies : tuple of str
        Names in `slr_prune._schemes.REMEDIES`: changes that are tried as well, over the same candidates.
    precision : {"float32", "bfloat16"}
        Of the forward pass in training; all else is float32.
    dense_folder : str
        Where dense networks are kept for other runs with the same dense training; nowhere when empty.
    """

    model: str = "lenet-300-100"
    structure: str = "irregular"
    sparsity: tuple[float, ...] = ()
    examples: int = 0
    dense_epochs: int = 10
    epochs: tuple[int, ...] = (5, 10)
    retrain_epochs: int = 3
    batch_size: int = 64
    dense_lr: float = 0.1
    lr: float = 0.05
    rhos: tuple[float, ...] = (0.01, 0.03, 0.1)
    ramps: tuple[float, ...] = (0.3, 0.6, 0.9)
    iterations: int = 1
    remedies: tuple[str, ...] = ()
    precision: str = "float32"
    dense_folder: str = ""

    def __post_init__(self) -> None:
        if (self.model, self.structure) not in TARGETS:
            raise SettingError(
                f"model {self.model!r} with structure {self.structure!r}",
                "one of " + ", ".join(" / ".join(key) for key in TARGETS),
                "Use SLRPruner in a loop of your own for other models.",
            )
        if self.sparsity and len(self.sparsity) != len(TARGETS[self.model, self.structure]):
            layers = ", ".join(TARGETS[self.model, self.structure])
            raise SettingError(
                f"{len(self.sparsity)} sparsities",
                f"one for each of {layers}",
                "Write them separated by commas.",
            )
        for value in self.sparsity:
            if not 0 < value < 1:
                raise SettingError(
                    f"sparsity {value}",
                    "a fraction to remove between 0 and 1, both excluded",
                    "Write 0.9 to remove 90 %.",
                )
        for name in ("dense_epochs", "batch_size", "iterations"):
            if getattr(self, name) < 1:
                raise SettingError(f"{name} is {getattr(self, name)}", "1 or more", f"Raise {name}.")
        for name, zero in (("retrain_epochs", "leaves retraining out"), ("examples", "takes all")):
            if getattr(self, name) < 0:
                raise SettingError(f"{name} is {getattr(self, name)}", "0 or more", f"0 {zero}.")
        if not self.epochs or self.epochs[0] < 1 or list(self.epochs) != sorted(set(self.epochs)):
            raise SettingError(
                f"epochs is {self.epochs}", "numbers from 1 on, rising", "Write --set epochs=5,10."
            )
        for remedy in self.remedies:
            if remedy not in REMEDIES:
                raise UnknownNameError("remedy", remedy, REMEDIES)
        if self.precision not in get_args(Precision):
            raise SettingError(
                f"precision is {self.precision!r}", " or ".join(get_args(Precision)), "Choose one."
            )

    def targets(self) -> dict[str, float]:
        """Return the sparsity of every pruned layer or pattern of layers."""
        own = TARGETS[self.model, self.structure]
        return dict(zip(own, self.sparsity, strict=True)) if self.sparsity else own


@dataclass(frozen=True)
class Splits:
    """The examples of a run."""

    train: Examples
    validation: Examples
    test: Examples


def compare(run: Run[Settings]) -> None:
    """Compare SLR with ADMM, GMP and one-shot pruning, without retraining and with it."""
    settings = run.settings
    splits = _splits(run)

    dense = _dense(run, splits)
    run.metric("dense/test", accuracy(dense, splits.test))
    target = run.history["dense/validation"][-1] - MARGIN
    run.metric("target/validation", target)

    plain = Scheme("none")
    for method in METHODS:
        model, pruner = _tune(run, method, method, plain, dense, splits)
        _retrain(run, method, model, pruner, splits)
    for remedy in settings.remedies:
        for method in REMEDIES[remedy].methods:
            _tune(run, f"{method}+{remedy}", method, REMEDIES[remedy], dense, splits)

    goals = {"target": target, "ADMM": run.metrics["admm/validation"]}
    for remedy in settings.remedies:
        if "admm" in REMEDIES[remedy].methods:
            goals[f"ADMM+{remedy}"] = run.metrics[f"admm+{remedy}/validation"]
    for name in _names(settings.remedies):
        for goal, level in goals.items():
            reached = _epochs_to(run, name, level)
            if reached is not None:
                run.metric(f"{name}/epochs to {goal}", reached)
    run.claims.extend(_claims(run))


def _dense(run: Run[Settings], splits: Splits) -> nn.Module:
    """Train the dense network, or take it from the dense folder."""
    settings = run.settings
    model = _build(settings, run.seed)
    kept = Path(settings.dense_folder, f"seed-{run.seed}.npz") if settings.dense_folder else None
    training = {
        "dataset": run.dataset,
        "seed": run.seed,
        **{
            name: getattr(settings, name)
            for name in ("model", "examples", "dense_epochs", "dense_lr", "batch_size", "precision")
        },
    }
    if kept is not None and kept.exists():
        state = load_state(kept)
        if state["training"] != training:
            raise CheckpointError(
                f"{kept} is of other dense training: {state['training']}",
                f"{training}",
                "Choose another --set dense_folder, or the settings of that run.",
            )
        model.load_state_dict(state["model"])
        run.history.update(state["history"])
        return model
    generator = torch.Generator().manual_seed(run.seed)
    optimizer, schedule = annealed_sgd(model, settings.dense_lr, settings.dense_epochs)
    objects = {"model": model, "optimizer": optimizer, "schedule": schedule, "generator": generator}
    for _ in run.stage("dense", settings.dense_epochs, **objects):
        loss = train_epoch(model, None, splits.train, optimizer, generator, _loop(run))
        schedule.step()
        run.log("dense/loss", loss)
        run.log("dense/validation", accuracy(model, splits.validation))
    if kept is not None:
        history = {name: run.history[name] for name in ("dense/loss", "dense/validation")}
        save_state(kept, {"training": training, "model": model.state_dict(), "history": history})
    return model


def _tune(
    run: Run[Settings], name: str, method: str, scheme: Scheme, dense: nn.Module, splits: Splits
) -> tuple[nn.Module, Pruner]:
    """Run every candidate of a method; keep the best of each budget, and return the best of all."""
    best: tuple[nn.Module, Pruner] | None = None
    diverged: DivergedError | None = None
    for epochs in run.settings.epochs if method != "oneshot" else (1,):
        chosen = None
        for value in _values(run.settings, method):
            try:
                model, pruner = _prune(run, name, method, scheme, epochs, value, dense, splits)
            except DivergedError as error:
                diverged = error
                continue
            final = run.history[f"{name}/{_label(method, epochs, value)}/validation"][-1]
            if chosen is None or final > run.history[f"{chosen}/validation"][-1]:
                chosen = f"{name}/{_label(method, epochs, value)}"
                if best is None or final > run.metrics[f"{name}/validation"]:
                    best = (model, pruner)
                    run.metric(f"{name}/validation", final)
                    run.metric(f"{name}/epochs", epochs)
                    if method != "oneshot":
                        run.metric(f"{name}/chosen", value)
        if chosen is not None:
            for kind in ("validation", *DETAILS):
                if f"{chosen}/{kind}" in run.history:
                    run.history[f"best/{name}/{epochs}/{kind}"] = run.history[f"{chosen}/{kind}"]
    for kind in DETAILS:
        for series in [key for key in run.history if key.startswith(f"{name}/") and key.endswith(f"/{kind}")]:
            del run.history[series]
    if best is None:
        raise diverged or DivergedError(f"no candidate of {name}", "at least one", "Set candidates.")
    model, pruner = best
    with pruner.pruned():
        run.metric(f"{name}/test", accuracy(model, splits.test))
    return model, pruner


def _prune(
    run: Run[Settings],
    name: str,
    method: str,
    scheme: Scheme,
    epochs: int,
    value: float,
    dense: nn.Module,
    splits: Splits,
) -> tuple[nn.Module, Pruner]:
    """Run one candidate of a method."""
    settings = run.settings
    model = _build(settings, run.seed)
    model.load_state_dict(dense.state_dict())
    steps = epochs * -(-len(splits.train.y) // settings.batch_size)
    loop = _loop(run, scheme)
    pruner = _pruner(method, model, settings, scheme, value, steps, splits.train.x[:2])
    generator = torch.Generator().manual_seed(run.seed)
    optimizer, schedule = annealed_sgd(model, settings.lr, epochs)
    name = f"{name}/{_label(method, epochs, value)}"
    state: dict[str, Any] = {
        "model": model,
        "pruner": pruner,
        "optimizer": optimizer,
        "schedule": schedule,
        "generator": generator,
    }
    for epoch in run.stage(name, epochs, **state):
        if isinstance(pruner, LagrangianPruner):
            pruner.rho = value * scheme.growth ** (epoch / max(1, epochs - 1))
        if method != "oneshot":
            train_epoch(model, pruner, splits.train, optimizer, generator, loop)
            schedule.step()
        with pruner.pruned():
            run.log(f"{name}/validation", accuracy(model, splits.validation))
        if isinstance(pruner, LagrangianPruner):
            run.log(f"{name}/residual", pruner.residual())
        if isinstance(pruner, SLRPruner):
            run.log(f"{name}/step size", pruner.s)
            for index, condition in enumerate(CONDITIONS):
                held = [iteration.accepted[index] for iteration in pruner.history[-loop.iterations :]]
                run.log(f"{name}/{condition}", float(np.mean(held)))
    return model, pruner


def _retrain(run: Run[Settings], method: str, model: nn.Module, pruner: Pruner, splits: Splits) -> None:
    """Hard-prune, keep the network for later use, and train on under the masks."""
    settings = run.settings
    pruner.finalize()
    save_state(run.out / "pruned" / f"{method}.npz", model.state_dict())
    run.log(f"retrained/{method}/validation", run.metrics[f"{method}/validation"])
    run.log(f"retrained/{method}/test", run.metrics[f"{method}/test"])
    generator = torch.Generator().manual_seed(run.seed)
    optimizer, schedule = annealed_sgd(model, settings.lr, max(1, settings.retrain_epochs))
    state: dict[str, Any] = {
        "model": model,
        "pruner": pruner,
        "optimizer": optimizer,
        "schedule": schedule,
        "generator": generator,
    }
    for _ in run.stage(f"retrain/{method}", settings.retrain_epochs, **state):
        train_epoch(model, pruner, splits.train, optimizer, generator, _loop(run))
        schedule.step()
        run.log(f"retrained/{method}/validation", accuracy(model, splits.validation))
        run.log(f"retrained/{method}/test", accuracy(model, splits.test))


def _pruner(
    method: str,
    model: nn.Module,
    settings: Settings,
    scheme: Scheme,
    value: float,
    steps: int,
    example_inputs: Tensor,
) -> Pruner:
    targets = settings.targets()
    shared: dict[str, Any] = {"structure": settings.structure}
    if (settings.model, settings.structure) in COUPLED:
        shared["example_inputs"] = example_inputs
    if method == "slr":
        step_size = scheme.step * value
        return SLRPruner(model, targets, rho=value, step_size=step_size, on_reject=scheme.on_reject, **shared)
    if method == "admm":
        return ADMMPruner(model, targets, rho=value, **shared)
    if method == "gmp":
        return GradualPruner(model, targets, steps=max(1, round(steps * value)), **shared)
    return OneShotPruner(model, targets, **shared)


def _values(settings: Settings, method: str) -> tuple[float, ...]:
    return {"slr": settings.rhos, "admm": settings.rhos, "gmp": settings.ramps, "oneshot": (0.0,)}[method]


def _label(method: str, epochs: int, value: float) -> str:
    return f"epochs={epochs},{'ramp' if method == 'gmp' else 'rho'}={value:g}"


def _build(settings: Settings, seed: int) -> nn.Module:
    return build(settings.model, seed).to(memory_format=torch.channels_last)


def _loop(run: Run[Settings], scheme: Scheme | None = None) -> Loop:
    return Loop(
        batch_size=run.settings.batch_size,
        precision="bfloat16" if run.settings.precision == "bfloat16" else "float32",
        augment=run.dataset == "cifar10",
        iterations=run.settings.iterations * scheme.iterations if scheme else 1,
        exact=scheme.exact if scheme else False,
    )


def _splits(run: Run[Settings]) -> Splits:
    from tenfold import data

    found = data.load(run.dataset)
    run.variant = found.variant
    splits = [
        Examples(
            torch.from_numpy(data.normalise(split, found.train)),
            torch.from_numpy(split.labels.astype(np.int64)),
        )
        for split in (found.train, found.validation, found.test)
    ]
    shape = tuple(splits[0].x.shape[1:])
    if shape != INPUTS[run.settings.model]:
        fitting = [model for model, taken in INPUTS.items() if taken == shape]
        raise SettingError(
            f"model {run.settings.model!r} with images of shape {shape} from {run.dataset}",
            f"images of shape {INPUTS[run.settings.model]}",
            f"Choose --set model={' or '.join(fitting)}.",
        )
    train, validation, test = splits
    count = run.settings.examples or len(train.y)
    return Splits(Examples(train.x[:count], train.y[:count]), validation, test)


def _names(remedies: Sequence[str]) -> list[str]:
    """Return everything that was tuned: the methods, then the remedies of each."""
    return [*METHODS, *(f"{method}+{key}" for key in remedies for method in REMEDIES[key].methods)]


def _epochs_to(run: Run[Settings], name: str, level: float) -> float | None:
    """Return the least epoch at which the best candidate of a budget reaches `level`, if any does."""
    remedy = name.partition("+")[2]
    each = 1 + (_loop(run, REMEDIES[remedy]).cost if remedy else 0.0)
    reached = [
        epoch * each
        for epochs in run.settings.epochs
        for epoch, value in enumerate(run.history.get(f"best/{name}/{epochs}/validation", []), start=1)
        if value >= level
    ]
    return min(reached, default=None)


def _claims(run: Run[Settings]) -> list[Claim]:
    never = run.settings.epochs[-1] + 1

    def speed(goal: str, name: str, note: str) -> Claim:
        slr, admm = (run.metrics.get(f"{method}/epochs to {goal}") for method in ("slr", "admm"))
        if slr is None:
            note += "; SLR did not reach it, counted as 0"
        elif admm is None:
            note += f"; ADMM did not reach it, counted as {never} epochs"
        ours = 0.0 if slr is None else (admm or never) / slr
        return Claim.at_least(name, paper=PAPER_SPEEDUP, ours=ours, unit="x", note=note)

    margins = [
        Claim.at_least(
            f"hard-prune test accuracy without retraining, SLR minus {NAMES[other]}",
            paper=0.0,
            ours=run.metrics["slr/test"] - run.metrics[f"{other}/test"],
            unit="points",
            note="the paper claims higher accuracy; its tables were not obtainable"
            if other != "gmp"
            else "not compared in the paper",
        )
        for other in ("admm", "gmp", "oneshot")
    ]
    return [
        speed("ADMM", "epochs to ADMM's final accuracy, ADMM over SLR", "validation accuracy at hard-prune"),
        speed(
            "target",
            "epochs to target accuracy, ADMM over SLR",
            "target: dense validation accuracy minus 0.5 points",
        ),
        *margins,
    ]


run = Experiment(
    package="slr-prune",
    command="run",
    body=compare,
    quick=Settings(),
    full=Settings(
        dense_epochs=30,
        epochs=(5, 10, 20),
        retrain_epochs=10,
        rhos=(0.003, 0.01, 0.03, 0.1),
        ramps=(0.2, 0.4, 0.6, 0.8),
        remedies=tuple(REMEDIES),
    ),
    datasets=("mnist-5k", "mnist", "fashion-mnist", "cifar10"),
    tables={
        "methods": methods_table,
        "epochs": epochs_table,
        "retraining": retraining_table,
        "remedies": remedies_table,
    },
    plot=plot,
)
