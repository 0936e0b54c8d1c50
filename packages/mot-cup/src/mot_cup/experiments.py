"""What a detector's uncertainty is worth: SORT as published, with tuned constants, and with covariances.

The paper compares its trackers with untuned ones. Here two of three are tuned alike, by the same search for
the highest HOTA, and judged on other scenes. Of simulated scenes every seed is a sample; of V2X-Sim and KITTI
the intervals are from a bootstrap over scenes, paired by scene.

Figures of V2X-Sim are means over its agents, those of each over all scenes together, as in the paper.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mot_cup._boxes import Floats
from mot_cup._contest import METHODS, draw, judge
from mot_cup._contest_data import Contest, kitti_cars, simulated, v2x_sim
from mot_cup._contest_search import tune
from mot_cup._contest_tables import methods_table
from mot_cup.metrics import Scores, average, combine
from mot_cup.simulation import SceneSettings
from tenfold import SettingError
from tenfold.experiment import Claim, Experiment, Run

FIGURES = ("HOTA", "MOTA", "MOTP", "IDF1")
DATASETS = ("simulated", "v2x-sim", "kitti")
NOTES = {
    "default": "the paper's gain over SORT as it is",
    "constant": "the paper has no such comparison",
}


@dataclass(frozen=True)
class Settings:
    """Settings of ``mot-cup run``.

    Attributes
    ----------
    draws : int
        Candidates, of each of the two methods that are tuned, that the search begins with.
    tune, judge : int
        Simulated scenes.
    position_std, heading_std : float
        Errors of the agents' poses in simulated scenes, in metres and radians.
    mended : bool
        V2X-Sim with boxes and identities mended; false as published.
    resamples : int
        Of the bootstrap over scenes.
    """

    draws: int = 100
    tune: int = 6
    judge: int = 5
    position_std: float = 0.1
    heading_std: float = 0.01
    mended: bool = False
    resamples: int = 1000

    def __post_init__(self) -> None:
        if min(self.draws, self.tune, self.judge, self.resamples) < 1:
            raise SettingError(
                f"{self.draws} draws, {self.tune} and {self.judge} scenes, {self.resamples} resamples",
                "1 or more of each",
                "Correct them with --set.",
            )
        SceneSettings(position_std=self.position_std, heading_std=self.heading_std)


@dataclass
class Judged:
    """The scores of every method on the clips that were judged, by scene and view."""

    scores: dict[str, list[tuple[str, str, Scores]]] = field(
        default_factory=lambda: {method: [] for method in METHODS}
    )

    def state_dict(self) -> dict[str, Any]:
        """Return nothing but numbers and names, for a checkpoint."""
        return {
            method: [(group, view, scores.state_dict()) for group, view, scores in found]
            for method, found in self.scores.items()
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take what `state_dict` returned."""
        self.scores = {
            method: [(group, view, Scores.from_state(scores)) for group, view, scores in found]
            for method, found in state.items()
        }


def compare(run: Run[Settings]) -> None:
    """Tune, judge, and compare."""
    settings = run.settings
    contest = _contest(run)
    if run.dataset == "v2x-sim":
        run.variant = "mended" if settings.mended else "as published"
    judged = Judged()
    for index in run.stage("folds", len(contest.folds), judged=judged):
        fold = contest.folds[index]()
        for method in METHODS:
            generator = np.random.default_rng([run.seed, index])
            if method == "default":
                (chosen,) = draw(contest.space(method), 1, generator)
            else:
                chosen = tune(contest, method, fold, settings.draws, generator)
            for clip in fold.judge:
                scores = judge(method, chosen, clip, contest.per_height)
                judged.scores[method].append((clip.group, clip.view, scores))
    _report(run, judged)


def _contest(run: Run[Settings]) -> Contest:
    settings = run.settings
    if run.dataset == "v2x-sim":
        return v2x_sim(settings.mended)
    if run.dataset == "kitti":
        return kitti_cars()
    scenes = SceneSettings(position_std=settings.position_std, heading_std=settings.heading_std)
    return simulated(scenes, settings.tune, settings.judge, [run.seed])


def _report(run: Run[Settings], judged: Judged) -> None:
    """Write the figures of every method and the gains of the last one, with their intervals over scenes."""
    groups = list(dict.fromkeys(group for group, _, _ in judged.scores["default"]))
    generator = np.random.default_rng(run.seed)
    samples = [groups]
    if run.dataset != "simulated":
        samples += [list(generator.choice(groups, len(groups))) for _ in range(run.settings.resamples)]
    figures = {
        method: np.array([_figures(found, sample) for sample in samples])
        for method, found in judged.scores.items()
    }
    ours = figures["covariance"]
    for method, values in figures.items():
        _metrics(run, method, values)
        if method != "covariance":
            _metrics(run, f"gain over {method}", ours - values)
    for other in ("constant", "default"):
        gain = run.metrics[f"gain over {other}/HOTA"]
        name = f"HOTA on {run.dataset}, covariances minus {METHODS[other]}"
        paper = 0.85 if other == "default" else 0.0
        run.claim(Claim.at_least(name, paper=paper, ours=gain, unit="points", note=NOTES[other]))


def _figures(found: Sequence[tuple[str, str, Scores]], groups: Sequence[str]) -> list[float]:
    """Return the figures in percent: of each view over the scenes together, then the mean over views."""
    views: dict[str, list[Scores]] = {}
    for group in groups:
        for of_group, view, scores in found:
            if of_group == group:
                views.setdefault(view, []).append(scores)
    means = average([combine(scores) for scores in views.values()])
    return [100 * means[name] for name in FIGURES]


def _metrics(run: Run[Settings], name: str, values: Floats) -> None:
    for index, figure in enumerate(FIGURES):
        run.metric(f"{name}/{figure}", float(values[0, index]))
        if len(values) > 1:
            low, high = np.quantile(values[1:, index], [0.025, 0.975])
            run.metric(f"{name}/{figure}/low", float(low))
            run.metric(f"{name}/{figure}/high", float(high))


run = Experiment(
    package="mot-cup",
    command="run",
    body=compare,
    quick=Settings(),
    full=Settings(draws=300, tune=18, judge=12),
    datasets=DATASETS,
    tables={"methods": methods_table},
)
