"""DP-SGD against the filter, and against the controls that tell what the filter is worth.

Every method has the same network, epochs, batches, noise multiplier and clipping bound, and tries the same
learning rates at every epsilon; that with the best accuracy on the validation split is the method's. What
tuning spends of privacy is not charged. The test split is read of the chosen rate alone. The noise of the
filter comes from the operating system and cannot be replayed: a second run with the same seed differs
within its noise.

The best control is that with the best validation accuracy over the seeds. Ratio, bound, batch and epochs
are the same for every method; ``spectral-dp tune`` tells what other values do on Fashion-MNIST.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from spectral_dp._methods import CONTROLS, METHODS, SUBSPACES, Kept, Training
from spectral_dp._projections import DCTLowPass, FFTLowPass
from spectral_dp._results import accuracy_table, gain_table, plot
from spectral_dp._trials import Start, fit, load, noise, start
from spectral_dp.models import MODELS
from tenfold import SettingError, UnknownNameError
from tenfold.experiment import Claim, Experiment, Run


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
    kernel_ratio : float
        Of the cosines that are kept of a convolution's kernel, along both axes.
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
    ratio: float = 0.5
    kernel_ratio: float = 0.6
    rank: int = 16
    examples: int = 0
    pretrain_epochs: int = 0
    epochs: int = 10
    batch_size: int = 256
    max_grad_norm: float = 2.0
    lrs: tuple[float, ...] = (0.0125, 0.025, 0.05, 0.1, 0.2)

    def __post_init__(self) -> None:
        FFTLowPass(self.ratio)
        DCTLowPass(self.kernel_ratio)
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


def compare(run: Run[Settings]) -> None:
    """Compare DP-SGD, the filter and the controls at every epsilon."""
    settings = run.settings
    public = settings.pretrain_epochs > 0 or bool(set(SUBSPACES) & set(settings.methods))
    splits = load(run.dataset, settings.examples, public)
    run.variant = splits.variant
    multipliers = {
        epsilon: noise(epsilon, settings.delta, len(splits.train), settings.batch_size, settings.epochs)
        for epsilon in settings.epsilons
    }
    for method in settings.methods:
        candidates = [(epsilon, lr) for epsilon in settings.epsilons for lr in settings.lrs]
        first: Start | None = None
        for index in run.stage(method, len(candidates)):
            if first is None:
                kept = Kept(settings.ratio, settings.kernel_ratio, settings.rank)
                first = start(settings.model, method, splits, kept, settings.pretrain_epochs, run.seed)
            epsilon, lr = candidates[index]
            how = Training(
                noise_multiplier=multipliers[epsilon],
                delta=settings.delta,
                epochs=settings.epochs,
                batch_size=settings.batch_size,
                max_grad_norm=settings.max_grad_norm,
                lr=lr,
            )
            trained = fit(first, how, run.seed)
            run.log(f"{method}/{epsilon:g}/validation", trained.accuracy(first.splits.validation))
            run.log(f"{method}/{epsilon:g}/test of every rate", trained.accuracy(first.splits.test))
            run.log(f"{method}/{epsilon:g}/epsilon", trained.epsilon)
        for epsilon in settings.epsilons:
            name = f"{method}/{epsilon:g}"
            found = run.history[f"{name}/validation"]
            best = int(np.argmax(found))
            run.metric(f"{name}/lr", settings.lrs[best])
            run.metric(f"{name}/validation", found[best])
            run.metric(f"{name}/test", run.history.pop(f"{name}/test of every rate")[best])
            run.metric(f"{name}/epsilon", max(run.history.pop(f"{name}/epsilon")))
    run.claims.extend(_claims(run))


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


run = Experiment(
    package="spectral-dp",
    command="run",
    body=compare,
    quick=Settings(),
    full=Settings(
        methods=("dp-sgd", "low-passed", "pooled", "filter", "paper"),
        epsilons=(1.0, 2.0, 4.0, 8.0),
        lrs=(0.00625, 0.0125, 0.025, 0.05, 0.1, 0.2, 0.4),
    ),
    datasets=("mnist-5k", "mnist", "fashion-mnist", "cifar10"),
    tables={"accuracy": accuracy_table, "gain": gain_table},
    plot=plot,
)
