"""The paper's first theorem, measured: the error of soft thresholding over that of an oracle.

A vector with a few spikes gets Gaussian noise, many times over. The theorem bounds the expected
squared error by ``2 log n + 1`` times the ideal ``sigma^2 + sum_i min(theta_i^2, sigma^2)``, which
takes an oracle that knows which entries to keep.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dgba._soft_threshold import soft_threshold, universal_threshold
from tenfold import SettingError
from tenfold.experiment import Claim, Experiment, Record, Run, Table, estimate


@dataclass(frozen=True)
class Settings:
    """Settings of ``dgba run``.

    Attributes
    ----------
    length, spikes : int
        Entries of the vector, and how many of them are not zero.
    height : float
        Of a spike, in standard deviations of the noise.
    trials : int
        Draws of the noise.
    """

    length: int = 4096
    spikes: int = 20
    height: float = 5.0
    trials: int = 200

    def __post_init__(self) -> None:
        if not 0 <= self.spikes <= self.length or self.length < 1 or self.trials < 1:
            raise SettingError(
                f"{self.spikes} spikes in {self.length} entries, {self.trials} trials",
                "at least one entry and one trial, and no more spikes than entries",
                "Correct them with --set.",
            )


def measure(run: Run[Settings]) -> None:
    """Measure the error of soft thresholding over that of an oracle."""
    settings = run.settings
    signal = np.zeros(settings.length)
    signal[: settings.spikes] = settings.height
    threshold = universal_threshold(settings.length)
    generator = np.random.default_rng(run.seed)
    for _ in run.stage("trials", settings.trials, generator=generator):
        noisy = signal + generator.normal(size=settings.length)
        run.log("error", float(np.sum((soft_threshold(noisy, threshold) - signal) ** 2)))

    ideal = 1 + float(np.sum(np.minimum(signal**2, 1)))
    run.metric("error over the oracle's", float(np.mean(run.history["error"])) / ideal)
    run.claim(
        Claim.at_most(
            "error over the oracle's",
            paper=2 * math.log(settings.length) + 1,
            ours=run.metrics["error over the oracle's"],
            note="the paper's figure is the bound 2 log n + 1",
        )
    )


def errors_table(records: Sequence[Record]) -> Table:
    """Tabulate the error over the oracle's beside the bound."""
    settings = records[0].settings
    ours = estimate([record.metrics["error over the oracle's"] for record in records])
    title = f"{settings['spikes']} spikes in {settings['length']} entries: {settings['trials']} trials a seed"
    bound = f"{records[0].claims[0].paper:.2f}"
    return Table(title, ["method", "error over the oracle's", "bound"], [["soft thresholding", ours, bound]])


def plot(records: Sequence[Record], folder: Path) -> list[Path]:
    """Plot the error of every trial."""
    from tenfold.experiment import plots

    curves = {"soft thresholding": [record.history["error"] for record in records]}
    return [plots.lines(folder / "error.png", curves, title="Squared error", x="trial", y="error")]


run = Experiment(
    package="dgba",
    command="run",
    body=measure,
    quick=Settings(),
    full=Settings(trials=5000),
    tables={"errors": errors_table},
    plot=plot,
)
