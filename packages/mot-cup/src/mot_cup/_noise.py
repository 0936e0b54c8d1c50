"""Where a filter's variances come from.

A `Noise` gives the variances that a tracker is built with, each ``constant + fraction * h**2`` of the height
h of the state: SORT's are constants in pixels, those of ByteTrack grow with the box. Detections may bring
their own covariances, which then stand for the measurement's: exactly, or as the paper's authors use them.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal

import numpy as np

from mot_cup._boxes import POWERS, Floats, Space
from mot_cup._state_models import StateModel
from tenfold import SettingError

Row = tuple[float, float, float, float]
NONE: Row = (0.0, 0.0, 0.0, 0.0)


@dataclass(frozen=True)
class Noise:
    """Variances of a filter with four positions and four velocities, each ``constant + fraction * h**2``.

    Attributes
    ----------
    measurement : tuple of float
        R: constants of the four coordinates.
    process, process_velocity : tuple of float
        Q, of a frame.
    first, first_velocity : tuple of float
        P of a track's first frame.
    measurement_fraction, process_fraction, process_velocity_fraction : tuple of float
    first_fraction, first_velocity_fraction : tuple of float
        What multiplies the squared height.

    Raises
    ------
    SettingError
        There are not four, or one is negative or not finite.
    """

    measurement: Row = NONE
    process: Row = NONE
    process_velocity: Row = NONE
    first: Row = NONE
    first_velocity: Row = NONE
    measurement_fraction: Row = NONE
    process_fraction: Row = NONE
    process_velocity_fraction: Row = NONE
    first_fraction: Row = NONE
    first_velocity_fraction: Row = NONE

    def __post_init__(self) -> None:
        for field in fields(self):
            values = np.asarray(getattr(self, field.name), dtype=np.float64)
            if values.shape != (4,) or not (np.isfinite(values) & (values >= 0)).all():
                raise SettingError(
                    f"{field.name} of {values.tolist()}", "four variances of 0 or more", "Correct it."
                )
            object.__setattr__(self, field.name, tuple(values.tolist()))

    def table(self) -> Floats:
        """Return the variances as `mot_cup._kalman` reads them, of shape (5, 4, 2)."""
        kinds = ("measurement", "process", "process_velocity", "first", "first_velocity")
        return np.array(
            [np.transpose([getattr(self, kind), getattr(self, f"{kind}_fraction")]) for kind in kinds]
        )


def height_noise(position: float = 1 / 20, velocity: float = 1 / 160) -> Noise:
    """Return noise of the ``xywh`` model whose standard deviations are fractions of the height.

    Parameters
    ----------
    position, velocity : float
        Standard deviations over the height: of a measurement and of a frame's change. The first state has
        twice the one and ten times the other, as in DeepSORT.
    """

    def row(fraction: float) -> Row:
        return (fraction**2,) * 4

    return Noise(
        measurement_fraction=row(position),
        process_fraction=row(position),
        process_velocity_fraction=row(velocity),
        first_fraction=row(2 * position),
        first_velocity_fraction=row(10 * velocity),
    )


SORT_NOISE = Noise(
    measurement=(1, 1, 10, 10),
    process=(1, 1, 1, 1),
    process_velocity=(1e-2, 1e-2, 1e-4, 0),
    first=(10, 10, 10, 10),
    first_velocity=(1e4, 1e4, 1e4, 0),
)
BYTETRACK_NOISE = Noise(
    measurement=(0, 0, 1e-2, 0),
    process=(0, 0, 1e-4, 0),
    process_velocity=(0, 0, 1e-10, 0),
    first=(0, 0, 1e-4, 0),
    first_velocity=(0, 0, 1e-10, 0),
    measurement_fraction=(1 / 400, 1 / 400, 0, 1 / 400),
    process_fraction=(1 / 400, 1 / 400, 0, 1 / 400),
    process_velocity_fraction=(1 / 25600, 1 / 25600, 0, 1 / 25600),
    first_fraction=(1 / 100, 1 / 100, 0, 1 / 100),
    first_velocity_fraction=(1 / 256, 1 / 256, 0, 1 / 256),
)
NOISE: dict[StateModel, Noise] = {"xysr": SORT_NOISE, "xyah": BYTETRACK_NOISE, "xywh": height_noise()}


@dataclass(frozen=True)
class PaperCompat:
    """Detection variances as the paper's authors use them, units and all.

    Their variances are of metres and their boxes of pixels, and they add the one to the other. Covariances
    here are in the unit of the boxes, so that this takes them back to metres before it uses their numbers.

    Parameters
    ----------
    factors : tuple of float
        What conformal calibration multiplies the four variances by.
    each : float
        Pixels that make one metre.

    Raises
    ------
    SettingError
        There are not four factors, or one or `each` is not positive and finite.
    """

    factors: Row = (1.0, 1.0, 1.0, 1.0)
    each: float = 4.0

    def __post_init__(self) -> None:
        values = np.array([*self.factors, self.each], dtype=np.float64)
        if values.shape != (5,) or not (np.isfinite(values) & (values > 0)).all():
            raise SettingError(f"{self}", "four factors and a scale, all positive", "Correct them.")

    def scales(self, space: Space) -> Floats:
        """Return what each coordinate's variance in the boxes' unit is multiplied by, of shape (4,)."""
        return np.array(self.factors) / float(self.each) ** (2 * np.array(POWERS[space]))


Uncertainty = Literal["off", "covariance"] | PaperCompat

# Squares of a third of the conformal quantiles of the authors' detectors, from their trackers' sources: those
# of SORT's coordinates, and of ByteTrack's.
PAPER_FACTORS: dict[str, Row] = {
    "upper bound": (125.44897552926587, 58.17835406418326, 224.21414415575381, 3907.8781994455294),
    "DiscoNet": (267.6059187072261, 65.37177933480551, 214.8165049926819, 4107.835669322297),
    "lower bound": (339.5195216553872, 111.26186541465519, 298.26359427936194, 15076.497769642287),
}
BYTETRACK_PAPER_FACTORS: dict[str, Row] = {
    "upper bound": (156.3751341925818, 65.24260517866209, 2785.7870238883734, 26.43169171689354),
    "DiscoNet": (214.13191750615232, 77.15047953920649, 2503.1216487206066, 24.387592952924123),
    "lower bound": (268.0828005828979, 93.20827260609053, 18277.14814591181, 40.319136673153885),
}
