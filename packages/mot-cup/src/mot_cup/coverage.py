"""Whether intervals cover what they say, and what their widths cost, on detections matched to truth.

Five questions, each of every dimension of the box:

1. Boxes drawn at random, half of them to calibrate: here the promise of split conformal holds.
2. A scene that no calibration box is of: here it need not, and the worst scene tells.
3. The stream of an agent in such a scene, with the truth of a frame known after it: adaptive conformal and
   conformal control, their steps chosen on the other scenes.
4. The same stream with no labels at all, of V2X-Sim alone: a scale that follows the innovations of a filter.
5. The densities that trackers take from the calibrated variances: NLL and CRPS beside the detector's own,
   one factor for its standard deviations, and one standard deviation for all boxes, all fitted on the other
   scenes.

Of V2X-Sim it also counts how many consecutive boxes of one identity do not overlap, as published and
relinked.

The coverage is of matched detections: nothing is said of false alarms and missed objects.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np

from mot_cup._boxes import Floats, Space, check_space
from mot_cup._coverage_data import DATASETS, Streams, identity_checks, load
from mot_cup._coverage_innovations import STATES, Agents, follow_innovations, read_agents
from mot_cup._coverage_tables import adaptive_table, coverage_table, identity_table, score_table
from mot_cup.conformal import (
    PAPER_LEVEL,
    AdaptiveConformal,
    Assessment,
    ConformalControl,
    OnlineConformal,
    assess,
    assess_quantiles,
    bonferroni_quantiles,
    choose_gains,
    choose_step,
    conformal_quantiles,
    max_score_quantiles,
    normal_deviations,
    scaled_sigma,
    smallest_size,
)
from mot_cup.scores import check_level, gaussian_crps, gaussian_nll
from tenfold import SettingError
from tenfold.experiment import Experiment, Run

JOINT: dict[str, Callable[[Floats, float], Floats]] = {
    "max-score": max_score_quantiles,
    "Bonferroni": bonferroni_quantiles,
}
METHODS = ("split", "level", "quantile", "control")
LABEL_FREE = "innovations"


@dataclass(frozen=True)
class Settings:
    """Settings of ``mot-cup coverage``.

    Attributes
    ----------
    level : float
        The nominal coverage.
    space : {"xyxy", "xywh", "xyah", "xysr"}
        The dimensions; x, y, area and aspect ratio are those of the V2X-Sim detector.
    iou : float
        The overlap from which a detection is matched to a true box.
    upright : bool
        Mend V2X-Sim's files, as `mot_cup.io.read_v2xsim` says; false takes them as they are published.
    splits : int
        Random halvings.
    tolerance : float
        Of a stream's abs(coverage - level); only counts how many are beyond.
    """

    level: float = 0.9
    space: Space = "xysr"
    iou: float = 0.3
    upright: bool = True
    splits: int = 20
    tolerance: float = 0.015

    def __post_init__(self) -> None:
        check_level(self.level)
        check_space(self.space)
        if self.splits < 1 or not 0 < self.tolerance < 1:
            raise SettingError(
                f"{self.splits} splits, a tolerance of {self.tolerance}",
                "1 or more, and a number between 0 and 1",
                "Correct them with --set.",
            )


def measure(run: Run[Settings]) -> None:
    """Measure the coverage of random halves, of other scenes and of streams, and score the densities."""
    settings = run.settings
    streams = load(run.dataset, settings.space, settings.iou, settings.upright, run.seed)
    if run.dataset == "v2x-sim":
        run.variant = "upright" if settings.upright else "as published"
    scenes = sorted({scene for scene, _ in streams})
    run.metric("detections", sum(map(len, streams.values())))
    run.metric("streams", len(streams))
    run.metric("scenes", len(scenes))
    for name, check in identity_checks(run.dataset, settings.upright).items():
        run.metric(f"identities/{name}/pairs", check.pairs)
        run.metric(f"identities/{name}/disjoint", check.disjoint)
    generator = np.random.default_rng(run.seed)
    scores = np.concatenate([stream.scores for stream in streams.values()])
    for _ in run.stage("random halves", settings.splits, generator=generator):
        order = generator.permutation(len(scores))
        held, new = scores[order[::2]], scores[order[1::2]]
        _log_coverage(run, "random", held, new)
    for index in run.stage("other scenes", len(scenes)):
        _leave_out(run, streams, scenes[index])
    if run.dataset == "v2x-sim" and settings.space in STATES:
        agents = read_agents(settings.iou, settings.upright)
        for index in run.stage("without labels", len(scenes)):
            _without_labels(run, streams, agents, scenes[index])
    _summarise(run)


def _leave_out(run: Run[Settings], streams: Streams, scene: int) -> None:
    """Calibrate and choose on the other scenes, and measure on this one."""
    settings = run.settings
    own = {key: stream for key, stream in streams.items() if key[0] == scene}
    held = _scores(streams, scene)
    run.log("scene", scene)
    _log_coverage(run, "scene", held, np.concatenate([stream.scores for stream in own.values()]))
    # Sorted here once, not again for every step that is tried.
    without = {
        other: np.sort(_scores(streams, scene, other), axis=0) for other, _ in streams if other != scene
    }
    others = [(stream, without[other]) for (other, _), stream in streams.items() if other != scene]
    steps = {
        "split": np.zeros(4),
        "level": choose_step(others, level=settings.level, tracked="level"),
        "quantile": choose_step(others, level=settings.level),
    }
    gain, steps["control"] = choose_gains(others, level=settings.level)
    forms: dict[str, Callable[[], OnlineConformal]] = {
        name: partial(
            AdaptiveConformal,
            held,
            level=settings.level,
            step=steps[name],
            tracked="level" if name == "level" else "quantile",
        )
        for name in ("split", "level", "quantile")
    }
    forms["control"] = partial(ConformalControl, held, level=settings.level, gain=gain, step=steps["control"])
    for name, value in zip(settings.space, gain, strict=True):
        run.log(f"gain/control/{name}", value)
    for method in METHODS:
        for name, value in zip(settings.space, steps[method], strict=True):
            run.log(f"step/{method}/{name}", value)
        for stream in own.values():
            _log_assessment(run, method, assess(stream, forms[method]()))
    for agent in (agent for _, agent in own):
        run.log("stream/scene", scene)
        run.log("stream/agent", agent)
    errors = np.concatenate([stream.scores * stream.sigma for stream in own.values()])
    others_sigma = np.concatenate([stream.sigma for key, stream in streams.items() if key[0] != scene])
    for form, sigma in _densities(settings.level, own, held, held * others_sigma, forms["control"]).items():
        run.log(f"nll/{form}", gaussian_nll(errors, sigma).sum(axis=1).mean())
        for name, value in zip(settings.space, gaussian_crps(errors, sigma).mean(axis=0), strict=True):
            run.log(f"crps/{form}/{name}", value)


def _without_labels(run: Run[Settings], streams: Streams, agents: Agents, scene: int) -> None:
    """Let the scale of this scene's streams follow innovations."""
    settings = run.settings
    own = [stream for key, stream in streams.items() if key[0] == scene]
    found = follow_innovations(agents, scene, STATES[settings.space], settings.level)
    for stream, quantiles in zip(own, found, strict=True):
        _log_assessment(run, LABEL_FREE, assess_quantiles(stream, quantiles, settings.level))


def _log_assessment(run: Run[Settings], method: str, found: Assessment) -> None:
    for name, gap, cost, void in zip(
        run.settings.space, found.gap, found.interval_score, found.void, strict=True
    ):
        run.log(f"gap/{method}/{name}", gap)
        run.log(f"interval score/{method}/{name}", cost)
        run.log(f"void/{method}/{name}", void)


def _densities(
    level: float,
    own: Streams,
    held: Floats,
    held_errors: Floats,
    control: Callable[[], OnlineConformal],
) -> Mapping[str, Floats]:
    """Return the standard deviations of a scene's boxes, of shape (n, 4), by every way to get them."""
    raw = np.concatenate([stream.sigma for stream in own.values()])
    reach = normal_deviations(level)
    followed = np.concatenate([control().follow(stream) for stream in own.values()])
    forms = {
        "raw": raw,
        "constant": np.broadcast_to(np.sqrt((held_errors**2).mean(axis=0)), raw.shape),
        "rescaled": raw * np.sqrt((held**2).mean(axis=0)),
        "conformal": scaled_sigma(raw, conformal_quantiles(held, level), reach),
        "control": scaled_sigma(raw, followed, reach),
    }
    if len(held) >= smallest_size(PAPER_LEVEL):
        forms["paper"] = scaled_sigma(raw, conformal_quantiles(held))
    return forms


def _log_coverage(run: Run[Settings], kind: str, held: Floats, new: Floats) -> None:
    settings = run.settings
    within = (new <= conformal_quantiles(held, settings.level)).mean(axis=0)
    for name, share in zip(settings.space, within, strict=True):
        run.log(f"{kind}/{name}", share)
    for name, function in JOINT.items():
        run.log(f"{kind}/{name}", (new <= function(held, settings.level)).all(axis=1).mean())


def _summarise(run: Run[Settings]) -> None:
    settings, history = run.settings, run.history
    for name in (*settings.space, *JOINT):
        for kind in ("random", "scene"):
            values = history[f"{kind}/{name}"]
            run.metric(f"{kind}/{name}/mean", float(np.mean(values)))
            run.metric(f"{kind}/{name}/lowest", min(values))
            run.metric(f"{kind}/{name}/highest", max(values))
    for method in (*METHODS, LABEL_FREE):
        for name in settings.space:
            if f"gap/{method}/{name}" not in history:
                continue
            gaps = [abs(gap) for gap in history[f"gap/{method}/{name}"]]
            cost, split = (sum(history[f"interval score/{of}/{name}"]) for of in (method, "split"))
            found = {
                "mean gap": sum(gaps) / len(gaps),
                "worst gap": max(gaps),
                "beyond": sum(gap > settings.tolerance for gap in gaps),
                "interval score ratio": cost / split,
                "void": float(np.mean(history[f"void/{method}/{name}"])),
            }
            for key, value in found.items():
                run.metric(f"stream/{method}/{name}/{key}", value)


def _scores(streams: Streams, *without: int) -> Floats:
    return np.concatenate([stream.scores for (scene, _), stream in streams.items() if scene not in without])


coverage = Experiment(
    package="mot-cup",
    command="coverage",
    body=measure,
    quick=Settings(),
    full=Settings(splits=200),
    datasets=DATASETS,
    tables={
        "coverage": coverage_table,
        "adaptive": adaptive_table,
        "scores": score_table,
        "identities": identity_table,
    },
)
