"""Cars that drive on a grid of streets: they follow lanes, turn at crossings, queue and stop at red lights.

The streets join `crossings` x `crossings` crossings. A route is a random walk over them that never turns
back; its path is a chain of straight pieces and quarter circles, along which a car's place is one number.
Its acceleration is that of the intelligent driver model (Treiber, Hennecke and Helbing 2000),

    a (1 - (v / v0)^4 - (s* / s)^2),    s* = s0 + v T + v dv / (2 sqrt(a b)),

for the gap s to the car ahead or to the line of a red light, and dv the speed of approach. Traffic keeps to
the right of an image whose y axis points down. Lengths are in metres, times in seconds.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mot_cup._boxes import Floats
from mot_cup._tracks import Ints
from tenfold import SettingError

DIRECTIONS = np.array([[1, 0], [0, 1], [-1, 0], [0, -1]])

LANE = 2.0
"""From the middle of a street to the middle of a lane."""
CROSSING = 7.0
"""From the middle of a crossing to the lines at which cars stop."""
SPACING = 9.0
"""Between the places where cars may stand at first."""
STEP = 0.2
"""Largest step of time."""
WARM_UP = 15.0
"""Before the first frame, for queues to form."""
GREEN, CLEARANCE = 8.0, 2.0
"""How long a light is for one street, and how long before the end it turns red."""
ACCELERATION, DECELERATION, HARDEST = 2.0, 2.5, 6.0
HEADWAY, STANDSTILL = 1.2, 2.0
SIDEWAYS = 3.0
"""Acceleration across its path that a turning car allows."""


@dataclass(frozen=True)
class Streets:
    """A square grid of streets.

    Parameters
    ----------
    crossings : int
        Along each side, at least 2.
    block : float
        Metres from one crossing to the next, at least 30.
    margin : float
        Metres around the outer crossings, which is where the origin lies.

    Raises
    ------
    SettingError
        A number is too small.
    """

    crossings: int = 3
    block: float = 60.0
    margin: float = 15.0

    def __post_init__(self) -> None:
        if self.crossings < 2:
            raise SettingError(f"{self.crossings} crossings a side", "2 or more", "Give a larger grid.")
        if not 30 <= self.block < np.inf:
            raise SettingError(f"blocks of {self.block} m", "30 m or more", "Give longer blocks.")

    @property
    def extent(self) -> float:
        """Metres along a side of the whole scene."""
        return 2 * self.margin + (self.crossings - 1) * self.block

    @property
    def places(self) -> int:
        """Cars that find room at first."""
        return len(self.lanes()) * len(self.slots())

    def lanes(self) -> Ints:
        """Return the lanes: column and row of the crossing that each leaves, and its direction."""
        grid = np.stack(np.meshgrid(*[np.arange(self.crossings)] * 2, [0, 1, 2, 3], indexing="ij"), -1)
        lanes = grid.reshape(-1, 3)
        ends = lanes[:, :2] + DIRECTIONS[lanes[:, 2]]
        return lanes[self.inside(ends)].astype(np.int64)

    def slots(self) -> Floats:
        """Return how far along a lane cars may stand at first."""
        return np.arange(SPACING / 2, self.block - 2 * CROSSING, SPACING)

    def inside(self, crossings: Ints) -> NDArray[np.bool_]:
        """Return which columns and rows are of crossings."""
        inside: NDArray[np.bool_] = np.logical_and.reduce(
            (crossings >= 0) & (crossings < self.crossings), axis=-1
        )
        return inside

    def buildings(self, generator: np.random.Generator) -> Floats:
        """Return one building in each block: x, y, w, l, theta, of shape (blocks, 5)."""
        corner = self.margin + self.block * np.arange(self.crossings - 1)
        middle = np.stack(np.meshgrid(corner, corner), -1).reshape(-1, 2) + self.block / 2
        room = self.block - 2 * CROSSING
        sizes = room * generator.uniform(0.75, 1.0, (len(middle), 2))
        places = middle + (room - sizes) * generator.uniform(-0.5, 0.5, sizes.shape)
        return np.column_stack([places, sizes[:, ::-1], np.zeros(len(middle))])


def drive(
    streets: Streets,
    sizes: Floats,
    frames: int,
    frame_rate: float,
    speed: float,
    generator: np.random.Generator,
) -> Floats:
    """Return where cars are in each frame.

    Parameters
    ----------
    streets : Streets
    sizes : ndarray of float64
        Width and length of every car, of shape (cars, 2).
    frames : int
    frame_rate : float
        Frames a second.
    speed : float
        That drivers wish for, on average, in metres a second.
    generator : numpy.random.Generator

    Returns
    -------
    ndarray of float64
        x, y, heading, of shape (frames, cars, 3).

    Raises
    ------
    SettingError
        There is no room for so many cars.
    """
    cars = len(sizes)
    if cars > streets.places:
        raise SettingError(
            f"{cars} cars on a grid with room for {streets.places}",
            "fewer cars or more streets",
            "Raise crossings or block.",
        )
    wishes = speed * generator.uniform(0.8, 1.2, cars)
    seconds = WARM_UP + frames / frame_rate
    paths = _Paths(streets, cars, float(wishes.max()) * seconds, generator)
    lights = _Lights(streets, generator)
    places, speeds = paths.first, wishes / 2
    steps = int(np.ceil(1 / (frame_rate * STEP) - 1e-9))
    dt = 1 / (frame_rate * steps)
    waiting = int(np.ceil(WARM_UP / dt))
    result = np.empty((frames, cars, 3))
    for step in range(waiting + (frames - 1) * steps + 1):
        frame, between = divmod(step - waiting, steps)
        if frame >= 0 and between == 0:
            result[frame] = paths.poses(places)
        faster = _accelerations(paths, lights, places, speeds, wishes, sizes[:, 1], step * dt)
        after = np.maximum(speeds + faster * dt, 0)
        places = places + (speeds + after) / 2 * dt
        speeds = after
    return result


class _Paths:
    """Routes of cars, and the pieces of their paths: lane, crossing, lane, crossing and so on.

    Attributes
    ----------
    lanes : ndarray of int64
        Number of the k-th lane of each route, of shape (cars, lanes).
    starts : ndarray of float64
        Where each piece starts along the path, of shape (cars, 2 lanes).
    bends : ndarray of float64
        Curvature of each piece.
    first : ndarray of float64
        Where the cars stand at first.
    """

    def __init__(self, streets: Streets, cars: int, distance: float, generator: np.random.Generator) -> None:
        lanes, slots = streets.lanes(), streets.slots()
        taken = generator.permutation(len(lanes) * len(slots))[:cars]
        self.first = slots[taken % len(slots)]
        count = 2 + int(np.ceil(distance / (streets.block - 2 * CROSSING)))
        crossing, heading = lanes[taken // len(slots), :2], lanes[taken // len(slots), 2]
        route = np.empty((cars, count, 3), np.int64)
        turns = np.empty((cars, count), np.int64)
        for k in range(count):
            route[:, k] = np.column_stack([crossing, heading])
            crossing = crossing + DIRECTIONS[heading]
            options = (heading[:, None] + np.array([0, 1, -1])) % 4
            open_ = streets.inside(crossing[:, None] + DIRECTIONS[options])
            # Nobody turns left across oncoming traffic, so the two directions of a street share a light.
            open_[:, 2] &= ~open_[:, 0]
            choice = np.where(open_, generator.random(open_.shape), -1.0).argmax(1)
            turns[:, k] = np.array([0, 1, -1])[choice]
            heading = options[np.arange(cars), choice]
        self.lanes = (route[..., 0] * streets.crossings + route[..., 1]) * 4 + route[..., 2]
        self.ahead = route[..., :2] + DIRECTIONS[route[..., 2]]
        self.headings = route[..., 2]
        self.straight = streets.block - 2 * CROSSING
        # With y down a turn of +1 is to the right, about the near kerb.
        radius = CROSSING - turns * LANE
        across = np.where(turns == 0, 2 * CROSSING, np.pi / 2 * radius)
        lengths = np.stack([np.full_like(across, self.straight), across], 2).reshape(cars, -1)
        self.starts = np.cumsum(lengths, 1) - lengths
        self.bends = np.stack([np.zeros_like(across), turns / radius], 2).reshape(cars, -1)
        forward = DIRECTIONS[route[..., 2]]
        right = DIRECTIONS[(route[..., 2] + 1) % 4]
        origin = streets.margin + streets.block * route[..., :2] + LANE * right + CROSSING * forward
        self._origins = np.stack([origin, origin + self.straight * forward], 2).reshape(cars, -1, 2)
        self._angles = np.repeat(route[..., 2] * (np.pi / 2), 2, axis=1)

    def pieces(self, places: Floats) -> Ints:
        """Return which piece of its path each car is on."""
        return np.asarray((self.starts <= places[:, None]).sum(1) - 1, dtype=np.int64)

    def poses(self, places: Floats) -> Floats:
        """Return x, y, heading of cars at places along their paths, of shape (cars, 3)."""
        car, piece = np.arange(len(places)), self.pieces(places)
        inside = places - self.starts[car, piece]
        turned = self.bends[car, piece] * inside
        angle = self._angles[car, piece] + turned / 2
        chord = inside * np.sinc(turned / (2 * np.pi))
        x, y = (
            self._origins[car, piece] + chord[:, None] * np.column_stack([np.cos(angle), np.sin(angle)])
        ).T
        return np.column_stack([x, y, angle + turned / 2])


class _Lights:
    """Lights that let the two directions of one street go, then those of the other.

    A corner of two streets needs none.
    """

    def __init__(self, streets: Streets, generator: np.random.Generator) -> None:
        side = np.arange(streets.crossings)
        crossings = np.stack(np.meshgrid(side, side, indexing="ij"), -1)
        self._corner = streets.inside(crossings[:, :, None] + DIRECTIONS).sum(2) == 2
        self._offset = generator.uniform(0, 2 * GREEN, self._corner.shape)

    def green(self, crossings: Ints, headings: Ints, time: float) -> NDArray[np.bool_]:
        """Return whether cars that come to crossings by directions may go."""
        column, row = crossings.T
        phase, inside = np.divmod(time + self._offset[column, row], GREEN)
        mine = (phase.astype(np.int64) % 2 == headings % 2) & (inside < GREEN - CLEARANCE)
        result: NDArray[np.bool_] = self._corner[column, row] | mine
        return result


def _accelerations(
    paths: _Paths,
    lights: _Lights,
    places: Floats,
    speeds: Floats,
    wishes: Floats,
    lengths: Floats,
    time: float,
) -> Floats:
    car, piece = np.arange(len(places)), paths.pieces(places)
    lane = piece // 2
    since = places - paths.starts[car, 2 * lane]
    to_go = paths.starts[car, 2 * lane + 2] - places
    here, after = paths.lanes[car, lane], paths.lanes[car, lane + 1]

    same = here[:, None] == here
    gaps = np.where(same & (since > since[:, None]), since - since[:, None], np.inf)
    gaps = np.minimum(gaps, np.where(after[:, None] == here, to_go[:, None] + since, np.inf))
    merging = (after[:, None] == after) & ~same & (piece % 2 == 1) & (to_go < to_go[:, None])
    gaps = np.minimum(gaps, np.where(merging, to_go[:, None] - to_go, np.inf))
    leader = gaps.argmin(1)
    gap = gaps[car, leader] - (lengths + lengths[leader]) / 2
    result = _follow(speeds, _wish(paths, piece, places, wishes), gap, speeds[leader])

    line = paths.straight - since - lengths / 2
    red = (piece % 2 == 0) & ~lights.green(paths.ahead[car, lane], paths.headings[car, lane], time)
    stops = red & (speeds**2 < 2 * HARDEST * np.maximum(line, 0.1))
    return np.where(stops, np.minimum(result, _follow(speeds, wishes, line, np.zeros_like(speeds))), result)


def _wish(paths: _Paths, piece: Ints, places: Floats, wishes: Floats) -> Floats:
    """Return the speed wished for: in a bend and before one, what lets the car through it."""
    car = np.arange(len(places))
    bend = piece + 1 - piece % 2
    curvature = np.abs(paths.bends[car, bend])
    bent = np.sqrt(SIDEWAYS / np.maximum(curvature, 1e-6))
    before = np.maximum(paths.starts[car, bend] - places, 0)
    result: Floats = np.minimum(wishes, np.sqrt(bent**2 + DECELERATION * before))
    return result


def _follow(speeds: Floats, wishes: Floats, gaps: Floats, leaders: Floats) -> Floats:
    """Return accelerations of the intelligent driver model."""
    wanted = speeds * HEADWAY + speeds * (speeds - leaders) / (2 * np.sqrt(ACCELERATION * DECELERATION))
    near = (STANDSTILL + np.maximum(wanted, 0)) / np.maximum(gaps, 0.1)
    result: Floats = ACCELERATION * (1 - (speeds / wishes) ** 4 - near**2)
    return np.maximum(result, -HARDEST)
