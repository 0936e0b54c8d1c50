"""The label-free scale on V2X-Sim: `InnovationConformal` in scenes that were left out.

Everything that is fitted is of the other scenes: the calibration, the process noise of the filter, by
likelihood from one agent of each with its identities relinked, and the quantiles of innovations. The step is
the default of `InnovationConformal`, chosen on simulated objects; of the scene itself no label is used.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from mot_cup import likelihood
from mot_cup._boxes import Floats, Space
from mot_cup._detections import Detections
from mot_cup._sort import Sort
from mot_cup._state_models import StateModel
from mot_cup._tracking_data import tracking_folder
from mot_cup.conformal import Calibration, InnovationConformal, Matches, calibrate, match, pooled
from mot_cup.identities import relink
from mot_cup.io import V2XSimSequence, read_v2xsim

STATES: Mapping[Space, StateModel] = {"xysr": "xysr", "xyah": "xyah", "xywh": "xywh"}


@dataclass(frozen=True)
class Agents:
    """The sequences of V2X-Sim with their truth relinked, and their matched detections."""

    sequences: Sequence[V2XSimSequence]
    matches: Sequence[Matches]


def read_agents(iou: float, upright: bool) -> Agents:
    """Read the sequences, in the order of scenes and agents, but for those without a matched detection.

    Raises
    ------
    DataError
        The files of V2X-Sim are missing or malformed.
    """
    found = sorted(
        read_v2xsim(tracking_folder("v2xsim"), upright=upright), key=lambda item: (item.scene, item.agent)
    )
    matches = [match(item.detections, item.truth, iou) for item in found]
    kept = [index for index, some in enumerate(matches) if len(some)]
    return Agents(
        [replace(found[index], truth=relink(found[index].truth)) for index in kept],
        [matches[index] for index in kept],
    )


def follow_innovations(agents: Agents, scene: int, space: StateModel, level: float) -> list[Floats]:
    """Return the quantiles in force at the matched detections of a scene's streams, each of shape (n, 4)."""
    others = [item for item in agents.sequences if item.scene != scene]
    held = [some for item, some in zip(agents.sequences, agents.matches, strict=True) if item.scene != scene]
    calibration = calibrate(pooled(held), level=level, space=space)
    calibrated = [_apply(calibration, item.detections) for item in others]
    firsts = {item.scene: index for index, item in reversed(list(enumerate(others)))}
    observed = [
        likelihood.observations(calibrated[index], others[index].truth, space) for index in firsts.values()
    ]
    # The fourth coordinate of xysr is no height.
    noise = likelihood.fit(likelihood.pooled(observed), of_height=space != "xysr")
    tracker = Sort(state=space, uncertainty="covariance", noise=noise, keep_innovations=True)
    innovations = np.concatenate([_innovations(tracker, frames) for frames in calibrated])
    quantiles = []
    for item, some in zip(agents.sequences, agents.matches, strict=True):
        if item.scene == scene:
            following = InnovationConformal(calibration, innovations, level=level)
            scales = _scales(following, tracker, item.detections)
            quantiles.append(calibration.quantiles * np.array([scales[frame] for frame in some.frames]))
    return quantiles


def _apply(calibration: Calibration, frames: Mapping[int, Detections]) -> dict[int, Detections]:
    return {frame: calibration.apply(detections) for frame, detections in frames.items()}


def _innovations(tracker: Sort, frames: Mapping[int, Detections]) -> Floats:
    tracker.track(frames)
    return tracker.innovations.scores()


def _scales(
    following: InnovationConformal, tracker: Sort, frames: Mapping[int, Detections]
) -> dict[int, Floats]:
    """Return the scale that was in force in every frame."""
    tracker.reset()
    scales, empty = {}, Detections(np.empty((0, 4)))
    for frame in range(min(frames), max(frames) + 1):
        scales[frame] = following.scale
        following.track(tracker, frames.get(frame, empty))
    return scales
