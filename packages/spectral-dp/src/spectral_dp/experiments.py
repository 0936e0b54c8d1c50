"""DP-SGD against the filter, and against the controls that tell what the filter is worth.

Every method has the same network, epochs, batches, noise multiplier and clipping bound, and tries the same
learning rates at every epsilon; that with the best accuracy on the validation split is the method's. What
tuning spends of privacy is not charged. The test split is read of the chosen rate alone. The noise of the
filter comes from the operating system and cannot be replayed: a second run with the same seed differs
within its noise.

The best control is that with the best validation accuracy over the seeds. Spectrum, bound, batch and
epochs were fixed on Fashion-MNIST.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from opacus.accountants.utils import get_noise_multiplier
from torch import nn

from spectral_dp._methods import (
    CONTROLS,
    METHODS,
    SUBSPACES,
    Examples,
    Training,
    accuracy,
    inputs,
    pretrain,
    quietly,
    spectrum,
    train,
)
from spectral_dp._projections import FFTLowPass
from spectral_dp.models import MODELS, build
from tenfold import SettingError, UnknownNameError
from tenfold.experiment import Claim, Experiment, Record, Run, Table, estimate

PUBLIC = {"mnist-5k": "fashion-mnist", "mnist": "fashion-mnist", "fashion-mnist": "mnist"}


@dataclass(frozen=True)
class Settings:
    """Settings of ``spectral-dp run``.

    Attributes
    ----------
    model : str
        A key of `spectral_dp.models.MODELS`.
    methods : tuple of str
        Keys of `spectral_dp._methods.METHODS`.
    epsilons : tuple of float
        Budgets, each of one training.
    delta : float
    ratio : float
        Of the band that is kept of an image, along both axes.
    rank : int
        Directions that the subspaces keep of the inputs of every layer but the first.
    examples : int
        Training examples to use, the first ones of the data set; 0 for all.
    pretrain_epochs : int
        Epochs on the public data set (of MNIST and Fashion-MNIST the other) before private training;
        0 to start from scratch.
    epochs, batch_size : int
    max_grad_norm : float
    lrs : tuple of float
        Learning rates that every method tries: SGD with momentum 0.9.
    """

    model: str = "mlp"
    methods: tuple[str, ...] = ("dp-sgd", "low-passed", "pooled", "filter")
    epsilons: tuple[float, ...] = (1.0,)
    delta: float = 1e-5
    ratio: float = 0.25
    rank: int = 16
    examples: int = 0
    pretrain_epochs: int = 0
    epochs: int = 10
    batch_size: int = 256
    max_grad_norm: float = 0.1
    lrs: tuple[float, ...] = (0.25, 0.5, 1.0, 2.0)

    def __post_init__(self) -> None:
        FFTLowPass(self.ratio)
        if self.model not in MODELS:
            raise UnknownNameError("model", self.model, MODELS)
        for method in self.methods:
            if method not in METHODS:
                raise UnknownNameError("method", method, METHODS)
        if not {"dp-sgd", *self.methods} - {"dp-sgd"} or "dp-sgd" not in self.methods:
            raise SettingError(
                f"methods {self.methods}", "dp-sgd and others", "Write --set methods=dp-sgd,filter."
            )
        if not self.lrs or min(self.lrs) <= 0 or min(self.epochs, self.batch_size, self.rank) < 1:
            raise SettingError(
                f"lrs {self.lrs}, {self.epochs} epochs, batches of {self.batch_size}, rank {self.rank}",
                "positive learning rates, 1 or more of the others",
                "Correct them with --set.",
            )
        if min(self.examples, self.pretrain_epochs) < 0:
            raise SettingError(
                f"{self.examples} examples, {self.pretrain_epochs} epochs of pretraining",
                "0 or more",
                "0 examples are all of them; 0 epochs start from scratch.",
            )
        if "last-layer" in self.methods and not self.pretrain_epochs:
            raise SettingError(
                "the method last-layer from scratch", "a pretrained network", "Set pretrain_epochs."
            )
        if not (
            self.epsilons
            and min(self.epsilons) > 0
            and 0 < self.delta < 1
            and 0 < self.max_grad_norm < math.inf
        ):
            raise SettingError(
                f"epsilons {self.epsilons}, delta {self.delta}, max_grad_norm {self.max_grad_norm}",
                "positive numbers, delta below 1",
                "Correct them with --set.",
            )


@dataclass(frozen=True)
class Splits:
    """The private examples of a run, and images of the public set where a method needs them."""

    train: Examples
    validation: Examples
    test: Examples
    public: Examples | None


def compare(run: Run[Settings]) -> None:
    """Compare DP-SGD, the filter and the controls at every epsilon."""
    settings = run.settings
    splits = _load(run)
    noise = {
        epsilon: _noise_multiplier(settings, epsilon, len(splits.train)) for epsilon in settings.epsilons
    }
    for method in settings.methods:
        candidates = [(epsilon, lr) for epsilon in settings.epsilons for lr in settings.lrs]
        start: nn.Module | None = None
        for index in run.stage(method, len(candidates)):
            if start is None:
                start = _start(run, method, splits)
            epsilon, lr = candidates[index]
            validation, test, spent = _candidate(run, method, start, splits, noise[epsilon], lr)
            run.log(f"{method}/{epsilon:g}/validation", validation)
            run.log(f"{method}/{epsilon:g}/test of every rate", test)
            run.log(f"{method}/{epsilon:g}/epsilon", spent)
        for epsilon in settings.epsilons:
            name = f"{method}/{epsilon:g}"
            found = run.history[f"{name}/validation"]
            best = int(np.argmax(found))
            run.metric(f"{name}/lr", settings.lrs[best])
            run.metric(f"{name}/validation", found[best])
            run.metric(f"{name}/test", run.history.pop(f"{name}/test of every rate")[best])
            run.metric(f"{name}/epsilon", max(run.history.pop(f"{name}/epsilon")))
    run.claims.extend(_claims(run))


def _candidate(
    run: Run[Settings], method: str, start: nn.Module, splits: Splits, noise: float, lr: float
) -> tuple[float, float, float]:
    """Return accuracy on the validation and the test split, and the epsilon spent."""
    settings = run.settings
    how = Training(
        noise_multiplier=noise,
        delta=settings.delta,
        epochs=settings.epochs,
        batch_size=settings.batch_size,
        max_grad_norm=settings.max_grad_norm,
        lr=lr,
    )
    seen = [inputs(method, part, settings.ratio) for part in (splits.train, splits.validation, splits.test)]
    with quietly():
        torch.manual_seed(run.seed)
        model = deepcopy(start)
        public = splits.public and inputs(method, splits.public, settings.ratio)
        projections = spectrum(method, model, public, settings.ratio, settings.rank)
        model, spent = train(method, model, projections, seen[0], how)
    return accuracy(model, seen[1]), accuracy(model, seen[2]), spent


def _start(run: Run[Settings], method: str, splits: Splits) -> nn.Module:
    settings = run.settings
    shape = tuple(inputs(method, splits.validation, settings.ratio).x.shape[1:])
    model = build(settings.model, (shape[0], shape[1], shape[2]), run.seed)
    if settings.pretrain_epochs and splits.public is not None:
        seen = inputs(method, splits.public, settings.ratio)
        pretrain(model, seen, settings.pretrain_epochs, run.seed)
    return model


def _load(run: Run[Settings]) -> Splits:
    from tenfold import data

    def examples(split: data.Split) -> Examples:
        # MNIST's published mean and deviation: statistics of the training images would be private.
        x = (torch.from_numpy(split.images).float() / 255 - 0.1307) / 0.3081
        x = x.permute(0, 3, 1, 2) if x.ndim == 4 else x[:, None]
        return Examples(x.contiguous(), torch.from_numpy(split.labels).long())

    settings = run.settings
    found = data.load(run.dataset)
    run.variant = found.variant
    whole = examples(found.train)
    count = settings.examples or len(whole)
    public = None
    if settings.pretrain_epochs or set(SUBSPACES) & set(settings.methods):
        if run.dataset not in PUBLIC:
            raise SettingError(
                f"pretraining or a subspace on {run.dataset}",
                f"a data set with a public one beside it: {', '.join(PUBLIC)}",
                "Leave subspaces out of methods, with pretrain_epochs=0.",
            )
        public = examples(data.load(PUBLIC[run.dataset]).train)
    return Splits(
        Examples(whole.x[:count], whole.y[:count]), examples(found.validation), examples(found.test), public
    )


def _noise_multiplier(settings: Settings, epsilon: float, samples: int) -> float:
    with quietly():
        return float(
            get_noise_multiplier(
                target_epsilon=epsilon,
                target_delta=settings.delta,
                sample_rate=1 / math.ceil(samples / settings.batch_size),
                epochs=settings.epochs,
                accountant="prv",
            )
        )


def _claims(run: Run[Settings]) -> list[Claim]:
    settings = run.settings
    ours = [method for method in settings.methods if method not in CONTROLS and method != "paper"]
    epsilon = min(settings.epsilons)

    def test(method: str) -> float:
        return run.metrics[f"{method}/{epsilon:g}/test"]

    return [
        Claim.at_least(
            f"test accuracy at epsilon {epsilon:g}, {method} minus DP-SGD",
            paper=0.0,
            ours=test(method) - test("dp-sgd"),
            unit="points",
            note="the paper claims higher accuracy than DP-SGD",
        )
        for method in (*reversed(ours), *({"paper"} & set(settings.methods)))
    ]


def best_control(records: Sequence[Record], epsilon: float) -> str:
    """Return the control with the best validation accuracy over the seeds."""
    controls: list[str] = [method for method in records[0].settings["methods"] if method in CONTROLS]

    def validation(method: str) -> float:
        return float(np.mean([record.metrics[f"{method}/{epsilon:g}/validation"] for record in records]))

    return max(controls, key=validation)


def accuracy_table(records: Sequence[Record]) -> Table:
    """Tabulate the test accuracy of every method at every epsilon."""
    settings = records[0].settings
    rows = [
        [METHODS[method], *(estimate(_test(records, method, epsilon), 1) for epsilon in settings["epsilons"])]
        for method in settings["methods"]
    ]
    columns = ["test accuracy, %", *(f"epsilon {epsilon:g}" for epsilon in settings["epsilons"])]
    return Table(_title(records), columns, rows)


def gain_table(records: Sequence[Record]) -> Table:
    """Tabulate what every filter gains, over DP-SGD and over the best control, paired by seed."""
    settings = records[0].settings
    rows = []
    for method in settings["methods"]:
        if method in CONTROLS:
            continue
        for over in ("dp-sgd", "the best control"):
            row = [method, "DP-SGD" if over == "dp-sgd" else over]
            for epsilon in settings["epsilons"]:
                other = over if over == "dp-sgd" else best_control(records, epsilon)
                pairs = zip(_test(records, method, epsilon), _test(records, other, epsilon), strict=True)
                gain = estimate([mine - theirs for mine, theirs in pairs], 1)
                row.append(gain if over == "dp-sgd" else f"{gain} ({other})")
            rows.append(row)
    columns = ["method", "gain over, points", *(f"epsilon {epsilon:g}" for epsilon in settings["epsilons"])]
    return Table(_title(records), columns, rows)


def _test(records: Sequence[Record], method: str, epsilon: float) -> list[float]:
    return [record.metrics[f"{method}/{epsilon:g}/test"] for record in records]


def _title(records: Sequence[Record]) -> str:
    settings = records[0].settings
    examples = f", first {settings['examples']:,} images" if settings["examples"] else ""
    start = ", pretrained on the public set" if settings["pretrain_epochs"] else ""
    seeds = f"{len(records)} seed{'s' if len(records) > 1 else ''}, mean [95 % interval]"
    return f"{settings['model']}, {records[0].dataset}{examples}{start}, delta {settings['delta']:g}; {seeds}"


def plot(records: Sequence[Record], folder: Path) -> list[Path]:
    """Plot test accuracy over epsilon, and validation accuracy over the learning rates tried."""
    from tenfold.experiment import plots

    settings = records[0].settings
    paths = []
    if len(settings["epsilons"]) > 1:
        curves = {
            METHODS[method]: [
                [record.metrics[f"{method}/{epsilon:g}/test"] for epsilon in settings["epsilons"]]
                for record in records
            ]
            for method in settings["methods"]
        }
        paths.append(
            plots.lines(folder / "epsilon.png", curves, title=_title(records), x="epsilon, by rank", y="%")
        )
    for epsilon in settings["epsilons"]:
        curves = {
            METHODS[method]: [record.history[f"{method}/{epsilon:g}/validation"] for record in records]
            for method in settings["methods"]
        }
        title = f"Accuracy on the validation split, epsilon {epsilon:g}"
        paths.append(
            plots.lines(
                folder / f"rates-{epsilon:g}.png", curves, title=title, x="learning rate, by rank", y="%"
            )
        )
    return paths


run = Experiment(
    package="spectral-dp",
    command="run",
    body=compare,
    quick=Settings(),
    full=Settings(
        methods=("dp-sgd", "low-passed", "pooled", "filter", "paper"),
        epsilons=(1.0, 2.0, 4.0, 8.0),
        lrs=(0.125, 0.25, 0.5, 1.0, 2.0, 4.0),
    ),
    datasets=("mnist-5k", "mnist", "fashion-mnist", "cifar10"),
    tables={"accuracy": accuracy_table, "gain": gain_table},
    plot=plot,
)
