"""The command ``spectral-dp epsilon``: what trainings will spend, or what noise they need."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer
from rich.console import Console

from spectral_dp._planning import Accountant, epsilon, noise_multiplier
from tenfold import SettingError
from tenfold.experiment import Table
from tenfold.experiment.cli import show, write_document


def epsilon_command(
    sample_rate: Annotated[
        list[float], typer.Option(help="Probability of a record to be in a batch; repeatable.")
    ],
    epochs: Annotated[list[float], typer.Option(help="Passes over the data; repeatable.")],
    multiplier: Annotated[
        float | None, typer.Option("--noise-multiplier", help="Noise over the clipping bound.")
    ] = None,
    budget: Annotated[
        float | None, typer.Option("--epsilon", help="Budget to find the noise for, instead.")
    ] = None,
    delta: Annotated[float, typer.Option(help="Of (epsilon, delta).")] = 1e-5,
    accountant: Annotated[Accountant, typer.Option(help="Whose answer; gdp can be too low.")] = "prv",
    json: Annotated[str | None, typer.Option("--json", help="Write the figures here; - for stdout.")] = None,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Tabulate epsilon over epochs and sample rates, or the noise multiplier that keeps to a budget.

    For Poisson sampling, under the adding or removing of one record. An epoch is 1 / sample rate
    steps; a part of a step counts as one.
    """
    if (multiplier is None) == (budget is None):
        raise SettingError(
            "--noise-multiplier and --epsilon both or neither", "one of them", "Give the one you know."
        )
    trainings = []
    for passes in epochs:
        for rate in sample_rate:
            steps = _steps(passes, rate)
            noise = multiplier
            if noise is None:
                assert budget is not None
                noise = noise_multiplier(budget, rate, steps, delta, accountant)
            spent = epsilon(noise, rate, steps, delta, accountant)
            trainings.append(
                {
                    "epochs": passes,
                    "sample_rate": rate,
                    "steps": steps,
                    "noise_multiplier": noise,
                    "epsilon": spent,
                }
            )
    document = {"accountant": accountant, "delta": delta, "budget": budget, "trainings": trainings}
    show([epsilon_table(document)], Console(stderr=json == "-"))
    write_document(document, json)


def epsilon_table(document: Mapping[str, Any]) -> Table:
    """Tabulate the document of the command: a row for epochs, a column for a sample rate."""
    trainings: Sequence[Mapping[str, Any]] = document["trainings"]
    wanted = "epsilon" if document["budget"] is None else "noise_multiplier"
    known = (
        f"noise multiplier {trainings[0]['noise_multiplier']:g}"
        if document["budget"] is None
        else f"epsilon {document['budget']:g}"
    )
    rates = list(dict.fromkeys(training["sample_rate"] for training in trainings))
    passes = list(dict.fromkeys(training["epochs"] for training in trainings))
    cells = {(item["epochs"], item["sample_rate"]): f"{item[wanted]:.3f}" for item in trainings}
    wanted_name = wanted.replace("_", " ")
    title = f"{wanted_name} at {known}, delta {document['delta']:g}, accountant {document['accountant']}"
    rows = [[f"{count:g}", *(cells[count, rate] for rate in rates)] for count in passes]
    return Table(title, ["epochs", *(f"sample rate {rate:g}" for rate in rates)], rows)


def _steps(epochs: float, sample_rate: float) -> int:
    if not (0 < sample_rate <= 1 and 0 < epochs < math.inf):
        raise SettingError(
            f"{epochs:g} epochs at sample rate {sample_rate:g}",
            "epochs above 0, and a sample rate above 0 and at most 1",
            "Give batch size / number of records for the rate.",
        )
    # 30 / 0.1 is not quite 300 in floating point, and must not become 301.
    return max(1, math.ceil(round(epochs / sample_rate, 6)))
