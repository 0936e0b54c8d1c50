"""Simulated traffic that several cars watch: truth, and detections whose error covariances are known.

Cars drive on a grid of streets. Some of them, the agents, carry a sensor and a detector each. What a detector
misses, and how far its boxes are off, depends on how far a car is and how much of it other cars and buildings
hide. The covariance that a detection reports is that of its errors, exactly, unless the settings say to
misreport it.

Boxes are in pixels of the scene, axis-aligned as V2X-Sim has them, and beside that rotated.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from mot_cup._boxes import Floats, from_space, to_space
from mot_cup._detections import BoxCovariance, Detections
from mot_cup._detector import Measurements, Noise, false_scores, measure
from mot_cup._residuals import fit_noise
from mot_cup._rotated import RotatedDetections, bounding_boxes, bounding_jacobian, wrap
from mot_cup._sight import visible_points
from mot_cup._tracks import Ints, Tracks
from mot_cup._traffic import Streets, drive
from mot_cup.fusion import to_agent
from tenfold import SettingError

__all__ = ["Agent", "Noise", "Scene", "SceneSettings", "Streets", "View", "fit_noise", "simulate"]

CAR = (1.9, 4.5)
"""Mean width and length of a car, in metres; each varies by a twentieth."""
SMALLEST = 0.2
"""Share of its true size below which no detected box shrinks: fewer than one in a thousand would."""


@dataclass(frozen=True)
class SceneSettings:
    """What is simulated.

    Parameters
    ----------
    frames : int
    frame_rate : float
        Frames a second.
    cars, agents : int
        Agents are the cars that stay nearest to the middle.
    streets : Streets
    speed : float
        That drivers wish for, in metres a second.
    reach : float
        Of a sensor, in metres.
    metres_per_pixel : float
    noise : Noise
    detection_rate : float
        Probability to detect a car that is near and wholly seen. It falls by the share that is hidden,
        and with the square of the distance, by three tenths at the reach.
    false_alarms : float
        Mean number a frame and detector.
    correlation : float
        Between the errors of two detectors for one car in one frame.
    reported_scale : float
        Factor of reported standard deviations: below 1 the detectors are too sure.
    reported_spread : float
        Standard deviation of the logarithm of a random factor of reported standard deviations.
    position_std, heading_std : float
        Errors of the poses that agents report, in metres along each axis and in radians.

    Raises
    ------
    SettingError
        A number is out of its range.
    """

    frames: int = 100
    frame_rate: float = 5.0
    cars: int = 80
    agents: int = 5
    streets: Streets = field(default_factory=Streets)
    speed: float = 11.0
    reach: float = 45.0
    metres_per_pixel: float = 0.25
    noise: Noise = field(default_factory=Noise)
    detection_rate: float = 0.98
    false_alarms: float = 1.0
    correlation: float = 0.0
    reported_scale: float = 1.0
    reported_spread: float = 0.0
    position_std: float = 0.0
    heading_std: float = 0.0

    def __post_init__(self) -> None:
        def refuse(names: tuple[str, ...], least: float, most: float, expected: str) -> None:
            for name in names:
                if not least <= getattr(self, name) <= most:
                    raise SettingError(f"{name} is {getattr(self, name)}", expected, "Correct it.")

        finite = np.finfo(float).max
        refuse(("frames", "cars", "agents"), 1, finite, "1 or more")
        refuse(("agents",), 1, self.cars, f"at most {self.cars}, the number of cars")
        positive = ("frame_rate", "speed", "reach", "metres_per_pixel", "reported_scale")
        refuse(positive, np.finfo(float).tiny, finite, "a positive number")
        refuse(("false_alarms", "reported_spread", "position_std", "heading_std"), 0, finite, "0 or more")
        refuse(("detection_rate", "correlation"), 0, 1, "a number from 0 to 1")


@dataclass(frozen=True)
class View:
    """What one detector finds.

    Attributes
    ----------
    detections : list of Detections
        One a frame, in the scene's frame of reference and pixels; covariances are of x, y, w, h.
    rotated : list of RotatedDetections
        The same detections, with headings.
    sources : list of ndarray of int64
        The identity of the car behind each detection, -1 for a false alarm.
    truth : Tracks
        Boxes of the cars within reach, from the first frame in which this detector can see them to the last;
        those hidden in between count. Frames are numbered from 1.
    """

    detections: list[Detections]
    rotated: list[RotatedDetections]
    sources: list[Ints]
    truth: Tracks


@dataclass(frozen=True)
class Agent(View):
    """What a car with a sensor finds.

    `detections` lie where they are by the poses that it reports, whose errors are in their covariances;
    `rotated` are in its own frame of reference, x ahead, and know nothing of poses.

    Attributes
    ----------
    identity : int
        Of the car.
    poses : ndarray of float64
        x, y, heading that it reports in each frame, of shape (frames, 3), in pixels and radians.
    pose_covariance : ndarray of float64
        Of the errors of its poses, of shape (3, 3).
    """

    identity: int
    poses: Floats
    pose_covariance: Floats


@dataclass(frozen=True)
class Scene:
    """A simulated scene, in pixels and radians.

    Attributes
    ----------
    settings : SceneSettings
    boxes : ndarray of float64
        x, y, w, l, theta of every car in each frame, of shape (frames, cars, 5). The identity of a car is its
        row, from 1.
    buildings : ndarray of float64
        Shape (buildings, 5).
    agents : tuple of Agent
    together : View
        What one detector finds that has all sensors of the agents: early fusion of what they sense. Its truth
        is that of every collaboration.
    """

    settings: SceneSettings
    boxes: Floats
    buildings: Floats
    agents: tuple[Agent, ...]
    together: View


def simulate(settings: SceneSettings, generator: np.random.Generator) -> Scene:
    """Simulate a scene.

    Parameters
    ----------
    settings : SceneSettings
    generator : numpy.random.Generator
        The same state gives the same scene.

    Returns
    -------
    Scene

    Raises
    ------
    SettingError
        There is no room for so many cars.
    """
    sizes = np.array(CAR) * (1 + 0.05 * generator.normal(size=(settings.cars, 2)).clip(-3, 3))
    poses = drive(settings.streets, sizes, settings.frames, settings.frame_rate, settings.speed, generator)
    all_sizes = np.broadcast_to(sizes, (settings.frames, *sizes.shape))
    boxes = np.concatenate([poses[..., :2], all_sizes, wrap(poses[..., 2:])], axis=2)
    buildings = settings.streets.buildings(generator)

    away = np.linalg.norm(boxes[..., :2] - settings.streets.extent / 2, axis=2).mean(0)
    sensors = np.argsort(away, kind="stable")[: settings.agents]
    points = visible_points(boxes, buildings, sensors, settings.reach)
    apart = boxes[None, :, :, :2] - boxes[:, sensors, None, :2].swapaxes(0, 1)
    distances = np.linalg.norm(apart, axis=3)
    near: NDArray[np.bool_] = np.less_equal(distances, settings.reach)
    near[np.arange(settings.agents), :, sensors] = False
    nearest = np.where(points.any(3), distances, np.inf).min(0)

    shares = _with_all(points, np.logical_or.reduce(points)).mean(3)
    measurements = measure(
        settings.noise,
        shares,
        _with_all(distances, np.minimum(nearest, settings.reach)),
        settings.reach,
        settings.detection_rate,
        settings.correlation,
        generator,
    )
    views = []
    for number, within in enumerate(_with_all(near, np.logical_or.reduce(near))):
        own = sensors if number == settings.agents else sensors[[number]]
        found = _found(settings, boxes, measurements, number)
        alarms = _false_alarms(settings, boxes, own, measurements.factors[shares > 0], generator)
        views.append(_view(settings, boxes, within, shares[number] > 0, found.joined(alarms), generator))
    scale = _pixels(settings)
    agents = tuple(
        _agent(settings, view, boxes[:, car] * scale, int(car) + 1, generator)
        for view, car in zip(views[:-1], sensors, strict=True)
    )
    return Scene(settings, boxes * scale, buildings * scale, agents, views[-1])


@dataclass(frozen=True)
class _Finds:
    """Detections of all frames in no order: frame, true box, factor of deviations, errors, score, source."""

    frames: Ints
    boxes: Floats
    factors: Floats
    errors: Floats
    scores: Floats
    sources: Ints

    def joined(self, other: _Finds) -> _Finds:
        pairs = zip(vars(self).values(), vars(other).values(), strict=True)
        return _Finds(*(np.concatenate(pair) for pair in pairs))


def _found(settings: SceneSettings, boxes: Floats, measurements: Measurements, number: int) -> _Finds:
    frame, car = np.nonzero(measurements.found[number])
    return _Finds(
        frame,
        boxes[frame, car],
        measurements.factors[number, frame, car],
        measurements.errors[number, frame, car],
        measurements.scores[number, frame, car],
        car + 1,
    )


def _false_alarms(
    settings: SceneSettings, boxes: Floats, sensors: Ints, factors: Floats, generator: np.random.Generator
) -> _Finds:
    """Return boxes where nothing is: around a sensor, along an axis, as uncertain as any detection."""
    frames = np.repeat(np.arange(settings.frames), generator.poisson(settings.false_alarms, settings.frames))
    count = len(frames)
    around = boxes[frames, generator.choice(sensors, count), :2]
    angle = generator.uniform(-np.pi, np.pi, count)
    distance = settings.reach * np.sqrt(generator.random(count))
    places = around + distance[:, None] * np.column_stack([np.cos(angle), np.sin(angle)])
    sizes = np.array(CAR) * generator.uniform(0.8, 1.2, (count, 2))
    headings = wrap(np.pi / 2 * generator.integers(4, size=count))
    return _Finds(
        frames,
        np.column_stack([places, sizes, headings]),
        generator.choice(factors, count) if len(factors) else np.ones(count),
        np.zeros((count, 5)),
        false_scores(count, generator),
        np.full(count, -1),
    )


def _view(
    settings: SceneSettings,
    boxes: Floats,
    within: NDArray[np.bool_],
    seen: NDArray[np.bool_],
    finds: _Finds,
    generator: np.random.Generator,
) -> View:
    true, errors = finds.boxes, finds.errors
    # Of a car along an axis the covariance is to be diagonal to the last digit.
    c, s = np.round(np.cos(true[:, 4]), 12), np.round(np.sin(true[:, 4]), 12)
    turn = np.stack([c, -s, s, c], axis=1).reshape(-1, 2, 2)
    # From errors along, across, of length, of width and of the heading to those of x, y, w, l, theta.
    change = np.zeros((len(true), 5, 5))
    change[:, :2, :2] = turn
    change[:, 2, 3] = change[:, 3, 2] = change[:, 4, 4] = 1
    errors = np.einsum("nij,nj->ni", change, errors)
    errors[:, 2:4] = np.maximum(errors[:, 2:4], (SMALLEST - 1) * true[:, 2:4])
    # The head for axis-aligned boxes takes the heading as it is.
    aligned = bounding_jacobian(true)
    aligned[:, :, 4] = 0
    centred = to_space(bounding_boxes(true), "xywh") + np.einsum("nij,nj->ni", aligned, errors)
    found = true + errors
    found[:, 4] = wrap(found[:, 4])

    factors = finds.factors * settings.reported_scale
    factors = factors * np.exp(settings.reported_spread * generator.normal(size=len(factors)))
    scale = _pixels(settings)
    stds = factors[:, None] * np.array([*settings.noise.stds, settings.noise.heading])
    root = scale[:, None] * change * stds[:, None]
    covariance = root @ root.transpose(0, 2, 1)
    aligned_covariance = aligned @ covariance @ aligned.transpose(0, 2, 1)
    corners = from_space(centred, "xywh") / settings.metres_per_pixel

    order = np.lexsort((generator.random(len(true)), finds.frames))
    ends = np.searchsorted(finds.frames[order], np.arange(1, settings.frames))
    detections, rotated, sources = [], [], []
    for rows in np.split(order, ends):
        classes = np.zeros(len(rows), np.int64)
        uncertainty = BoxCovariance(aligned_covariance[rows], "xywh", "px")
        detections.append(Detections(corners[rows], finds.scores[rows], classes, uncertainty))
        rotated.append(RotatedDetections(found[rows] * scale, finds.scores[rows], classes, covariance[rows]))
        sources.append(finds.sources[rows])
    return View(detections, rotated, sources, _truth(boxes * scale, within, seen))


def _truth(boxes: Floats, within: NDArray[np.bool_], seen: NDArray[np.bool_]) -> Tracks:
    counts = within & np.maximum.accumulate(seen) & np.maximum.accumulate(seen[::-1])[::-1]
    frame, car = np.nonzero(counts)
    return Tracks(frame + 1, car + 1, bounding_boxes(boxes[frame, car]))


def _agent(
    settings: SceneSettings, view: View, boxes: Floats, identity: int, generator: np.random.Generator
) -> Agent:
    poses = boxes[:, [0, 1, 4]]
    position = settings.position_std / settings.metres_per_pixel
    stds = np.array([position, position, settings.heading_std])
    reported = poses + stds * generator.normal(size=poses.shape)
    return Agent(
        [
            _displaced(found, pose, other, stds)
            for found, pose, other in zip(view.detections, poses, reported, strict=True)
        ],
        [to_agent(found, pose) for found, pose in zip(view.rotated, poses, strict=True)],
        view.sources,
        view.truth,
        identity,
        reported,
        np.diag(stds**2),
    )


def _displaced(detections: Detections, pose: Floats, reported: Floats, stds: Floats) -> Detections:
    """Move detections to where a reported pose puts them, but turn none: headings are off by little."""
    assert detections.covariance is not None
    turn = reported[2] - pose[2]
    c, s = np.cos(turn), np.sin(turn)
    centres = (detections.boxes[:, :2] + detections.boxes[:, 2:]) / 2
    around = (centres - pose[:2]) @ np.array([[c, s], [-s, c]])
    shift = around + reported[:2] - centres
    by_pose = np.zeros((len(detections), 4, 3))
    by_pose[:, 0, 0] = by_pose[:, 1, 1] = 1
    by_pose[:, 0, 2], by_pose[:, 1, 2] = -around[:, 1], around[:, 0]
    by_pose = by_pose * stds
    matrices = detections.covariance.matrices + by_pose @ by_pose.transpose(0, 2, 1)
    return replace(
        detections,
        boxes=detections.boxes + np.tile(shift, 2),
        covariance=BoxCovariance(matrices, "xywh", detections.unit),
    )


def _pixels(settings: SceneSettings) -> Floats:
    """Return the factors of x, y, w, l, theta from metres to pixels."""
    return np.array([1 / settings.metres_per_pixel] * 4 + [1.0])


def _with_all(each: NDArray, together: NDArray) -> NDArray:  # type: ignore[type-arg]
    return np.concatenate([each, together[None]])
