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
from torch import nn

from slr_prune._admm import ADMMPruner
from slr_prune._gradual import GradualPruner
from slr_prune._lagrangian import LagrangianPruner
from slr_prune._oneshot import OneShotPruner
from slr_prune._pruner import Pruner
from slr_prune._slr import OnReject, SLRPruner
from slr_prune._training import Examples, Loop, Precision, accuracy, train_epoch
from slr_prune.models import INPUTS, TARGETS, build
from tenfold import CheckpointError, DivergedError, SettingError, UnknownNameError
from tenfold.experiment import Claim, Experiment, Record, Run, Table, estimate, load_state, save_state

PAPER_SPEEDUP = 3.0
MARGIN = 0.5
METHODS = ("slr", "admm", "gmp", "oneshot")
NAMES = {"slr": "SLR", "admm": "ADMM", "gmp": "GMP", "oneshot": "one-shot"}


@dataclass(frozen=True)
class Scheme:
    """How the Lagrangian methods iterate; the defaults are the paper's.

    Attributes
    ----------
    title : str
    step : float
        SLR's first step size over rho.
    iterations : int
        Iterations of the method in an epoch.
    growth : float
        rho in the last epoch over rho in the first; it rises geometrically.
    exact : bool
        Test SLR's conditions on the loss of a pass over the training set, not on the mean loss
        since the last iteration.
    on_reject : {"continue", "return"}
        See `slr_prune.SLRPruner`.
    methods : tuple of str
        Which methods it changes.
    """

    title: str
    step: float = 0.1
    iterations: int = 1
    growth: float = 1.0
    exact: bool = False
    on_reject: OnReject = "continue"
    methods: tuple[str, ...] = ("slr", "admm")


REMEDIES = {
    "step": Scheme("first step size half of rho", step=0.5, methods=("slr",)),
    "iterations": Scheme("8 iterations an epoch", iterations=8),
    "growth": Scheme("rho grows tenfold", growth=10.0),
    "exact": Scheme(
        "exact conditions, back to training when one fails", exact=True, on_reject="return", methods=("slr",)
    ),
}
"""Changes to SLR, and to ADMM where they apply to it, that ``--set remedies=`` adds to a run."""


@dataclass(frozen=True)
class Settings:
    """Settings of ``slr-prune run``.

    Attributes
    ----------
    model, structure : str
        A key of `slr_prune.models.TARGETS`.
    sparsity : tuple of float
        Sparsity of the layers of that target, in its order; empty for the target's own.
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
        Names in `REMEDIES`: changes to SLR that are tried as well, with the same candidates.
    precision : {"float32", "bfloat16"}
        Of the forward pass in training; all else is float32.
    dense_folder : str
        Where dense networks are kept for other runs with the same dense training; nowhere when empty.
    """

    model: str = "lenet-300-100"
    structure: str = "irregular"
    sparsity: tuple[float, ...] = ()
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
        if self.retrain_epochs < 0:
            raise SettingError(
                f"retrain_epochs is {self.retrain_epochs}", "0 or more", "0 leaves retraining out."
            )
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

    plain = Scheme("none", iterations=settings.iterations)
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
            for name in ("model", "dense_epochs", "dense_lr", "batch_size", "precision")
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
    optimizer, schedule = _optimizer(model, settings.dense_lr, settings.dense_epochs)
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
            for kind in ("validation", "residual", "step size", "condition 1", "condition 2"):
                if f"{chosen}/{kind}" in run.history:
                    run.history[f"best/{name}/{epochs}/{kind}"] = run.history[f"{chosen}/{kind}"]
    for kind in ("residual", "step size", "condition 1", "condition 2"):
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
    pruner = _pruner(method, model, settings, scheme, value, steps)
    generator = torch.Generator().manual_seed(run.seed)
    optimizer, schedule = _optimizer(model, settings.lr, epochs)
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
            train_epoch(model, pruner, splits.train, optimizer, generator, _loop(run, scheme))
            schedule.step()
        with pruner.pruned():
            run.log(f"{name}/validation", accuracy(model, splits.validation))
        if isinstance(pruner, LagrangianPruner):
            run.log(f"{name}/residual", pruner.residual())
        if isinstance(pruner, SLRPruner):
            run.log(f"{name}/step size", pruner.s)
            run.log(f"{name}/condition 1", pruner.accepted[0])
            run.log(f"{name}/condition 2", pruner.accepted[1])
    return model, pruner


def _retrain(run: Run[Settings], method: str, model: nn.Module, pruner: Pruner, splits: Splits) -> None:
    """Hard-prune, keep the network for later use, and train on under the masks."""
    settings = run.settings
    pruner.finalize()
    save_state(run.out / "pruned" / f"{method}.npz", model.state_dict())
    run.log(f"retrained/{method}/validation", run.metrics[f"{method}/validation"])
    run.log(f"retrained/{method}/test", run.metrics[f"{method}/test"])
    generator = torch.Generator().manual_seed(run.seed)
    optimizer, schedule = _optimizer(model, settings.lr, max(1, settings.retrain_epochs))
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
    method: str, model: nn.Module, settings: Settings, scheme: Scheme, value: float, steps: int
) -> Pruner:
    targets, structure = settings.targets(), settings.structure
    if method == "slr":
        return SLRPruner(
            model,
            targets,
            structure=structure,
            rho=value,
            step_size=scheme.step * value,
            on_reject=scheme.on_reject,
        )
    if method == "admm":
        return ADMMPruner(model, targets, structure=structure, rho=value)
    if method == "gmp":
        return GradualPruner(model, targets, structure=structure, steps=max(1, round(steps * value)))
    return OneShotPruner(model, targets, structure=structure)


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
        iterations=scheme.iterations if scheme else 1,
        exact=scheme.exact if scheme else False,
    )


def _optimizer(
    model: nn.Module, lr: float, epochs: int
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    optimizer = torch.optim.SGD(model.parameters(), lr, momentum=0.9)
    return optimizer, torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs, eta_min=lr / 20)


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
    return Splits(*splits)


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


def methods_table(records: Sequence[Record]) -> Table:
    """Tabulate accuracy at hard-prune, epochs to the target and accuracy after retraining, by method."""
    settings = records[0].settings
    retrained = settings["retrain_epochs"]
    rows = [["dense", _over(records, "dense/test"), "", "", "", ""]]
    for method in METHODS:
        differences = [record.metrics["slr/test"] - record.metrics[f"{method}/test"] for record in records]
        after = [record.history[f"retrained/{method}/test"][-1] for record in records]
        rows.append(
            [
                NAMES[method],
                _over(records, f"{method}/test"),
                "" if method == "slr" else estimate(differences),
                "" if method == "oneshot" else _reached(records, f"{method}/epochs to target"),
                estimate(after) if retrained else "",
                _chosen(records, method),
            ]
        )
    return Table(
        _title(records, "accuracy at hard-prune"),
        [
            "method",
            "test accuracy without retraining, %",
            "SLR minus it, points",
            "epochs to dense minus 0.5 points",
            f"test accuracy after {retrained} epochs of retraining, %",
            "chosen",
        ],
        rows,
    )


def epochs_table(records: Sequence[Record]) -> Table:
    """Tabulate the epochs to an accuracy, paired by seed, and the passes that SLR's conditions cost."""
    rows = []
    for goal, text in (("ADMM", "ADMM's final accuracy"), ("target", "dense minus 0.5 points")):
        pairs = [_pair(record, "slr", "admm", goal) for record in records]
        rows.append(
            [
                text,
                *(_reached(records, f"{method}/epochs to {goal}") for method in ("slr", "admm", "gmp")),
                *_paired(pairs),
            ]
        )
    return Table(
        _title(records, "epochs to a validation accuracy"), ["to reach", "SLR", "ADMM", "GMP", *PAIRED], rows
    )


def remedies_table(records: Sequence[Record]) -> Table:
    """Tabulate the changes to SLR that were tried, each against ADMM with the same change."""
    remedies = {
        "": "as in the paper",
        **{key: REMEDIES[key].title for key in records[0].settings["remedies"]},
    }
    rows = []
    for key, title in remedies.items():
        slr = f"slr+{key}" if key else "slr"
        admm = f"admm+{key}" if key and "admm" in REMEDIES[key].methods else "admm"
        margins = [record.metrics[f"{slr}/test"] - record.metrics[f"{admm}/test"] for record in records]
        pairs = [_pair(record, slr, admm, admm.replace("admm", "ADMM")) for record in records]
        rows.append(
            [
                title,
                _over(records, f"{slr}/test"),
                _over(records, f"{admm}/test") if admm != "admm" or not key else "as above",
                estimate(margins),
                _conditions(records, slr),
                *_paired(pairs),
            ]
        )
    return Table(
        _title(records, "changes to SLR"),
        [
            "change",
            "SLR, test accuracy, %",
            "ADMM with it, %",
            "SLR minus ADMM, points",
            "conditions 1, 2 held",
            *PAIRED,
        ],
        rows,
    )


def retraining_table(records: Sequence[Record]) -> Table:
    """Tabulate the test accuracy over the epochs of retraining under the masks."""
    epochs = records[0].settings["retrain_epochs"]
    rows = []
    for method in METHODS:
        curves = np.array([record.history[f"retrained/{method}/test"] for record in records])
        gains = (curves[:, -1] - curves[:, 0]) / max(1, epochs)
        rows.append([NAMES[method], *(estimate(column.tolist()) for column in curves.T), estimate(gains)])
    columns = ["method", "at hard-prune", *(f"epoch {epoch}" for epoch in range(1, epochs + 1))]
    return Table(
        _title(records, "test accuracy while retraining under the masks, %"),
        [*columns, "recovered an epoch, points"],
        rows,
    )


PAIRED = ("ADMM minus SLR, epochs", "ADMM over SLR", "SLR in half of ADMM's")


def _pair(record: Record, slr: str, admm: str, goal: str) -> tuple[float, float]:
    """Return the epochs of SLR and ADMM to a goal; not reached counts as one more than the longest budget."""
    never = record.settings["epochs"][-1] + 1
    first, second = (record.metrics.get(f"{name}/epochs to {goal}", never) for name in (slr, admm))
    return first, second


def _paired(pairs: Sequence[tuple[float, float]]) -> list[str]:
    half = sum(2 * slr <= admm for slr, admm in pairs)
    return [
        estimate([admm - slr for slr, admm in pairs], 1),
        estimate([admm / slr for slr, admm in pairs]),
        f"{half} of {len(pairs)} runs",
    ]


def _over(records: Sequence[Record], metric: str) -> str:
    return estimate([record.metrics[metric] for record in records])


def _reached(records: Sequence[Record], metric: str) -> str:
    hits = [record.metrics[metric] for record in records if metric in record.metrics]
    if len(hits) == len(records):
        return estimate(hits, 1)
    return f"{estimate(hits, 1)} ({len(hits)} of {len(records)} runs)"


def _chosen(records: Sequence[Record], method: str) -> str:
    if method == "oneshot":
        return ""

    def values(kind: str) -> str:
        return ", ".join(f"{value:g}" for value in sorted({record.metrics[kind] for record in records}))

    name = "ramp" if method == "gmp" else "rho"
    return f"{name} {values(f'{method}/chosen')}; {values(f'{method}/epochs')} epochs"


def _conditions(records: Sequence[Record], name: str) -> str:
    """Return how often the conditions held at the ends of the epochs of the best candidates."""
    texts = []
    for condition in ("condition 1", "condition 2"):
        flags = [
            flag
            for record in records
            for epochs in record.settings["epochs"]
            for flag in record.history.get(f"best/{name}/{epochs}/{condition}", [])
        ]
        texts.append(f"{100 * float(np.mean(flags)):.0f} %")
    return ", ".join(texts)


def _title(records: Sequence[Record], what: str) -> str:
    settings = records[0].settings
    sparsity = "".join(f", {100 * value:g} %" for value in settings["sparsity"])
    iterations = settings["iterations"]
    return (
        f"{settings['model']}, {settings['structure']}{sparsity}, {records[0].dataset}: {what}; "
        f"{' or '.join(map(str, settings['epochs']))} epochs of {iterations} "
        f"iteration{'s' * (iterations > 1)}, {settings['precision']}, "
        f"{len(records)} seed{'s' * (len(records) > 1)}, mean [95 % interval]"
    )


def plot(records: Sequence[Record], folder: Path) -> list[Path]:
    """Plot hard-prune accuracy, residual and step size over the epochs, and the retraining."""
    from tenfold.experiment import plots

    longest = records[0].settings["epochs"][-1]

    def curves(kind: str, methods: Sequence[str], epochs: int = longest) -> dict[str, list[list[float]]]:
        series = {method: f"best/{method}/{epochs}/{kind}" for method in methods}
        return {
            NAMES[method]: [record.history[key] for record in records if key in record.history]
            for method, key in series.items()
            if any(key in record.history for record in records)
        }

    target = float(np.mean([record.metrics["target/validation"] for record in records]))
    pictures = [
        plots.lines(
            folder / f"accuracy-{epochs}.png",
            curves("validation", ("slr", "admm", "gmp"), epochs),
            title=f"Accuracy at hard-prune, no retraining, {epochs} epochs",
            x="epoch",
            y="validation accuracy, %",
            level=("target", target),
        )
        for epochs in records[0].settings["epochs"]
    ]
    pictures.append(
        plots.lines(
            folder / "paired.png",
            {
                f"SLR minus {NAMES[other]}": [
                    np.subtract(
                        *(record.history[f"best/{name}/{longest}/validation"] for name in ("slr", other))
                    ).tolist()
                    for record in records
                    if all(f"best/{name}/{longest}/validation" in record.history for name in ("slr", other))
                ]
                for other in ("admm", "gmp")
            },
            title="Accuracy at hard-prune, paired by seed",
            x="epoch",
            y="difference, points",
            level=("equal", 0.0),
        )
    )
    pictures.append(
        plots.lines(
            folder / "residual.png",
            curves("residual", ("slr", "admm")),
            title="Distance from the sparsity set",
            x="epoch",
            y="residual |W − Z|",
            log_y=True,
        )
    )
    pictures.append(
        plots.lines(
            folder / "step-size.png",
            curves("step size", ("slr",)),
            title="SLR step size",
            x="epoch",
            y="s",
            log_y=True,
        )
    )
    pictures.append(
        plots.lines(
            folder / "retraining.png",
            {
                NAMES[method]: [record.history[f"retrained/{method}/test"] for record in records]
                for method in METHODS
            },
            title="Retraining under the masks",
            x="epoch",
            y="test accuracy, %",
            first=0,
        )
    )
    return pictures


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
