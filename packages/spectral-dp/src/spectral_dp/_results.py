"""Tables and plots of ``spectral-dp run``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from spectral_dp._methods import CONTROLS, METHODS
from tenfold.experiment import Record, Table, estimate


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
