"""The paper's claim for detection and segmentation: epochs to a wanted accuracy, SLR against ADMM.

The protocol is that of `slr_prune.experiments`: one dense network a task and seed; from there
every method gets the same epochs for each of the same number of candidates of its one
hyperparameter, at one sparsity and without retraining; the network is hard-pruned on the side and
measured on the validation split after every epoch. That split chooses the candidate; the test split
is looked at once, at the end. The target is the dense validation figure minus two points.

What follows the paper: both tasks, sparsity in every convolution but those that predict, and the
claim of twice fewer epochs than ADMM. What differs: small networks on generated scenes or on a
folder of real images in the layout of COCO, KITTI or TuSimple, and GMP in the comparison.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from slr_prune._admm import ADMMPruner
from slr_prune._dense.annotated import AnnotatedImages
from slr_prune._dense.detection import CenterDetector, detect, detection_loss, detection_targets
from slr_prune._dense.layouts import LAYOUTS, read_layout
from slr_prune._dense.precision import mean_average_precision
from slr_prune._dense.scenes import MINIMUM_SIZE, generate_scenes
from slr_prune._dense.segmentation import UNet, mean_iou, segmentation_loss
from slr_prune._gradual import GradualPruner
from slr_prune._lagrangian import LagrangianPruner
from slr_prune._oneshot import OneShotPruner
from slr_prune._pruner import Pruner
from slr_prune._schemes import METHODS, NAMES
from slr_prune._slr import SLRPruner
from slr_prune._training import annealed_sgd
from tenfold import DivergedError, SettingError
from tenfold.experiment import Claim, Experiment, Record, Run, Table, estimate

PAPER_SPEEDUP = 2.0
MARGIN = 2.0
BATCH = 100


@dataclass(frozen=True)
class Task:
    """What differs between the tasks.

    Attributes
    ----------
    metric : str
        Name of `score`, which is in percent.
    build : callable
        Makes the network for a number of object classes and a width.
    ignored_layers : tuple of str
        Layers that stay dense.
    targets : callable
        Makes what `loss` compares with, indexed by image.
    loss : callable
        Takes the network's output and the targets of a batch.
    score : callable
        Takes the network's output on all images and the images.
    """

    metric: str
    build: Callable[[int, int], nn.Module]
    ignored_layers: tuple[str, ...]
    targets: Callable[[AnnotatedImages], Any]
    loss: Callable[[Tensor, Any], Tensor]
    score: Callable[[Tensor, AnnotatedImages], float]


def _class_map(examples: AnnotatedImages) -> Tensor:
    if examples.class_map is None:
        raise SettingError("images without masks", "masks", "Use data that has them for segmentation.")
    return examples.class_map


def _segmentation_score(output: Tensor, examples: AnnotatedImages) -> float:
    return 100 * mean_iou(output.argmax(1), _class_map(examples), len(examples.classes) + 1)


def _detection_score(output: Tensor, examples: AnnotatedImages) -> float:
    return 100 * mean_average_precision(detect(output, len(examples.classes)), examples)[0]


TASKS = {
    "detection": Task(
        "mAP at IoU 0.5",
        lambda classes, width: CenterDetector(classes, width=width),
        ("heat.1", "sides.1"),
        detection_targets,
        detection_loss,
        _detection_score,
    ),
    "segmentation": Task(
        "mean IoU",
        lambda classes, width: UNet(classes + 1, width=width),
        ("predict",),
        _class_map,
        segmentation_loss,
        _segmentation_score,
    ),
}


@dataclass(frozen=True)
class Settings:
    """Settings of ``slr-prune tasks``.

    Attributes
    ----------
    task : str
        ``detection``, ``segmentation`` or ``both``.
    data, layout : str
        Folder of real images and its layout, ``coco``, ``kitti`` or ``tusimple``; both empty for
        generated scenes.
    size : int
        Height and width of the images in pixels, a multiple of 16 from 32 on.
    train, validation, test : int
        Images of the splits, drawn by the seed.
    width : int
        Channels of the networks' first layer.
    sparsity : float
        Fraction to remove from every pruned convolution.
    structure : str
        A structure of `slr_prune.STRUCTURES`.
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

    task: str = "both"
    data: str = ""
    layout: str = ""
    size: int = 32
    train: int = 400
    validation: int = 150
    test: int = 250
    width: int = 6
    sparsity: float = 0.8
    structure: str = "irregular"
    dense_epochs: int = 12
    epochs: int = 6
    batch_size: int = 8
    dense_lr: float = 0.03
    lr: float = 0.02
    rhos: tuple[float, ...] = (0.3, 1.0)
    ramps: tuple[float, ...] = (0.4, 0.8)

    def __post_init__(self) -> None:
        if self.task not in (*TASKS, "both"):
            raise SettingError(f"task is {self.task!r}", "detection, segmentation or both", "Choose one.")
        if bool(self.data) != bool(self.layout):
            raise SettingError(
                f"data {self.data!r} with layout {self.layout!r}",
                "a folder and its layout, or neither",
                f"Write --set data=FOLDER --set layout=NAME, one of {', '.join(LAYOUTS)}.",
            )
        if self.layout and self.layout not in LAYOUTS:
            raise SettingError(f"layout is {self.layout!r}", f"one of {', '.join(LAYOUTS)}", "Choose one.")
        if self.layout == "kitti" and self.task != "detection":
            raise SettingError(
                f"layout kitti with task {self.task}",
                "masks, which that layout has none of",
                "Write --set task=detection.",
            )
        if self.size % 16 or self.size < MINIMUM_SIZE:
            raise SettingError(f"size is {self.size}", "a multiple of 16 from 32 on", "Write --set size=64.")
        for name in ("train", "validation", "test", "width", "dense_epochs", "epochs", "batch_size"):
            if getattr(self, name) < 1:
                raise SettingError(f"{name} is {getattr(self, name)}", "1 or more", f"Raise {name}.")
        if not 0 < self.sparsity < 1:
            raise SettingError(
                f"sparsity {self.sparsity}",
                "a fraction to remove between 0 and 1, both excluded",
                "Write 0.9 to remove 90 %.",
            )
        for name in ("rhos", "ramps"):
            if not getattr(self, name):
                raise SettingError(f"no {name}", "at least one candidate", f"Write --set {name}=VALUE.")
        if len(self.rhos) != len(self.ramps):
            raise SettingError(
                f"{len(self.rhos)} rhos and {len(self.ramps)} ramps",
                "as many of one as of the other, so that every method is tuned alike",
                "Write them separated by commas.",
            )

    @property
    def tasks(self) -> tuple[str, ...]:
        """The tasks to run."""
        return tuple(TASKS) if self.task == "both" else (self.task,)


@dataclass(frozen=True, eq=False)
class Split:
    """Annotated images with the targets that a task makes of them."""

    examples: AnnotatedImages
    targets: Any


def compare(run: Run[Settings]) -> None:
    """Compare SLR with ADMM, GMP and one-shot pruning on detection and segmentation."""
    parts = _images(run.settings, run.seed).split(
        [run.settings.train, run.settings.validation, run.settings.test]
    )
    for name in run.settings.tasks:
        task = TASKS[name]
        splits = [Split(part, task.targets(part)) for part in parts]
        _compare_on(run, name, *splits)
        _claim(run, name)


def _images(settings: Settings, seed: int) -> AnnotatedImages:
    count = settings.train + settings.validation + settings.test
    generator = np.random.default_rng(seed)
    if not settings.layout:
        return generate_scenes(count, generator, size=settings.size, shapes=3)
    return read_layout(
        settings.layout, Path(settings.data), size=settings.size, count=count, generator=generator
    )


def _compare_on(run: Run[Settings], name: str, train: Split, validation: Split, test: Split) -> None:
    settings = run.settings
    dense = _build(name, settings, train, run.seed)
    generator = torch.Generator().manual_seed(run.seed)
    optimizer, schedule = annealed_sgd(dense, settings.dense_lr, settings.dense_epochs)
    state = {"model": dense, "optimizer": optimizer, "schedule": schedule, "generator": generator}
    for _ in run.stage(f"{name}/dense", settings.dense_epochs, **state):
        loss = _train_epoch(TASKS[name], dense, None, train, optimizer, settings.batch_size, generator)
        schedule.step()
        run.log(f"{name}/dense/loss", loss)
        run.log(f"{name}/dense/validation", _score(TASKS[name], dense, validation))
    run.metric(f"{name}/dense/test", _score(TASKS[name], dense, test))
    target = run.history[f"{name}/dense/validation"][-1] - MARGIN
    run.metric(f"{name}/target/validation", target)

    for method in METHODS:
        finished = []
        for label, make in _candidates(name, method, settings).items():
            series = "/".join(filter(None, (name, method, label)))
            try:
                _prune(run, name, series, make, dense, train, validation, test)
                finished.append((series, label))
            except DivergedError as error:
                diverged = error
        if not finished:
            raise diverged
        best, label = max(finished, key=lambda item: run.history[f"{item[0]}/validation"][-1])
        for kind in ("validation", "test", "residual"):
            if f"{best}/{kind}" in run.history:
                run.history[f"{name}/best/{method}/{kind}"] = run.history[f"{best}/{kind}"]
        curve = run.history[f"{best}/validation"]
        run.metric(f"{name}/{method}/validation", curve[-1])
        run.metric(f"{name}/{method}/test", run.history[f"{best}/test"][-1])
        reached = [epoch for epoch, value in enumerate(curve, start=1) if value >= target]
        if reached:
            run.metric(f"{name}/{method}/epochs to target", reached[0])
        if label:
            run.metric(f"{name}/{method}/chosen", float(label.split("=")[1]))


def _prune(
    run: Run[Settings],
    name: str,
    series: str,
    make: Callable[[nn.Module], Pruner],
    dense: nn.Module,
    train: Split,
    validation: Split,
    test: Split,
) -> None:
    settings, task = run.settings, TASKS[name]
    model = _build(name, settings, train, run.seed)
    model.load_state_dict(dense.state_dict())
    pruner = make(model)
    generator = torch.Generator().manual_seed(run.seed)
    epochs = 1 if isinstance(pruner, OneShotPruner) else settings.epochs
    optimizer, schedule = annealed_sgd(model, settings.lr, epochs)
    state: dict[str, Any] = {
        "model": model,
        "pruner": pruner,
        "optimizer": optimizer,
        "schedule": schedule,
        "generator": generator,
    }
    for epoch in run.stage(series, epochs, **state):
        if not isinstance(pruner, OneShotPruner):
            pruner.step(_train_epoch(task, model, pruner, train, optimizer, settings.batch_size, generator))
            schedule.step()
        with pruner.pruned():
            run.log(f"{series}/validation", _score(task, model, validation))
            if epoch == epochs - 1:
                run.log(f"{series}/test", _score(task, model, test))
        if isinstance(pruner, LagrangianPruner):
            run.log(f"{series}/residual", pruner.residual())


def _build(name: str, settings: Settings, split: Split, seed: int) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return TASKS[name].build(len(split.examples.classes), settings.width)


def _train_epoch(
    task: Task,
    model: nn.Module,
    pruner: Pruner | None,
    split: Split,
    optimizer: torch.optim.Optimizer,
    batch_size: int,
    generator: torch.Generator,
) -> float:
    """Train for one epoch and return the mean loss, without the pruner's penalty."""
    model.train()
    count = len(split.examples)
    total = torch.zeros((), dtype=torch.float64)
    for index in torch.randperm(count, generator=generator).split(batch_size):
        loss = task.loss(model(split.examples.images[index]), split.targets[index])
        optimizer.zero_grad()
        loss.backward()
        if pruner is not None:
            pruner.add_gradient()
        optimizer.step()
        if pruner is not None:
            pruner.constrain()
        total += loss.detach().double() * len(index)
    return total.item() / count


@torch.no_grad()
def _score(task: Task, model: nn.Module, split: Split) -> float:
    model.eval()
    output = torch.cat([model(images) for images in split.examples.images.split(BATCH)])
    if not output.isfinite().all():
        raise DivergedError("the network's output became NaN or infinite", "finite numbers", "Lower lr.")
    return task.score(output, split.examples)


def _candidates(name: str, method: str, settings: Settings) -> dict[str, Callable[[nn.Module], Pruner]]:
    """Return what makes each candidate's pruner, by ``name=value``; one-shot has a nameless one."""
    steps = settings.epochs * -(-settings.train // settings.batch_size)
    shared: dict[str, Any] = {
        "sparsity": settings.sparsity,
        "structure": settings.structure,
        "ignored_layers": TASKS[name].ignored_layers,
    }

    def slr(rho: float) -> Callable[[nn.Module], Pruner]:
        return lambda model: SLRPruner(model, rho=rho, **shared)

    def admm(rho: float) -> Callable[[nn.Module], Pruner]:
        return lambda model: ADMMPruner(model, rho=rho, **shared)

    def gmp(ramp: float) -> Callable[[nn.Module], Pruner]:
        return lambda model: GradualPruner(model, steps=max(1, round(steps * ramp)), **shared)

    if method == "slr":
        return {f"rho={rho:g}": slr(rho) for rho in settings.rhos}
    if method == "admm":
        return {f"rho={rho:g}": admm(rho) for rho in settings.rhos}
    if method == "gmp":
        return {f"ramp={ramp:g}": gmp(ramp) for ramp in settings.ramps}
    return {"": lambda model: OneShotPruner(model, **shared)}


def _claim(run: Run[Settings], name: str) -> None:
    slr, admm = (run.metrics.get(f"{name}/{method}/epochs to target") for method in ("slr", "admm"))
    note = f"target: dense validation {TASKS[name].metric} minus {MARGIN:g} points"
    if slr is None:
        note += "; SLR did not reach it, counted as 0"
    elif admm is None:
        note += f"; ADMM did not reach it in {run.settings.epochs} epochs, counted as one more"
    run.claim(
        Claim.at_least(
            f"{name}: epochs to target {TASKS[name].metric}, ADMM over SLR",
            paper=PAPER_SPEEDUP,
            ours=0.0 if slr is None else (admm or run.settings.epochs + 1) / slr,
            unit="x",
            note=note,
        )
    )
    for other in ("admm", "gmp", "oneshot"):
        run.claim(
            Claim.at_least(
                f"{name}: hard-prune test {TASKS[name].metric} without retraining, SLR minus {NAMES[other]}",
                paper=0.0,
                ours=run.metrics[f"{name}/slr/test"] - run.metrics[f"{name}/{other}/test"],
                unit="points",
                note="the paper claims higher accuracy; its tables were not obtainable"
                if other != "gmp"
                else "not compared in the paper",
            )
        )


def tasks_table(records: Sequence[Record]) -> Table:
    """Tabulate the figures at hard-prune and epochs to the target, by task and method."""
    settings = records[0].settings
    names = TASKS if settings["task"] == "both" else (settings["task"],)
    rows = []
    for name in names:
        dense = estimate([record.metrics[f"{name}/dense/test"] for record in records])
        rows.append([f"{name}, {TASKS[name].metric}", "dense", dense, "–", "–"])
        for method in METHODS:
            key = f"{name}/{method}"
            reached = [record.metrics.get(f"{key}/epochs to target") for record in records]
            hits = [value for value in reached if value is not None]
            text = estimate(hits, 1)
            if len(hits) < len(records):
                text = f"{text} ({len(hits)} of {len(records)} runs)"
            chosen = {record.metrics.get(f"{key}/chosen") for record in records}
            rows.append(
                [
                    "",
                    NAMES[method],
                    estimate([record.metrics[f"{key}/test"] for record in records]),
                    "–" if method == "oneshot" else text,
                    ", ".join(f"{value:g}" for value in sorted(filter(None, chosen))) or "–",
                ]
            )
    title = (
        f"{settings['layout'] or 'generated scenes'} of {settings['size']} x {settings['size']}, "
        f"{100 * settings['sparsity']:g} % {settings['structure']}: {settings['epochs']} epochs without "
        f"retraining, {len(records)} seed{'s' * (len(records) > 1)}, mean [95 % interval]"
    )
    columns = ["task", "method", "test figure at hard-prune, %", "epochs to target", "rho or ramp chosen"]
    return Table(title, columns, rows)


def plot(records: Sequence[Record], folder: Path) -> list[Path]:
    """Plot the figure at hard-prune over the epochs, one picture a task."""
    from tenfold.experiment import plots

    task = records[0].settings["task"]
    return [
        plots.lines(
            folder / f"{name}.png",
            {
                NAMES[method]: [record.history[f"{name}/best/{method}/validation"] for record in records]
                for method in ("slr", "admm", "gmp")
            },
            title=f"{name.capitalize()} at hard-prune, no retraining",
            x="epoch",
            y=f"validation {TASKS[name].metric}, %",
            level=(
                "target",
                float(np.mean([record.metrics[f"{name}/target/validation"] for record in records])),
            ),
        )
        for name in (TASKS if task == "both" else (task,))
    ]


tasks = Experiment(
    package="slr-prune",
    command="tasks",
    body=compare,
    quick=Settings(),
    full=Settings(
        size=64,
        train=1000,
        validation=300,
        test=500,
        width=8,
        dense_epochs=20,
        epochs=12,
        rhos=(0.1, 0.3, 1.0),
        ramps=(0.3, 0.6, 0.9),
    ),
    tables={"tasks": tasks_table},
    plot=plot,
)
