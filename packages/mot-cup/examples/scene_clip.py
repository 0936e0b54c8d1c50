"""The clip of the README: five cars look at traffic, and SORT follows what they find together.

``python scene_clip.py OUT.gif`` writes it. The detector's errors are three times those of V2X-Sim's, so that
its ellipses can be seen.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from mot_cup import Sort
from mot_cup.fusion import fuse_sequence
from mot_cup.render import RenderSettings, render, street_map
from mot_cup.simulation import Noise, SceneSettings, simulate


def clip(path: Path, frames: int = 42) -> None:
    """Simulate, fuse, track and draw."""
    along, across, length, width = (3 * std for std in Noise().stds)
    settings = SceneSettings(frames=frames, noise=Noise(stds=(along, across, length, width)))
    scene = simulate(settings, np.random.default_rng(3))
    fused = fuse_sequence([agent.detections for agent in scene.agents])
    tracks = Sort(uncertainty="covariance", max_age=3, iou_threshold=0.1).track(fused)
    render(
        path,
        tracks,
        dict(enumerate(fused, start=1)),
        background=street_map(scene),
        frame_rate=settings.frame_rate,
        settings=RenderSettings(size=440, view=(140, 140, 460, 460)),
    )


if __name__ == "__main__":
    clip(Path(sys.argv[1]))
