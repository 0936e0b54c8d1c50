"""What the records of ``dgba run`` say: tables of intervals over seeds, differences paired by seed, plots."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Concatenate, ParamSpec

import numpy as np

from dgba.evaluation import TransferMatrix
from tenfold.experiment import Record, Table, estimate

AVERAGE, MILDEST, LOG_RATIO = "average", "mildest task", "log ratio"
DGBA, CLEAN_DGBA, STRONGEST = "DGBA", "DGBA, clean weights", "APGD-DGBA"
MAXMIN, WEIGHTED_MAXMIN = "MAX-MIN", "MAX-MIN, weighted"
SINGLE = "SINGLE "
BASELINES = ("TOTAL", "SIGNSUM")
ADVERSARIAL, STANDARD = "adversarial", "standard"
Arguments = ParamSpec("Arguments")

JUDGED = ("APGD-DGBA", "transfer", "Square", "worst case")


@dataclass(frozen=True)
class Found:
    """What a run has found before it is a record.

    Attributes
    ----------
    metrics, settings : mapping
        As those of a `Record`.
    """

    metrics: Mapping[str, float]
    settings: Mapping[str, Any]


def key(*parts: str | float) -> str:
    """Return the name of a figure in a record."""
    return "/".join(part if isinstance(part, str) else f"{part:g}" for part in parts)


def value(record: Record | Found, *parts: str | float) -> float:
    """Return a figure of a record by the parts of its name."""
    return record.metrics[key(*parts)]


def attacks_in(record: Record | Found, model: str, eps: float) -> list[str]:
    """Return the attacks of which a record has figures, in their order."""
    names = [name.split("/") for name in record.metrics]
    return [parts[1] for parts in names if parts[0] == model and parts[2:] == [f"{eps:g}", AVERAGE]]


def best_single(record: Record | Found, model: str, eps: float) -> str:
    """Return the attack on one task that does most damage on average."""
    singles = [name for name in attacks_in(record, model, eps) if name.startswith(SINGLE)]
    return min(singles, key=lambda name: value(record, model, name, eps, AVERAGE))


def best_single_value(record: Record | Found, model: str, eps: float, figure: str) -> float:
    """Return a figure of the attack on one task that does most damage on average."""
    return value(record, model, best_single(record, model, eps), eps, figure)


def margin(record: Record | Found, model: str, eps: float) -> float:
    """Return how many points DGBA is ahead of the best of SINGLE, TOTAL and SIGNSUM on average damage."""
    others = (best_single(record, model, eps), *BASELINES)
    best = min(value(record, model, name, eps, AVERAGE) for name in others)
    return best - value(record, model, DGBA, eps, AVERAGE)


def strongest_margin(record: Record | Found, model: str, eps: float) -> float:
    """Return how many points APGD-DGBA is ahead of the best of all other attacks on average damage."""
    others = [name for name in attacks_in(record, model, eps) if name != STRONGEST]
    best = min(value(record, model, name, eps, AVERAGE) for name in others)
    return best - value(record, model, STRONGEST, eps, AVERAGE)


def mildest_margin(record: Record | Found, model: str, eps: float) -> float:
    """Return how many points weighted max-min is ahead of DGBA on the damage of the mildest task."""
    before, after = (value(record, model, name, eps, MILDEST) for name in (DGBA, WEIGHTED_MAXMIN))
    return before - after


def lift(record: Record | Found, model: str, eps: float) -> float:
    """Return by how many percent weighted max-min raises the damage of the mildest task over DGBA's."""
    before, after = (value(record, model, name, eps, MILDEST) for name in (DGBA, WEIGHTED_MAXMIN))
    return 100 * (after - before) / before


def transfer(record: Record | Found, model: str, eps: float) -> TransferMatrix:
    """Return the transfer matrix of a model: the damage of every task under SINGLE on each."""
    tasks = tuple(record.settings["tasks"])
    rows = [[value(record, model, SINGLE + one, eps, other) for other in tasks] for one in tasks]
    return TransferMatrix(tasks, np.array(rows))


def diagonal(record: Record | Found, model: str, eps: float) -> float:
    """Return the mean damage of the task that SINGLE aims at."""
    return transfer(record, model, eps).diagonal


def off_diagonal(record: Record | Found, model: str, eps: float) -> float:
    """Return the mean damage of the other tasks under SINGLE."""
    return transfer(record, model, eps).off_diagonal


def off_difference(record: Record | Found, one: str, other: str, eps: float) -> float:
    """Return by how many points the other tasks of model `one` suffer more than those of `other`."""
    return off_diagonal(record, other, eps) - off_diagonal(record, one, eps)


def off_ratio(record: Record | Found, one: str, other: str, eps: float) -> float:
    """Return how many times more the other tasks of model `one` suffer than those of `other`."""
    return off_diagonal(record, one, eps) / off_diagonal(record, other, eps)


def damage_cut(record: Record | Found, attack: str) -> float:
    """Return by how many percent adversarial training lowers the average damage of an attack of the suite."""
    before, after = (value(record, "suite", name, attack) for name in (STANDARD, ADVERSARIAL))
    return 100 * (1 - after / before)


def checks_passed(record: Record | Found, model: str) -> float:
    """Return how many checks of the suite a model passed."""
    return sum(found for name, found in record.metrics.items() if name.startswith(key("checks", model)))


def models_table(records: Sequence[Record]) -> Table:
    """Tabulate the metrics of every model on clean images."""
    models = _models(records)
    start = key(models[0], "clean") + "/"
    names = [name.removeprefix(start) for name in records[0].metrics if name.startswith(start)]
    rows = [
        [
            name.replace("/", ", "),
            *(_over(records, 3, value, model, "clean", name) for model in models),
        ]
        for name in names
    ]
    return Table(_title(records, "clean metrics"), ["metric", *models], rows)


def attacks_table(records: Sequence[Record]) -> Table:
    """Tabulate average damage and log ratio of losses, by eps, attack and model."""
    models = _models(records)
    rows = []
    for eps in records[0].settings["eps"]:
        rows.append(
            [
                f"{eps:g}/255, SINGLE, best task",
                *(_over(records, 1, best_single_value, model, eps, AVERAGE) for model in models),
                *(_over(records, 2, best_single_value, model, eps, LOG_RATIO) for model in models),
            ]
        )
        rows.extend(
            [
                f"{eps:g}/255, {name}",
                *(_over(records, 1, value, model, name, eps, AVERAGE) for model in models),
                *(_over(records, 2, value, model, name, eps, LOG_RATIO) for model in models),
            ]
            for name in attacks_in(records[0], models[0], eps)
            if not name.startswith(SINGLE)
        )
    columns = [f"{model}: damage, %" for model in models] + [f"{model}: log ratio" for model in models]
    return Table(
        _title(records, "average damage and mean log ratio of losses"), ["eps, attack", *columns], rows
    )


def margins_table(records: Sequence[Record]) -> Table:
    """Tabulate what DGBA, APGD-DGBA and max-min gain, paired by seed."""
    rows = [
        [
            f"{eps:g}/255, {model}",
            _over(records, 1, margin, model, eps),
            _over(records, 1, strongest_margin, model, eps),
            *(
                _over(records, 1, value, model, attack, eps, MILDEST)
                for attack in (DGBA, MAXMIN, WEIGHTED_MAXMIN)
            ),
            _over(records, 1, lift, model, eps),
        ]
        for eps in records[0].settings["eps"]
        for model in _models(records)
    ]
    columns = [
        "eps, model",
        "DGBA ahead of the best of SINGLE, TOTAL, SIGNSUM, points",
        "APGD-DGBA ahead of all others, points",
        "damage of the mildest task by DGBA, %",
        "by max-min, %",
        "by weighted max-min, %",
        "weighted max-min over DGBA, %",
    ]
    return Table(_title(records, "average damage, paired by seed"), columns, rows)


def transfer_results(records: Sequence[Record]) -> Table:
    """Tabulate how far an attack on one task carries to the others."""
    first, *others = _models(records)
    rows = []
    for eps in records[0].settings["eps"]:
        for model in (first, *others):
            compared = ["", ""]
            if model != first:
                compared = [
                    _over(records, 1, off_difference, first, model, eps),
                    _over(records, 1, off_ratio, first, model, eps),
                ]
            rows.append(
                [
                    f"{eps:g}/255, {model}",
                    _over(records, 1, diagonal, model, eps),
                    _over(records, 1, off_diagonal, model, eps),
                    *compared,
                ]
            )
    columns = [
        "eps, model",
        "damage of the attacked task, %",
        "damage of the other tasks, %",
        f"{first}: more than that by, points",
        f"{first} over it",
    ]
    return Table(_title(records, "attacks on one task"), columns, rows)


def adversarial_table(records: Sequence[Record]) -> Table:
    """Tabulate what adversarial training costs and gains, judged by the standard suite."""
    settings = records[0].settings
    if not settings["adversarial"]:
        return Table("no model was trained on adversarial images", ["training"], [])
    checks = sum(name.startswith(key("checks", STANDARD)) for name in records[0].metrics)
    rows = []
    for model in (STANDARD, ADVERSARIAL):
        costs = ["", ""]
        if model == ADVERSARIAL:
            costs = [
                _over(records, 1, value, ADVERSARIAL, "clean damage"),
                _over(records, 1, value, ADVERSARIAL, "clean loss change"),
            ]
        rows.append(
            [
                model,
                *costs,
                *(_over(records, 1, value, "suite", model, attack) for attack in JUDGED),
                f"{_over(records, 1, checks_passed, model)} of {checks}",
            ]
        )
    rows.append(
        ["damage cut by, %", "", "", *(_over(records, 1, damage_cut, attack) for attack in JUDGED), ""]
    )
    what = (
        f"{settings['adversarial']} models judged by the standard suite at eps {settings['eps'][-1]:g}/255, "
        f"{settings['judge_steps']} steps, {settings['judge_restarts']} restarts, "
        f"first {settings['judged_images']} images"
    )
    columns = [
        "training",
        "clean metrics, change, %",
        "clean loss, change, %",
        *(f"damage by {name}, %" for name in JUDGED),
        "checks passed",
    ]
    return Table(_title(records, what), columns, rows)


def plot(records: Sequence[Record], folder: Path) -> list[Path]:
    """Plot transfer matrices, damage over eps and by attack; the pictures of every seed stand beside them."""
    from dgba import pictures

    settings = records[0].settings
    models = _models(records)
    found = []
    for eps in settings["eps"]:
        matrices = {
            model: TransferMatrix(
                tuple(settings["tasks"]),
                np.mean([transfer(record, model, eps).damages for record in records], axis=0),
            )
            for model in models
        }
        found.append(
            pictures.transfer_heatmaps(
                folder / f"transfer-{eps:g}.png", matrices, title=f"Damage under SINGLE, %, eps {eps:g}/255"
            )
        )
    everywhere = sorted({*settings["eps"], *settings["curve"]})
    for figure, text, file in (
        (AVERAGE, "average damage, %", "damage"),
        (LOG_RATIO, "mean log ratio of losses", "losses"),
    ):
        lines = {
            model: {
                0.0: [0.0] * len(records),
                **{
                    eps: [record.metrics[key(model, DGBA, eps, figure)] for record in records]
                    for eps in everywhere
                },
            }
            for model in models
        }
        found.append(
            pictures.curves(
                folder / f"{file}.png",
                lines,
                title=f"DGBA, {settings['steps']} steps",
                x="eps, 1/255",
                y=text,
            )
        )
    return found + sorted(folder.parent.glob("seed-*/pictures/*.png"))


def _models(records: Sequence[Record]) -> list[str]:
    settings = records[0].settings
    return [*settings["sharing"], *([ADVERSARIAL] if settings["adversarial"] else [])]


def _over(
    records: Sequence[Record],
    digits: int,
    figure: Callable[Concatenate[Record, Arguments], float],
    *arguments: Arguments.args,
    **options: Arguments.kwargs,
) -> str:
    return estimate([figure(record, *arguments, **options) for record in records], digits)


def _title(records: Sequence[Record], what: str) -> str:
    settings = records[0].settings
    return (
        f"rooms of {settings['size']} x {settings['size']}, {len(settings['tasks'])} tasks: {what}; "
        f"{settings['test_images']} test images, {len(records)} seed{'s' * (len(records) > 1)}, "
        "mean [95 % interval]"
    )
