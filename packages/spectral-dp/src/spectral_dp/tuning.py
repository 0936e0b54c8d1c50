"""The search for the settings that ``spectral-dp run`` holds fixed, on Fashion-MNIST.

A coordinate search: the ratios of what is kept, the clipping bound, the batch and the epochs are tried in
this order, each with the others at their best value so far. A value's worth is the mean over the methods
of the best validation accuracy among the learning rates. As the bound scales the update, a rate is tried as
the largest step of one sample, the rate times the bound. No test split is read, nor any image of MNIST.
What the search spends of privacy is not charged.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from spectral_dp._methods import METHODS, SUBSPACES, Kept, Training
from spectral_dp._projections import FFTLowPass
from spectral_dp._trials import Splits, fit, load, noise, start
from spectral_dp.models import MODELS
from tenfold import SettingError, UnknownNameError
from tenfold.experiment import Experiment, Record, Run, Table, estimate

AXES = {
    "ratio": "ratios",
    "kernel_ratio": "kernel_ratios",
    "max_grad_norm": "max_grad_norms",
    "batch_size": "batch_sizes",
    "epochs": "epochs",
}


@dataclass(frozen=True)
class Settings:
    """Settings of ``spectral-dp tune``.

    Attributes
    ----------
    model : str
        A key of `spectral_dp.models.MODELS`.
    methods : tuple of str
        Keys of `spectral_dp._methods.METHODS` whose mean accuracy decides, none that needs public images.
    epsilon, delta : float
    examples : int
        Training examples, the first ones; as many as mnist-5k has. 0 for all.
    ratios : tuple of float
        Of the band of an image.
    kernel_ratios : tuple of float
        Of the cosines of a convolution's kernel.
    max_grad_norms : tuple of float
    batch_sizes : tuple of int
    epochs : tuple of int
        Of the five, the values to try; the search starts from the first ones, and passes over settings
        with one value.
    steps : tuple of float
        Learning rates times the bound.
    """

    model: str = "mlp"
    methods: tuple[str, ...] = ("dp-sgd", "filter")
    epsilon: float = 1.0
    delta: float = 1e-5
    examples: int = 3500
    ratios: tuple[float, ...] = (0.25, 0.1, 0.5)
    kernel_ratios: tuple[float, ...] = (0.6,)
    max_grad_norms: tuple[float, ...] = (1.0, 0.1, 0.5, 2.0, 4.0)
    batch_sizes: tuple[int, ...] = (256, 128, 512)
    epochs: tuple[int, ...] = (10, 5, 20)
    steps: tuple[float, ...] = (0.05, 0.1, 0.2, 0.4)

    def __post_init__(self) -> None:
        if self.model not in MODELS:
            raise UnknownNameError("model", self.model, MODELS)
        fitting = [method for method in METHODS if method not in (*SUBSPACES, "last-layer")]
        for method in self.methods:
            if method not in fitting:
                raise UnknownNameError("method", method, fitting)
        for name in ("methods", *AXES.values(), "steps"):
            values = getattr(self, name)
            if not values or (name != "methods" and min(values) <= 0):
                raise SettingError(f"{name} {values}", "one positive value or more", "Correct it with --set.")
        for ratio in (*self.ratios, *self.kernel_ratios):
            FFTLowPass(ratio)
        if not (self.epsilon > 0 and 0 < self.delta < 1) or self.examples < 0:
            raise SettingError(
                f"epsilon {self.epsilon}, delta {self.delta}, {self.examples} examples",
                "epsilon above 0, delta between 0 and 1, 0 examples or more",
                "Correct them with --set.",
            )


def search(run: Run[Settings]) -> None:
    """Search one setting after the other."""
    settings = run.settings
    splits = load(run.dataset, settings.examples)
    run.variant = splits.variant
    chosen = {axis: getattr(settings, values)[0] for axis, values in AXES.items()}
    for axis, tried in _searched(asdict(settings)):
        for index in run.stage(axis, len(tried)):
            candidate = chosen | {axis: tried[index]}
            batch_size, epochs = candidate["batch_size"], candidate["epochs"]
            multiplier = noise(settings.epsilon, settings.delta, len(splits.train), batch_size, epochs)
            for method in settings.methods:
                run.log(f"{axis}/{method}", max(_validation(run, method, splits, candidate, multiplier)))
        means = np.mean([run.history[f"{axis}/{method}"] for method in settings.methods], axis=0)
        chosen[axis] = tried[int(np.argmax(means))]
        run.metric(f"chosen/{axis}", chosen[axis])


def _searched(settings: Mapping[str, Any]) -> Iterator[tuple[str, Sequence[float]]]:
    """Yield the settings that have several values, and these."""
    for axis, values in AXES.items():
        if len(settings[values]) > 1:
            yield axis, settings[values]


def _validation(
    run: Run[Settings], method: str, splits: Splits, candidate: dict[str, Any], multiplier: float
) -> Iterator[float]:
    """Yield the accuracy on the validation split of every learning rate."""
    settings = run.settings
    kept = Kept(candidate["ratio"], candidate["kernel_ratio"])
    first, bound = start(settings.model, method, splits, kept, 0, run.seed), candidate["max_grad_norm"]
    for step in settings.steps:
        how = Training(
            noise_multiplier=multiplier,
            delta=settings.delta,
            epochs=candidate["epochs"],
            batch_size=candidate["batch_size"],
            max_grad_norm=bound,
            lr=step / bound,
        )
        yield fit(first, how, run.seed).accuracy(first.splits.validation)


def search_table(records: Sequence[Record]) -> Table:
    """Tabulate what was tried, in its order, and what was chosen for it."""
    settings = records[0].settings
    rows = []
    for axis, tried in _searched(settings):
        for index, value in enumerate(tried):
            found = [
                [record.history[f"{axis}/{method}"][index] for record in records]
                for method in settings["methods"]
            ]
            times = sum(record.metrics[f"chosen/{axis}"] == value for record in records)
            cells = [estimate(accuracies, 1) for accuracies in found]
            rows.append([axis, f"{value:g}", *cells, f"{times} of {len(records)}"])
    title = (
        f"{settings['model']}, {records[0].dataset}, epsilon {settings['epsilon']:g}: accuracy on the "
        f"validation split, %, {len(records)} seeds, mean [95 % interval]"
    )
    return Table(title, ["setting", "value", *settings["methods"], "chosen by"], rows)


tune = Experiment(
    package="spectral-dp",
    command="tune",
    body=search,
    quick=Settings(),
    full=Settings(
        methods=("dp-sgd", "low-passed", "pooled", "filter"), steps=(0.025, 0.05, 0.1, 0.2, 0.4, 0.8)
    ),
    datasets=("fashion-mnist",),
    tables={"search": search_table},
)
