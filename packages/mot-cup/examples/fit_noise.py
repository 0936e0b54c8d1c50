"""Fit the noise of simulated detectors to those of V2X-Sim: ``python fit_noise.py FOLDER``.

The folder is that of the paper's authors, with ``val_det`` and ``gt``.
"""

from __future__ import annotations

import sys
from pathlib import Path

from mot_cup.io import read_v2xsim
from mot_cup.simulation import Noise, fit_noise

SENSOR = (128.0, 128.0)
METRES = 0.25


def fit(folder: Path) -> Noise:
    """Return the noise of all agents in all scenes; an agent's own car is no detection to learn from."""
    sequences = read_v2xsim(folder, upright=True)
    return fit_noise(
        ((sequence.detections, sequence.truth) for sequence in sequences),
        metres_per_unit=METRES,
        sensor=SENSOR,
    )


if __name__ == "__main__":
    sys.stdout.write(f"{fit(Path(sys.argv[1]))}\n")
