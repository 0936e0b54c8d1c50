"""The paper's experiment: accuracy at hard-prune without retraining, and epochs to get there.

A dense network is trained once a seed. From that checkpoint every method gets the same number of
epochs for each of the same number of candidates of its one tuned hyperparameter; after every
epoch the network is hard-pruned on the side and measured. The candidate with the best accuracy on
the validation split at the end is the method's result; one that diverges is out. The test split is
measured alongside and chooses nothing. The target is the dense validation accuracy minus half a
point.

What follows the paper: SLR and ADMM from a dense checkpoint, sparsity per layer, hard-pruning
without retraining. What differs: data and networks that fit a laptop, and GMP in the comparison.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from slr_prune._admm import ADMMPruner
from slr_prune._gradual import GradualPruner
from slr_prune._lagrangian import LagrangianPruner
from slr_prune._oneshot import OneShotPruner
from slr_prune._pruner import Pruner
from slr_prune._slr import SLRPruner
from slr_prune._training import Examples, accuracy, train_epoch
from slr_prune.models import TARGETS, build
from tenfold import DivergedError, SettingError
from tenfold.experiment import Claim, Experiment, Record, Run, Table, estimate

PAPER_SPEEDUP = 3.0
MARGIN = 0.5
METHODS = ("slr", "admm", "gmp", "oneshot")
NAMES = {"slr": "SLR", "admm": "ADMM", "gmp": "GMP", "oneshot": "one-shot"}


@dataclass(frozen=True)
class Settings:
    """Settings of ``slr-prune run``.

    Attributes
    ----------
    model, structure : str
        A key of `slr_prune.models.TARGETS`.
    sparsity : tuple of float
        Sparsity of the layers of that target, in its order; empty for the target's own.
    dense_epochs, epochs : int
        Epochs of dense training, and of every candidate of every method.
    batch_size : int
    dense_lr, lr : float
        Learning rates of dense training and of pruning: SGD with momentum 0.9, annealed to a
        twentieth along a cosine, epoch by epoch.
    rhos : tuple of float
        Candidates for SLR and ADMM. SLR's first step size is a tenth of rho.
    ramps : tuple of float
        Candidates for GMP: the fraction of its epochs in which the sparsity rises.
    """

    model: str = "lenet-300-100"
    structure: str = "irregular"
    sparsity: tuple[float, ...] = ()
    dense_epochs: int = 10
    epochs: int = 10
    batch_size: int = 64
    dense_lr: float = 0.1
    lr: float = 0.05
    rhos: tuple[float, ...] = (0.003, 0.01, 0.03)
    ramps: tuple[float, ...] = (0.3, 0.6, 0.9)

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
        for name in ("dense_epochs", "epochs", "batch_size"):
            if getattr(self, name) < 1:
                raise SettingError(f"{name} is {getattr(self, name)}", "1 or more", f"Raise {name}.")

    def targets(self) -> dict[str, float]:
        """Return the sparsity of every pruned layer."""
        own = TARGETS[self.model, self.structure]
        return dict(zip(own, self.sparsity, strict=True)) if self.sparsity else own


def compare(run: Run[Settings]) -> None:
    """Compare SLR with ADMM, GMP and one-shot pruning, without retraining."""
    settings = run.settings
    train, validation, test = _examples(run)

    dense = build(settings.model, run.seed)
    generator = torch.Generator().manual_seed(run.seed)
    optimizer, schedule = _optimizer(dense, settings.dense_lr, settings.dense_epochs)
    state = {"model": dense, "optimizer": optimizer, "schedule": schedule, "generator": generator}
    for _ in run.stage("dense", settings.dense_epochs, **state):
        loss = train_epoch(dense, None, train, optimizer, settings.batch_size, generator)
        schedule.step()
        run.log("dense/loss", loss)
        run.log("dense/validation", accuracy(dense, validation))
    run.metric("dense/test", accuracy(dense, test))
    target = run.history["dense/validation"][-1] - MARGIN
    run.metric("target/validation", target)

    for method in METHODS:
        candidates = _candidates(method, settings, len(train.y))
        finished = []
        for label, make in candidates.items():
            try:
                _prune(run, f"{method}/{label}" if label else method, make, dense, train, validation, test)
                finished.append(label)
            except DivergedError as error:
                diverged = error
        if not finished:
            raise diverged
        best = max(finished, key=lambda label: run.history[_series(method, label, "validation")][-1])
        for kind in ("validation", "test", "residual", "step size"):
            series = _series(method, best, kind)
            if series in run.history:
                run.history[f"best/{method}/{kind}"] = run.history[series]
        curve = run.history[f"best/{method}/validation"]
        run.metric(f"{method}/test", run.history[f"best/{method}/test"][-1])
        run.metric(f"{method}/validation", curve[-1])
        reached = [epoch for epoch, value in enumerate(curve, start=1) if value >= target]
        if reached:
            run.metric(f"{method}/epochs to target", reached[0])
        if best:
            run.metric(f"{method}/chosen", float(best.split("=")[1]))
    _claim(run)


def _prune(
    run: Run[Settings],
    name: str,
    make: Callable[[nn.Module], Pruner],
    dense: nn.Module,
    train: Examples,
    validation: Examples,
    test: Examples,
) -> None:
    settings = run.settings
    model = build(settings.model, run.seed)
    model.load_state_dict(dense.state_dict())
    pruner = make(model)
    generator = torch.Generator().manual_seed(run.seed)
    epochs = 1 if isinstance(pruner, OneShotPruner) else settings.epochs
    optimizer, schedule = _optimizer(model, settings.lr, epochs)
    state: dict[str, Any] = {
        "model": model,
        "pruner": pruner,
        "optimizer": optimizer,
        "schedule": schedule,
        "generator": generator,
    }
    for _ in run.stage(name, epochs, **state):
        if not isinstance(pruner, OneShotPruner):
            pruner.step(train_epoch(model, pruner, train, optimizer, settings.batch_size, generator))
            schedule.step()
        with pruner.pruned():
            run.log(f"{name}/validation", accuracy(model, validation))
            run.log(f"{name}/test", accuracy(model, test))
        if isinstance(pruner, LagrangianPruner):
            run.log(f"{name}/residual", pruner.residual())
        if isinstance(pruner, SLRPruner):
            run.log(f"{name}/step size", pruner.s)
            run.log(f"{name}/condition 1", pruner.accepted[0])
            run.log(f"{name}/condition 2", pruner.accepted[1])


def _optimizer(
    model: nn.Module, lr: float, epochs: int
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    optimizer = torch.optim.SGD(model.parameters(), lr, momentum=0.9)
    return optimizer, torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs, eta_min=lr / 20)


def _candidates(method: str, settings: Settings, examples: int) -> dict[str, Callable[[nn.Module], Pruner]]:
    """Return what makes each candidate's pruner, by ``name=value``; one-shot has a nameless one."""
    steps = settings.epochs * -(-examples // settings.batch_size)
    targets, structure = settings.targets(), settings.structure

    def slr(rho: float) -> Callable[[nn.Module], Pruner]:
        return lambda model: SLRPruner(model, targets, structure=structure, rho=rho)

    def admm(rho: float) -> Callable[[nn.Module], Pruner]:
        return lambda model: ADMMPruner(model, targets, structure=structure, rho=rho)

    def gmp(ramp: float) -> Callable[[nn.Module], Pruner]:
        length = max(1, round(steps * ramp))
        return lambda model: GradualPruner(model, targets, structure=structure, steps=length)

    if method == "slr":
        return {f"rho={rho:g}": slr(rho) for rho in settings.rhos}
    if method == "admm":
        return {f"rho={rho:g}": admm(rho) for rho in settings.rhos}
    if method == "gmp":
        return {f"ramp={ramp:g}": gmp(ramp) for ramp in settings.ramps}
    return {"": lambda model: OneShotPruner(model, targets, structure=structure)}


def _series(method: str, label: str, kind: str) -> str:
    return "/".join(filter(None, (method, label, kind)))


def _examples(run: Run[Settings]) -> list[Examples]:
    from tenfold import data

    found = data.load(run.dataset)
    run.variant = found.variant
    return [
        Examples(
            torch.from_numpy(data.normalise(split, found.train)),
            torch.from_numpy(split.labels.astype(np.int64)),
        )
        for split in (found.train, found.validation, found.test)
    ]


def _claim(run: Run[Settings]) -> None:
    epochs = {method: run.metrics.get(f"{method}/epochs to target") for method in ("slr", "admm")}
    slr, admm = epochs["slr"], epochs["admm"]
    note = "target: dense validation accuracy minus 0.5 points"
    if slr is None:
        note += "; SLR did not reach it, counted as 0"
    elif admm is None:
        note += f"; ADMM did not reach it in {run.settings.epochs} epochs, counted as one more"
    run.claim(
        Claim.at_least(
            "epochs to target accuracy, ADMM over SLR",
            paper=PAPER_SPEEDUP,
            ours=0.0 if slr is None else (admm or run.settings.epochs + 1) / slr,
            unit="x",
            note=note,
        )
    )
    for other in ("admm", "gmp", "oneshot"):
        run.claim(
            Claim.at_least(
                f"hard-prune test accuracy without retraining, SLR minus {NAMES[other]}",
                paper=0.0,
                ours=run.metrics["slr/test"] - run.metrics[f"{other}/test"],
                unit="points",
                note="the paper claims higher accuracy; its tables were not obtainable"
                if other != "gmp"
                else "not compared in the paper",
            )
        )


def methods_table(records: Sequence[Record]) -> Table:
    """Tabulate accuracy at hard-prune and epochs to the target, by method."""
    first = records[0]
    dense = estimate([record.metrics["dense/test"] for record in records])
    rows = [["dense", dense, "–", "–"]]
    for method in METHODS:
        reached = [record.metrics.get(f"{method}/epochs to target") for record in records]
        hits = [value for value in reached if value is not None]
        chosen = {record.metrics.get(f"{method}/chosen") for record in records}
        text = estimate(hits, 1)
        if len(hits) < len(records):
            text = f"{text} ({len(hits)} of {len(records)} runs)"
        rows.append(
            [
                NAMES[method],
                estimate([record.metrics[f"{method}/test"] for record in records]),
                "–" if method == "oneshot" else text,
                ", ".join(f"{value:g}" for value in sorted(filter(None, chosen))) or "–",
            ]
        )
    settings = first.settings
    title = (
        f"{settings['model']}, {settings['structure']}, {first.dataset}: {settings['epochs']} epochs "
        f"without retraining, {len(records)} seed{'s' * (len(records) > 1)}, mean [95 % interval]"
    )
    return Table(
        title, ["method", "test accuracy at hard-prune, %", "epochs to target", "rho or ramp chosen"], rows
    )


def plot(records: Sequence[Record], folder: Path) -> list[Path]:
    """Plot hard-prune accuracy, residual and step size over the epochs."""
    from tenfold.experiment import plots

    def curves(kind: str, methods: Sequence[str]) -> dict[str, list[list[float]]]:
        return {
            NAMES[method]: [record.history[f"best/{method}/{kind}"] for record in records]
            for method in methods
            if f"best/{method}/{kind}" in records[0].history
        }

    target = float(np.mean([record.metrics["target/validation"] for record in records]))
    return [
        plots.lines(
            folder / "accuracy.png",
            curves("validation", ("slr", "admm", "gmp")),
            title="Accuracy at hard-prune, no retraining",
            x="epoch",
            y="validation accuracy, %",
            level=("target", target),
        ),
        plots.lines(
            folder / "residual.png",
            curves("residual", ("slr", "admm")),
            title="Distance from the sparsity set",
            x="epoch",
            y="residual |W − Z|",
            log_y=True,
        ),
        plots.lines(
            folder / "step-size.png",
            curves("step size", ("slr",)),
            title="SLR step size",
            x="epoch",
            y="s",
            log_y=True,
        ),
    ]


run = Experiment(
    package="slr-prune",
    command="run",
    body=compare,
    quick=Settings(),
    full=Settings(
        dense_epochs=30, epochs=30, rhos=(0.001, 0.003, 0.01, 0.03, 0.1), ramps=(0.2, 0.4, 0.6, 0.8, 0.95)
    ),
    datasets=("mnist-5k", "mnist", "fashion-mnist"),
    tables={"methods": methods_table},
    plot=plot,
)
