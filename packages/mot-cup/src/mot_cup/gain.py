"""When covariances pay: simulated scenes of more and less unequal detections, and of dishonest ones.

What covariances can tell is which of two detections, or a detection and a prediction, is the surer. So their
worth should grow with the spread of the detections' errors, and vanish without any. The agents' poses are
known exactly, or with errors that move what is far more than what is near. At every spread both trackers are
tuned anew, alike. The misreported covariances are those of scenes that are judged, by trackers that were
tuned on honest ones.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mot_cup._contest import Candidate, judge
from mot_cup._contest_data import simulated
from mot_cup._contest_search import tune
from mot_cup.metrics import combine
from mot_cup.simulation import Noise, SceneSettings
from tenfold import SettingError
from tenfold.experiment import Experiment, Record, Run, Table, estimate

TUNED = ("constant", "covariance")
MISREPORTED: dict[str, dict[str, Any]] = {
    "as they are": {},
    "half the deviations": {"reported_scale": 0.5},
    "twice the deviations": {"reported_scale": 2.0},
    "deviations off by a random factor of e^0.5": {"reported_spread": 0.5},
    "errors that last, as V2X-Sim's do": {"error_memory": 0.73},
}


@dataclass(frozen=True)
class Settings:
    """Settings of ``mot-cup gain``.

    Attributes
    ----------
    spreads : tuple of float
        Standard deviations of the logarithm of a detection's standard deviations.
    position_std, heading_std : float
        Errors of the agents' poses where they are not exact, in metres and radians.
    draws : int
        Candidates of each method that the search begins with.
    tune, judge : int
        Scenes.
    """

    spreads: tuple[float, ...] = (0.0, 0.3, 0.57, 0.9)
    position_std: float = 0.1
    heading_std: float = 0.01
    draws: int = 60
    tune: int = 3
    judge: int = 2

    def __post_init__(self) -> None:
        if not self.spreads or min(self.draws, self.tune, self.judge) < 1:
            raise SettingError(
                f"spreads {self.spreads}, {self.draws} draws, {self.tune} and {self.judge} scenes",
                "1 or more of each",
                "Correct them with --set.",
            )
        for _, spread, poses in scenarios(self):
            scenes(spread, poses)


def scenarios(settings: Settings) -> list[tuple[str, float, tuple[float, float]]]:
    """Return the name of what is known of the poses, the spread, and the errors of the poses."""
    poses = {"exact poses": (0.0, 0.0), "uncertain poses": (settings.position_std, settings.heading_std)}
    return [(name, spread, errors) for name, errors in poses.items() for spread in settings.spreads]


def scenes(spread: float, poses: tuple[float, float]) -> SceneSettings:
    """Return the settings of scenes."""
    position, heading = poses
    return SceneSettings(
        position_std=position, heading_std=heading, noise=dataclasses.replace(Noise(), spread=spread)
    )


def sweep(run: Run[Settings]) -> None:
    """Measure the gain at every spread, and what misreported covariances cost."""
    settings = run.settings
    for index in run.stage("spreads", len(scenarios(settings))):
        _, spread, poses = scenarios(settings)[index]
        of_spread = scenes(spread, poses)
        _judge(run, "spread", _tune(run, of_spread, index), of_spread, index)
    honest = SceneSettings(position_std=settings.position_std, heading_std=settings.heading_std)
    chosen: dict[str, Candidate] = {}
    for index in run.stage("misreported", len(MISREPORTED)):
        changes = list(MISREPORTED.values())[index]
        if "error_memory" in changes:
            reported = dataclasses.replace(honest, noise=dataclasses.replace(Noise(), **changes))
        else:
            reported = dataclasses.replace(honest, **changes)
        chosen = chosen or _tune(run, honest, -1)
        _judge(run, "misreported", chosen, reported, -1)


def _tune(run: Run[Settings], scenes: SceneSettings, index: int) -> dict[str, Candidate]:
    settings, seed = run.settings, [run.seed, index + 1]
    contest = simulated(scenes, settings.tune, 0, [*seed, 0])
    fold = contest.folds[0]()
    return {
        method: tune(contest, method, fold, settings.draws, np.random.default_rng(seed)) for method in TUNED
    }


def _judge(
    run: Run[Settings], name: str, chosen: Mapping[str, Candidate], scenes: SceneSettings, index: int
) -> None:
    fold = simulated(scenes, 0, run.settings.judge, [run.seed, index + 1, 1]).folds[0]()
    found = {
        method: 100 * combine(judge(method, candidate, clip) for clip in fold.judge)["HOTA"]
        for method, candidate in chosen.items()
    }
    for method, hota in found.items():
        run.log(f"{name}/{method}", hota)
    run.log(f"{name}/gain", found["covariance"] - found["constant"])


def gain_table(records: Sequence[Record]) -> Table:
    """Tabulate HOTA with constants and with covariances, at every spread and certainty of the poses."""
    spreads = records[0].settings["spreads"]
    names = [f"{poses}, {spread:g}" for poses in ("exact poses", "uncertain poses") for spread in spreads]
    return _gains(records, "spread", names, "poses, spread of the deviations")


def honesty_table(records: Sequence[Record]) -> Table:
    """Tabulate HOTA with constants and with covariances that are misreported."""
    return _gains(records, "misreported", list(MISREPORTED), "what is reported")


def _gains(records: Sequence[Record], kind: str, names: Sequence[str], column: str) -> Table:
    rows = [
        [
            name,
            *(
                estimate([record.history[f"{kind}/{part}"][index] for record in records], 2)
                for part in ("constant", "covariance", "gain")
            ),
        ]
        for index, name in enumerate(names)
    ]
    title = f"HOTA, simulated scenes, both tuned alike; {len(records)} seeds, mean [95 % interval]"
    return Table(title, [column, "constant noise", "covariances", "gain"], rows)


def plot(records: Sequence[Record], folder: Path) -> list[Path]:
    """Plot the gain over the spread."""
    from matplotlib.figure import Figure

    from tenfold.experiment import plots

    spreads = records[0].settings["spreads"]
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.add_subplot()
    gains = np.array([record.history["spread/gain"] for record in records])
    for number, name in enumerate(("exact poses", "uncertain poses")):
        of_poses = gains[:, number * len(spreads) : (number + 1) * len(spreads)]
        axes.plot(spreads, of_poses.mean(0), marker="o", label=name)
        axes.fill_between(spreads, of_poses.min(0), of_poses.max(0), alpha=0.2)
    axes.axhline(0, color="grey", linewidth=0.8)
    axes.set_xlabel("spread of the detections' deviations (of their logarithm)")
    axes.set_ylabel("HOTA over tuned constant noise, points")
    axes.set_title(f"What covariances gain: mean and range of {len(records)} seeds")
    axes.legend()
    plots.save(figure, folder / "gain.png")
    return [folder / "gain.png"]


gain = Experiment(
    package="mot-cup",
    command="gain",
    body=sweep,
    quick=Settings(),
    full=Settings(draws=200, tune=12, judge=8),
    tables={"gain": gain_table, "honesty": honesty_table},
    plot=plot,
)
