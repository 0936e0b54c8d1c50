"""Tables and plots of ``tango-gnn run``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tango_gnn._models import TITLES
from tango_gnn._operations import KINDS
from tenfold.experiment import Record, Table, interval

ARM_TITLES = {
    "fp32": "float32, the same kernels",
    "int8": "int8, all rules",
    "nearest": "rounding to the nearest",
    "last": "the last layer in int8, too",
    "attention": "attention in int8, too",
    "scores": "halves of the attention scores in int8, too",
    "norms": "norms by degree rounded",
    "weights": "weights rounded in place, no master copy",
    "bias": "bias rounded",
    "anew": "every operator quantises anew",
    "auto": "bits chosen in the first step",
    "6-bits": "6 bits",
    "4-bits": "4 bits",
}
FIGURES = ("validation", "test", "kept bytes", *(f"operations in {kind}" for kind in KINDS), "ms an epoch")


def differences(records: Sequence[Record], model: str, arm: str, other: str) -> list[float]:
    """Return the test score of an arm minus that of another, a value a seed."""
    return [
        record.metrics[f"{model}/{arm}/test"] - record.metrics[f"{model}/{other}/test"] for record in records
    ]


def accuracy_table(records: Sequence[Record]) -> Table:
    """Tabulate the scores in float32 and in int8, and their difference with its 90 % interval."""
    rows = []
    for model in records[0].settings["models"]:
        operations = {kind: records[0].metrics[f"{model}/int8/operations in {kind}"] for kind in KINDS}
        rows.append(
            [
                TITLES[model],
                _mean(records, model, "fp32"),
                _mean(records, model, "int8"),
                _paired(differences(records, model, "fp32", "int8")),
                *(f"{100 * operations[kind] / sum(operations.values()):.0f} %" for kind in ("int8", "mixed")),
            ]
        )
    columns = ["", "float32", "int8", "float32 minus int8", "operations in int8", "int8 by float32"]
    return Table(_title(records), columns, rows)


def ablation_table(records: Sequence[Record]) -> Table:
    """Tabulate what each rule is worth: the arm with the others, minus that with all of them."""
    settings = records[0].settings
    rows = [
        [
            ARM_TITLES[arm],
            *(_paired(differences(records, model, arm, "int8")) for model in settings["models"]),
        ]
        for arm in settings["arms"]
        if arm != "int8"
    ]
    columns = ["minus int8 with all rules, points", *(TITLES[model] for model in settings["models"])]
    return Table(_title(records), columns, rows)


def cost_table(records: Sequence[Record]) -> Table:
    """Tabulate what float32 and int8 keep for the backward pass, and the time of an epoch where measured."""
    settings = records[0].settings
    timed = settings["timed"]
    rows = []
    for model in settings["models"]:
        for arm in ("fp32", "int8"):
            name = f"{model}/{arm}"
            row = [TITLES[model], ARM_TITLES[arm], f"{records[0].metrics[f'{name}/kept bytes'] / 2**20:.2f}"]
            if timed:
                row.append(f"{np.median([record.metrics[f'{name}/ms an epoch'] for record in records]):.1f}")
            rows.append(row)
    columns = ["", "arm", "kept for the backward pass, MiB", *(["epoch, ms"] if timed else [])]
    return Table(f"{_subject(records)}; {records[0].hardware['threads']} threads", columns, rows)


def plot(records: Sequence[Record], folder: Path) -> list[Path]:
    """Plot the training loss in float32 and in int8, a picture a model."""
    from tenfold.experiment import plots

    settings = records[0].settings
    return [
        plots.lines(
            folder / f"{model}.png",
            {
                ARM_TITLES[arm]: [record.history[f"{model}/{arm}/loss"] for record in records]
                for arm in ("fp32", "int8")
            },
            title=f"{TITLES[model]}, {records[0].dataset}",
            x=f"mean over {settings['epochs'] / len(records[0].history[f'{model}/fp32/loss']):g} epochs",
            y="training loss",
            log_y=True,
        )
        for model in settings["models"]
    ]


def _mean(records: Sequence[Record], model: str, arm: str) -> str:
    return f"{np.mean([record.metrics[f'{model}/{arm}/test'] for record in records]):.2f}"


def _paired(values: Sequence[float]) -> str:
    mean = f"{np.mean(values):+.2f}"
    if len(values) < 2:
        return mean
    low, high = interval(values, 0.9)
    return f"{mean} [{low:+.2f}, {high:+.2f}]"


def _subject(records: Sequence[Record]) -> str:
    settings = records[0].settings
    figure = "test accuracy, %" if settings["task"] == "nodes" else "links, area under the ROC curve, %"
    return f"{records[0].dataset}, {figure}, {settings['epochs']} epochs, width {settings['hidden']}"


def _title(records: Sequence[Record]) -> str:
    count = f"{len(records)} seed{'s' if len(records) > 1 else ''}"
    return f"{_subject(records)}; {count}, paired, mean [90 % interval]"
