"""DP-SGD against the filter, and against the controls that tell what the filter is worth.

For a linear layer with one position the per-sample gradient is g = d x', so that P g = d (P x)':
filtering the gradient of a first layer is training on filtered inputs. A comparison with DP-SGD alone
would take the effect of smaller inputs for a merit of the filter. So there are two controls, plain
DP-SGD on inputs that are low-passed to the same band, and on inputs pooled to fewer pixels.

Every method is Opacus's DP-SGD with ghost clipping but for what its name says, has the same epochs,
batches, noise multiplier and clipping bound, and tries the same learning rates; that with the best
accuracy on the validation split is the method's. What tuning spends of privacy is not charged. The test
split is read once a method. The noise of the filter comes from the operating system and cannot be
replayed: a second run with the same seed differs within its noise.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from opacus import PrivacyEngine
from opacus.accountants.utils import get_noise_multiplier
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from spectral_dp._engine import SpectralPrivacyEngine
from spectral_dp._projections import FFTLowPass
from tenfold import DivergedError, SettingError
from tenfold.experiment import Experiment, Record, Run, Table, estimate

METHODS = {
    "dp-sgd": "DP-SGD (Opacus)",
    "filter": "DP-SGD, first layer's gradient low-passed",
    "low-passed": "control: DP-SGD on low-passed inputs",
    "pooled": "control: DP-SGD on inputs pooled 2 x 2",
}


@dataclass(frozen=True)
class Settings:
    """Settings of ``spectral-dp run``.

    Attributes
    ----------
    epsilon, delta : float
        The budget of one training.
    ratio : float
        Of the band that is kept, along both axes of the image.
    epochs, batch_size : int
    max_grad_norm : float
    lrs : tuple of float
        Learning rates that every method tries: SGD with momentum 0.9.
    """

    epsilon: float = 1.0
    delta: float = 1e-5
    ratio: float = 0.25
    epochs: int = 10
    batch_size: int = 256
    max_grad_norm: float = 0.1
    lrs: tuple[float, ...] = (0.5, 1.0, 2.0)

    def __post_init__(self) -> None:
        FFTLowPass(self.ratio)
        if not self.lrs or min(self.lrs) <= 0 or self.epochs < 1 or self.batch_size < 1:
            raise SettingError(
                f"lrs {self.lrs}, {self.epochs} epochs, batches of {self.batch_size}",
                "positive learning rates, 1 epoch or more, 1 sample or more",
                "Correct them with --set.",
            )
        if not (self.epsilon > 0 and 0 < self.delta < 1 and 0 < self.max_grad_norm < math.inf):
            raise SettingError(
                f"epsilon {self.epsilon}, delta {self.delta}, max_grad_norm {self.max_grad_norm}",
                "positive numbers, delta below 1",
                "Correct them with --set.",
            )


@dataclass(frozen=True)
class Examples:
    """Images of shape (n, h, w) with pixels in [0, 1] scaled by a public constant, and labels."""

    x: Tensor
    y: Tensor


def compare(run: Run[Settings]) -> None:
    """Compare DP-SGD, the filter and the two controls at one epsilon."""
    settings = run.settings
    splits = _load(run)
    noise = _noise_multiplier(settings, len(splits[0].y))
    candidates = [(method, lr) for method in METHODS for lr in settings.lrs]
    for index in run.stage("candidates", len(candidates)):
        method, lr = candidates[index]
        seen = [_inputs(method, examples, settings) for examples in splits]
        model, spent = _train(run, method, lr, noise, seen[0])
        run.log(f"{method}/validation", _accuracy(model, seen[1]))
        run.log(f"{method}/test of every rate", _accuracy(model, seen[2]))
        run.log(f"{method}/epsilon", spent)
    for method in METHODS:
        validation = run.history[f"{method}/validation"]
        best = max(range(len(validation)), key=validation.__getitem__)
        run.metric(f"{method}/lr", settings.lrs[best])
        run.metric(f"{method}/validation", validation[best])
        run.metric(f"{method}/test", run.history.pop(f"{method}/test of every rate")[best])
        run.metric(f"{method}/epsilon", max(run.history.pop(f"{method}/epsilon")))
    control = max(("low-passed", "pooled"), key=lambda method: run.metrics[f"{method}/validation"])
    for other in ("dp-sgd", control):
        gain = run.metrics["filter/test"] - run.metrics[f"{other}/test"]
        run.metric("gain over the better control" if other == control else "gain over DP-SGD", gain)


def _load(run: Run[Settings]) -> tuple[Examples, Examples, Examples]:
    from tenfold import data

    found = data.load(run.dataset)
    run.variant = found.variant

    def examples(split: data.Split) -> Examples:
        # MNIST's published mean and deviation: statistics of the training images would be private.
        x = (torch.from_numpy(split.images).float() / 255 - 0.1307) / 0.3081
        return Examples(x, torch.from_numpy(split.labels))

    train, validation, test = (examples(split) for split in (found.train, found.validation, found.test))
    return train, validation, test


def _inputs(method: str, examples: Examples, settings: Settings) -> Examples:
    x = examples.x
    if method == "low-passed":
        x = FFTLowPass(settings.ratio, tuple(x.shape[1:]))(x)
    elif method == "pooled":
        x = nn.functional.avg_pool2d(x, 2)
    return Examples(x, examples.y)


def _noise_multiplier(settings: Settings, samples: int) -> float:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the accountant's rounding
        return float(
            get_noise_multiplier(
                target_epsilon=settings.epsilon,
                target_delta=settings.delta,
                sample_rate=1 / math.ceil(samples / settings.batch_size),
                epochs=settings.epochs,
                accountant="prv",
            )
        )


def _train(
    run: Run[Settings], method: str, lr: float, noise: float, train: Examples
) -> tuple[nn.Module, float]:
    settings = run.settings
    torch.manual_seed(run.seed)
    pixels = train.x[0].numel()
    model = nn.Sequential(
        nn.Flatten(), nn.Linear(pixels, 128), nn.Tanh(), nn.Linear(128, 64), nn.Tanh(), nn.Linear(64, 10)
    )
    filtered = method == "filter"
    options: dict[str, Any] = {}
    if filtered:
        options["spectrum"] = {"1": FFTLowPass(settings.ratio, tuple(train.x.shape[1:]))}
    with warnings.catch_warnings():
        # Opacus without torchcsprng, its accountant's rounding, and hooks on layers that see the data.
        warnings.simplefilter("ignore")
        engine = SpectralPrivacyEngine() if filtered else PrivacyEngine()
        private, optimizer, criterion, loader = engine.make_private(
            module=model,
            optimizer=torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9),
            criterion=nn.CrossEntropyLoss(),
            data_loader=DataLoader(TensorDataset(train.x, train.y), batch_size=settings.batch_size),
            noise_multiplier=noise,
            max_grad_norm=settings.max_grad_norm,
            grad_sample_mode="ghost",
            **options,
        )
        for _ in range(settings.epochs):
            for x, y in loader:
                optimizer.zero_grad()
                loss = criterion(private(x), y)
                if not math.isfinite(loss.item()) and len(x):
                    raise DivergedError(
                        f"the loss at lr {lr}", "a finite number", "Lower the learning rates."
                    )
                loss.backward()
                optimizer.step()
        return model, float(engine.get_epsilon(settings.delta))


@torch.no_grad()
def _accuracy(model: nn.Module, examples: Examples) -> float:
    model.eval()
    correct = float((model(examples.x).argmax(1) == examples.y).float().mean()) * 100
    model.train()
    return correct


def accuracy_table(records: Sequence[Record]) -> Table:
    """Tabulate the test accuracy of every method, and what the filter gains over each other one."""
    settings = records[0].settings
    title = (
        f"{records[0].dataset}, epsilon {settings['epsilon']:g}, delta {settings['delta']:g}: "
        f"test accuracy, {len(records)} seeds with 95 % intervals, gains paired by seed"
    )
    rows = []
    for method, name in METHODS.items():
        test = [record.metrics[f"{method}/test"] for record in records]
        gains = [record.metrics["filter/test"] - value for record, value in zip(records, test, strict=True)]
        gain = "–" if method == "filter" else estimate(gains, 1)
        rows.append([name, estimate(test, 1), gain])
    return Table(title, ["method", "test accuracy, %", "gain of the filter over it, points"], rows)


def plot(records: Sequence[Record], folder: Path) -> list[Path]:
    """Plot the validation accuracy of every learning rate that was tried."""
    from tenfold.experiment import plots

    curves = {
        name: [record.history[f"{method}/validation"] for record in records]
        for method, name in METHODS.items()
    }
    title = "Accuracy on the validation split"
    return [plots.lines(folder / "rates.png", curves, title=title, x="learning rate, by rank", y="%")]


run = Experiment(
    package="spectral-dp",
    command="run",
    body=compare,
    quick=Settings(),
    full=Settings(lrs=(0.25, 0.5, 1.0, 2.0, 4.0), epochs=15),
    datasets=("mnist-5k", "mnist", "fashion-mnist"),
    tables={"accuracy": accuracy_table},
    plot=plot,
)
