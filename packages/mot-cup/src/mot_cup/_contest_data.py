"""What the trackers of a contest are tuned and judged on.

Simulated scenes, in which several agents find cars: some scenes to tune on, others to judge. V2X-Sim and
KITTI: every scene is judged by trackers that were calibrated and tuned on the others.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from mot_cup._boxes import Floats, to_space
from mot_cup._contest import SPACE, Clip, Space
from mot_cup._detections import BoxCovariance, Detections
from mot_cup._preprocessing import kitti
from mot_cup._tracking_data import tracking_folder
from mot_cup._tracks import Tracks
from mot_cup.conformal import Matches, calibrate, match, pooled
from mot_cup.fusion import correct_poses, late_fusion, to_common
from mot_cup.identities import relink
from mot_cup.io import KittiObjects, read_kitti_detections, read_kitti_tracks, read_v2xsim
from mot_cup.metrics import Scores, evaluate
from mot_cup.simulation import Scene, SceneSettings, simulate

Frames = Mapping[int, Detections]
LEVEL = 0.9
HELD_OUT = (1, 6, 8, 10, 12, 13, 14)
"""KITTI sequences that are commonly held not to be training data of the detector, of those that are there."""
THRESHOLDS = (0.0, 2.0, 4.0)
DEVIATION = 0.6
"""Of x and y of a simulated detection, in pixels, where poses are corrected without covariances: about the
root mean square of their errors."""


@dataclass(frozen=True)
class Fold:
    """Clips to tune on and others to judge."""

    tune: Sequence[Clip]
    judge: Sequence[Clip]


@dataclass(frozen=True)
class Contest:
    """Folds, made when they are called, and what each method may choose among.

    Attributes
    ----------
    folds : sequence of callables that return a Fold
    frames : mapping from str to sequence of str
        Of each method: keys of `Clip.frames`.
    per_height : bool
        Noise grows with the height.
    begin_scores : tuple of float
        Instead of those of `SPACE`, where scores are no probabilities.
    """

    folds: Sequence[Callable[[], Fold]]
    frames: Mapping[str, Sequence[str]]
    per_height: bool = False
    begin_scores: tuple[float, ...] = SPACE["begin_score"]

    def space(self, method: str) -> Space:
        """Return what the candidates of a method may be."""
        return {"frames": tuple(self.frames[method]), **SPACE, "begin_score": self.begin_scores}


def simulated(scenes: SceneSettings, tune: int, judge: int, seed: Sequence[int]) -> Contest:
    """Return scenes of a simulation, so many to tune on and so many to judge."""

    def fold() -> Fold:
        clips = [
            scene_clip(simulate(scenes, np.random.default_rng([*seed, number])), str(number))
            for number in range(tune + judge)
        ]
        return Fold(clips[:tune], clips[tune:])

    frames = {
        "default": ("best",),
        "constant": ("best", "mean", "corrected, mean"),
        "covariance": ("information", "intersection", "corrected, information"),
    }
    return Contest([fold], frames)


def scene_clip(scene: Scene, name: str) -> Clip:
    """Return what the agents of a scene find together.

    Their detections are moved by the poses that they report and made one in three ways: the box of the best
    score, the mean of the boxes, the mean by their information; and covariance intersection. Where poses are
    not exact, these are corrected as well by what the agents find in common, with weights that are equal for
    the mean and from the covariances for the mean by information.
    """
    ways: dict[str, dict[int, Detections]] = {
        name: {}
        for name in (
            "best",
            "mean",
            "information",
            "intersection",
            "corrected, mean",
            "corrected, information",
        )
    }
    uncertain = bool(scene.agents[0].pose_covariance.any())
    for frame in range(1, scene.settings.frames + 1):
        found = _moved(scene, frame - 1)
        alike = [_alone(item) for item in found]
        ways["best"][frame] = late_fusion(alike, combination="best")
        ways["mean"][frame] = late_fusion(alike)
        ways["information"][frame] = late_fusion(found)
        ways["intersection"][frame] = late_fusion(found, combination="intersection")
        if uncertain:
            alike = [_alone(item) for item in _moved(scene, frame - 1, True, DEVIATION)]
            ways["corrected, mean"][frame] = late_fusion(alike)
            ways["corrected, information"][frame] = late_fusion(_moved(scene, frame - 1, True))
    if not uncertain:
        for way in ("mean", "information"):
            ways[f"corrected, {way}"] = ways[way]
    return Clip(name, "together", ways, partial(evaluate, scene.together.truth))


def _moved(
    scene: Scene, index: int, correct: bool = False, deviation: float | None = None
) -> list[Detections]:
    """Return the detections of a frame in the scene's frame of reference."""
    own = [agent.rotated[index] for agent in scene.agents]
    poses = np.array([agent.poses[index] for agent in scene.agents])
    errors = np.array([agent.pose_covariance for agent in scene.agents])
    if correct:
        poses, errors = correct_poses(own, poses, errors, deviation=deviation)
    return [to_common(*item).axis_aligned() for item in zip(own, poses, errors, strict=True)]


def v2x_sim(mended: bool) -> Contest:
    """Return V2X-Sim's validation scenes, each judged by what the others tuned.

    Parameters
    ----------
    mended : bool
        Boxes moved back and identities linked anew, as `mot_cup.io.read_v2xsim` and `mot_cup.identities`
        say; false takes the files as they are published.
    """
    sequences = read_v2xsim(tracking_folder("v2xsim"), upright=mended)
    truths = [relink(item.truth) if mended else item.truth for item in sequences]
    matches = [match(item.detections, item.truth) for item in sequences]

    def fold(scene: int) -> Fold:
        others = [found for item, found in zip(sequences, matches, strict=True) if item.scene != scene]
        calibration = calibrate(pooled(others), level=LEVEL, space="xywh")
        clips = [
            Clip(
                str(item.scene),
                str(item.agent),
                {
                    "as they are": item.detections,
                    "calibrated": {frame: calibration.apply(some) for frame, some in item.detections.items()},
                },
                partial(evaluate, truth),
            )
            for item, truth in zip(sequences, truths, strict=True)
        ]
        return _split(clips, str(scene))

    frames = {"default": ("as they are",), "constant": ("as they are",), "covariance": ("calibrated",)}
    scenes = sorted({item.scene for item in sequences})
    return Contest([partial(fold, scene) for scene in scenes], frames)


def kitti_cars() -> Contest:
    """Return KITTI's sequences that are there of `HELD_OUT`, with the cars that PointRCNN found.

    The detector says nothing of its errors. Their deviations are taken to be powers of the height, times an
    exponential of the score, as fitted and then calibrated on the other sequences.
    """
    folder = tracking_folder("kitti")
    numbers = [number for number in HELD_OUT if (folder / "label" / f"{number:04d}.txt").exists()]
    labels = {number: read_kitti_tracks(folder / "label" / f"{number:04d}.txt") for number in numbers}
    detections = {
        number: read_kitti_detections(
            folder / "detection" / "pointrcnn_Car_val" / f"{number:04d}.txt"
        ).detections("Car")
        for number in numbers
    }
    matches = {
        number: match({f: _alone(d) for f, d in detections[number].items()}, labels[number].tracks("Car"))
        for number in numbers
    }

    def fold(judged: int) -> Fold:
        model = error_model(pooled([matches[number] for number in numbers if number != judged]))
        clips = []
        for number in numbers:
            frames: dict[str, Frames] = {}
            for threshold in THRESHOLDS:
                some = {f: d[d.scores >= threshold] for f, d in detections[number].items()}
                frames[f"from {threshold:g}"] = some
                frames[f"modelled, from {threshold:g}"] = {f: model(d) for f, d in some.items()}
            clips.append(Clip(str(number), "", frames, partial(_score_cars, labels[number])))
        return _split(clips, str(judged))

    plain = tuple(f"from {threshold:g}" for threshold in THRESHOLDS)
    frames = {
        "default": plain[1:2],
        "constant": plain,
        "covariance": tuple(f"modelled, {name}" for name in plain),
    }
    return Contest(
        [partial(fold, number) for number in numbers],
        frames,
        per_height=True,
        begin_scores=(0.0, 1.0, 2.0, 4.0, 6.0),
    )


def error_model(matches: Matches) -> Callable[[Detections], Detections]:
    """Fit how large a detector's errors are by the height and score of a box.

    log |error| of x, y, w and h is regressed on log height and score, and the deviations calibrated.

    Parameters
    ----------
    matches : Matches

    Returns
    -------
    callable
        From detections to the same with covariances.
    """
    errors = np.abs(matches.errors("xywh"))
    floor = 1e-3 * errors.mean(axis=0)
    weights = np.linalg.lstsq(_features(matches.detections), np.log(np.maximum(errors, floor)), rcond=None)[0]

    def raw(detections: Detections) -> Detections:
        variances = np.exp(2 * _features(detections) @ weights)
        return dataclasses.replace(
            detections, covariance=BoxCovariance.diagonal(variances, "xywh", detections.unit)
        )

    fitted = Matches(matches.frames, raw(matches.detections), matches.truth)
    calibration = calibrate(fitted, level=LEVEL, space="xywh")
    return lambda detections: calibration.apply(raw(detections))


def _features(detections: Detections) -> Floats:
    heights = to_space(detections.boxes, "xywh")[:, 3]
    return np.stack([np.ones(len(heights)), np.log(heights), detections.scores], axis=1)


def _split(clips: Sequence[Clip], judged: str) -> Fold:
    return Fold(
        [clip for clip in clips if clip.group != judged], [clip for clip in clips if clip.group == judged]
    )


def _alike(count: int) -> BoxCovariance:
    return BoxCovariance.diagonal(np.ones((count, 4)), "xywh", "px")


def _alone(detections: Detections) -> Detections:
    return dataclasses.replace(detections, covariance=_alike(len(detections)))


def _score_cars(labels: KittiObjects, tracks: Tracks) -> Scores:
    return evaluate(*kitti(labels, tracks, "Car"))
