"""What the experiment's records say: tables of intervals over seeds, differences paired by seed, plots.

An accuracy that one method does not reach in a run counts as one epoch more than the longest budget
in paired differences and ratios; a run in which neither reaches it is left out of them. How many
runs reached it stands beside the means.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from slr_prune._schemes import CONDITIONS, METHODS, NAMES, REMEDIES
from tenfold.experiment import Record, Table, estimate

PAIRED = ("ADMM minus SLR, epochs", "ADMM over SLR", "SLR in half of ADMM's")


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
        rows.append(
            [
                text,
                *(_reached(records, f"{method}/epochs to {goal}") for method in ("slr", "admm", "gmp")),
                *_paired(records, "slr", "admm", goal),
            ]
        )
    return Table(
        _title(records, "epochs to a validation accuracy"), ["to reach", "SLR", "ADMM", "GMP", *PAIRED], rows
    )


def remedies_table(records: Sequence[Record]) -> Table:
    """Tabulate the changes to SLR that were tried, each against ADMM with the same change."""
    remedies = {
        "": "none",
        **{key: REMEDIES[key].title for key in records[0].settings["remedies"]},
    }
    rows = []
    for key, title in remedies.items():
        slr = f"slr+{key}" if key else "slr"
        admm = f"admm+{key}" if key and "admm" in REMEDIES[key].methods else "admm"
        margins = [record.metrics[f"{slr}/test"] - record.metrics[f"{admm}/test"] for record in records]
        rows.append(
            [
                title,
                _over(records, f"{slr}/test"),
                _over(records, f"{admm}/test") if admm != "admm" or not key else "as above",
                estimate(margins),
                _conditions(records, slr),
                *_paired(records, slr, admm, admm.replace("admm", "ADMM")),
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
        rows.append(
            [NAMES[method], *(estimate(column.tolist()) for column in curves.T), estimate(gains.tolist())]
        )
    columns = ["method", "at hard-prune", *(f"epoch {epoch}" for epoch in range(1, epochs + 1))]
    return Table(
        _title(records, "test accuracy while retraining under the masks, %"),
        [*columns, "recovered an epoch, points"],
        rows,
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
    differences = {other: _differences(records, other, longest) for other in ("admm", "gmp")}
    pictures.append(
        plots.lines(
            folder / "paired.png",
            {f"SLR minus {NAMES[other]}": seeds for other, seeds in differences.items() if seeds},
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


def _differences(records: Sequence[Record], other: str, epochs: int) -> list[list[float]]:
    """Return SLR's validation accuracy minus another's, epoch by epoch, for every seed that has both."""
    keys = [f"best/{name}/{epochs}/validation" for name in ("slr", other)]
    return [
        [ours - theirs for ours, theirs in zip(*(record.history[key] for key in keys), strict=True)]
        for record in records
        if all(key in record.history for key in keys)
    ]


def _paired(records: Sequence[Record], slr: str, admm: str, goal: str) -> list[str]:
    """Return difference, ratio and halving of the epochs that SLR and ADMM need to a goal, by seed."""
    pairs = []
    for record in records:
        never = record.settings["epochs"][-1] + 1
        first, second = (record.metrics.get(f"{name}/epochs to {goal}", never) for name in (slr, admm))
        if min(first, second) < never:
            pairs.append((first, second))
    half = sum(2 * first <= second for first, second in pairs)
    return [
        estimate([second - first for first, second in pairs], 1),
        estimate([second / first for first, second in pairs]),
        f"{half} of {len(records)} runs",
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
    """Return in how many of the iterations of the best candidates the conditions held."""
    texts = []
    for condition in CONDITIONS:
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
    examples = settings.get("examples", 0)
    part = f", first {examples:,} training images" if examples else ""
    return (
        f"{settings['model']}, {settings['structure']}{sparsity}, {records[0].dataset}{part}: {what}; "
        f"{' or '.join(map(str, settings['epochs']))} epochs of {iterations} "
        f"iteration{'s' * (iterations > 1)}, {settings['precision']}, "
        f"{len(records)} seed{'s' * (len(records) > 1)}, mean [95 % interval]"
    )
