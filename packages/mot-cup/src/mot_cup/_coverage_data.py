"""The streams that ``mot-cup coverage`` measures on."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from mot_cup._boxes import Space
from mot_cup._tracking_data import tracking_folder
from mot_cup.conformal import Stream, match
from mot_cup.identities import IdentityCheck, check_identities, relink
from mot_cup.io import read_v2xsim
from tenfold import UnknownNameError

Streams = Mapping[tuple[int, int], Stream]
DATASETS = ("simulated", "v2x-sim")


def load(dataset: str, space: Space, iou: float, upright: bool, seed: int) -> Streams:
    """Return the stream of every agent in every scene, by scene and agent.

    Agents without a matched detection are left out.

    Parameters
    ----------
    dataset : {"simulated", "v2x-sim"}
    space, iou, upright
        As in the settings; the simulated errors have no boxes and so none of them.
    seed : int
        Of the simulation.

    Raises
    ------
    DataError
        The files of V2X-Sim are missing or malformed.
    UnknownNameError
        There is no such data set.
    """
    if dataset not in DATASETS:
        raise UnknownNameError("data set", dataset, DATASETS)
    if dataset == "simulated":
        return simulated(seed)
    found = {
        (sequence.scene, sequence.agent): match(sequence.detections, sequence.truth, iou)
        for sequence in read_v2xsim(tracking_folder("v2xsim"), upright=upright)
    }
    return {key: Stream.of(found[key], space) for key in sorted(found) if len(found[key])}


def identity_checks(dataset: str, upright: bool) -> Mapping[str, IdentityCheck]:
    """Check the identities of a data set's truth as they are published, and relinked.

    Parameters
    ----------
    dataset : {"simulated", "v2x-sim"}
        The simulated errors have no identities, and so no check.
    upright : bool
        As in the settings.

    Raises
    ------
    DataError
        The files of V2X-Sim are missing or malformed.
    """
    if dataset != "v2x-sim":
        return {}
    truths = [sequence.truth for sequence in read_v2xsim(tracking_folder("v2xsim"), upright=upright)]
    return {
        "published": sum(map(check_identities, truths), IdentityCheck(0, 0)),
        "relinked": sum((check_identities(relink(truth)) for truth in truths), IdentityCheck(0, 0)),
    }


def simulated(seed: int, scenes: int = 8, agents: int = 3, frames: int = 100, boxes: int = 8) -> Streams:
    """Simulate what a detector claims of its errors and how large they are.

    What it claims spreads over a factor of some four between boxes. The errors are twice that, of
    heavier tails than normal ones, and besides larger or smaller by a factor of the scene and by another that
    drifts with time, so that scenes are not exchangeable.
    """
    generator = np.random.default_rng(seed)
    streams = {}
    for scene in range(scenes):
        of_scene = np.exp(0.3 * generator.normal(size=4))
        for agent in range(agents):
            numbers = np.repeat(np.arange(1, frames + 1), generator.poisson(boxes, size=frames))
            drift = np.exp(np.cumsum(0.04 * generator.normal(size=(frames, 4)), axis=0))[numbers - 1]
            claimed = 0.3 * np.exp(0.5 * generator.normal(size=(len(numbers), 4)))
            ratios = 2 * of_scene * drift * generator.standard_t(5, size=claimed.shape)
            streams[scene, agent] = Stream(numbers, np.abs(ratios), claimed)
    return streams
