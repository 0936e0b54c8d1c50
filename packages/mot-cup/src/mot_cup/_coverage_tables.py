"""The tables of ``mot-cup coverage``."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tenfold.experiment import Record, Table, estimate

FORMS = {
    "raw": "the detector's own",
    "constant": "one standard deviation for all boxes",
    "rescaled": "the detector's, times one factor (likelihood)",
    "paper": "the paper's q / 3 at 0.9973",
    "conformal": "conformal at the level",
    "control": "conformal control at the level, with labels",
}
METHODS = {
    "split": "split",
    "level": "adaptive, level",
    "quantile": "adaptive, quantile",
    "control": "control",
    "innovations": "innovations, no labels",
}


def coverage_table(records: Sequence[Record]) -> Table:
    """Tabulate the coverage of random halves and of scenes that were left out."""
    rows = []
    for name in [*records[0].settings["space"], "max-score", "Bonferroni"]:
        random = _history(records, f"random/{name}")
        scene = _history(records, f"scene/{name}")
        numbers = _history(records, "scene")
        worst = int(np.argmin(scene))
        rows.append(
            [
                name if len(name) == 1 else f"all four, {name}",
                f"{100 * np.mean(random):.1f}",
                f"{100 * min(random):.1f} to {100 * max(random):.1f}",
                f"{100 * np.mean(scene):.1f}",
                f"{100 * scene[worst]:.1f} (scene {numbers[worst]:.0f})",
                f"{100 * max(scene):.1f}",
            ]
        )
    columns = ["coverage, %", "random halves", "range", "other scenes", "lowest", "highest"]
    return Table(_title(records), columns, rows)


def adaptive_table(records: Sequence[Record]) -> Table:
    """Tabulate how far streams of scenes that were left out are from the level, and what that costs."""
    settings = records[0].settings
    rows = []
    for name in settings["space"]:
        for method, title in METHODS.items():
            if f"gap/{method}/{name}" not in records[0].history:
                continue
            gaps = np.abs(_history(records, f"gap/{method}/{name}"))
            costs, split = (
                np.mean(_history(records, f"interval score/{of}/{name}")) for of in (method, "split")
            )
            steps = "" if method == "innovations" else _range(_history(records, f"step/{method}/{name}"))
            if method == "control":
                steps = f"{_range(_history(records, f'gain/control/{name}'))}; {steps}"
            rows.append(
                [
                    f"{name}, {title}",
                    f"{100 * gaps.mean():.2f}",
                    f"{100 * gaps.max():.2f}",
                    f"{(gaps > settings['tolerance']).sum()} of {len(gaps)}",
                    f"{costs / split:.3f}",
                    f"{100 * np.mean(_history(records, f'void/{method}/{name}')):.2f}",
                    steps,
                ]
            )
    columns = [
        "stream of an agent in another scene",
        "absolute gap, points",
        "worst",
        f"beyond {100 * settings['tolerance']:g}",
        "interval score, over split",
        "infinite or empty, %",
        "gain; step",
    ]
    return Table(_title(records), columns, rows)


def score_table(records: Sequence[Record]) -> Table:
    """Tabulate the densities: NLL as differences, CRPS as ratios, over two baselines."""
    rows = []
    for form, title in FORMS.items():
        if f"nll/{form}" not in records[0].history:
            continue
        nll = np.array(_history(records, f"nll/{form}"))
        rows.append(
            [
                title,
                *(estimate(list(nll - _history(records, f"nll/{base}"))) for base in ("raw", "rescaled")),
                *(f"{_crps_ratio(records, form, base):.3f}" for base in ("raw", "rescaled")),
            ]
        )
    columns = ["standard deviations", "NLL, less raw", "less rescaled", "CRPS, over raw", "over rescaled"]
    title = f"{_title(records)}; nats a box, mean over scenes left out [95 % interval]"
    return Table(title, columns, rows)


def identity_table(records: Sequence[Record]) -> Table:
    """Tabulate the boxes of one identity in consecutive frames, and those that do not overlap."""
    metrics = records[0].metrics
    rows = []
    for name in ("published", "relinked"):
        if f"identities/{name}/pairs" in metrics:
            pairs, disjoint = (metrics[f"identities/{name}/{count}"] for count in ("pairs", "disjoint"))
            rows.append([name, f"{pairs:,.0f}", f"{disjoint:,.0f}", f"{100 * disjoint / pairs:.1f}"])
    columns = ["identities of the truth", "pairs in consecutive frames", "disjoint", "share, %"]
    return Table(f"{records[0].dataset}: boxes of one identity", columns, rows)


def _crps_ratio(records: Sequence[Record], form: str, base: str) -> float:
    """Return the geometric mean over the dimensions of the ratio of mean CRPS."""
    ratios = [
        np.mean(_history(records, f"crps/{form}/{name}")) / np.mean(_history(records, f"crps/{base}/{name}"))
        for name in records[0].settings["space"]
    ]
    return float(np.exp(np.log(ratios).mean()))


def _range(values: Sequence[float]) -> str:
    return f"{min(values):g}" if min(values) == max(values) else f"{min(values):g} to {max(values):g}"


def _history(records: Sequence[Record], name: str) -> list[float]:
    return [value for record in records for value in record.history[name]]


def _title(records: Sequence[Record]) -> str:
    metrics, level = records[0].metrics, records[0].settings["level"]
    size = f"{metrics['detections']:,.0f} matched detections of {metrics['scenes']:.0f} scenes"
    return f"{records[0].dataset}: {size}, level {100 * level:g} %"
