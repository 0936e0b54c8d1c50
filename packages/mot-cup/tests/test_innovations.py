"""The scale of errors from innovations, on objects whose motion the filter knows."""

from collections.abc import Iterator

import numpy as np
import pytest

from mot_cup import BoxCovariance, Detections, Tracks
from mot_cup._boxes import from_space, to_space
from mot_cup._coverage_innovations import Agents, follow_innovations
from mot_cup.conformal import Calibration, InnovationConformal, Matches, calibrate, match, pooled
from mot_cup.io import SequenceInfo, V2XSimSequence
from mot_cup.scores import coverage
from tenfold import DataError, SettingError

OBJECTS, FRAMES, ACCELERATION, RESIZING = 8, 150, 0.05, 0.02


def stream(seed: int, scale: float) -> Iterator[tuple[np.ndarray, Detections]]:
    """Yield true boxes and detections whose errors are `scale` times what the detector says."""
    generator = np.random.default_rng(seed)
    truth = np.concatenate([generator.uniform(0, 500, (OBJECTS, 2)), np.full((OBJECTS, 2), 40.0)], axis=1)
    velocity = generator.normal(size=(OBJECTS, 2))
    for _ in range(FRAMES):
        velocity += ACCELERATION * generator.normal(size=velocity.shape)
        truth[:, :2] += velocity
        truth[:, 2:] += RESIZING * generator.normal(size=(OBJECTS, 2))
        claimed = 0.3 * np.exp(0.4 * generator.normal(size=truth.shape))
        found = truth + scale * claimed * generator.normal(size=truth.shape)
        covariance = BoxCovariance.diagonal(claimed**2, "xywh", "px")
        yield truth.copy(), Detections(from_space(found, "xywh"), covariance=covariance)


class Filters:
    """Constant velocity for centres, a random walk for sizes, and objects that are known."""

    def __init__(self) -> None:
        self.mean = np.zeros((OBJECTS, 4, 2))
        self.P = np.zeros((OBJECTS, 4, 2, 2))
        self.P[:] = np.diag([1e6, 1.0])
        self.P[:, 2:] = np.diag([1e6, 0.0])

    def update(self, detections: Detections) -> np.ndarray:
        """Return |v| / sqrt(S), of shape (objects, 4)."""
        assert detections.covariance is not None
        R = np.diagonal(detections.covariance.matrices, 0, 1, 2)
        F = np.array([[1.0, 1.0], [0.0, 1.0]])
        mean, P = self.mean @ F.T, F @ self.P @ F.T
        P[:, :2] += ACCELERATION**2 * np.array([[1.0, 1.0], [1.0, 1.0]])
        P[:, 2:, 0, 0] += RESIZING**2
        v, S = to_space(detections.boxes, "xywh") - mean[..., 0], P[..., 0, 0] + R
        gain = P[..., 0] / S[..., None]
        self.mean = mean + gain * v[..., None]
        self.P = P - gain[..., :, None] * P[..., None, 0, :]
        return np.abs(v) / np.sqrt(S)


@pytest.fixture(scope="module")
def held() -> tuple[Calibration, np.ndarray]:
    """A calibration, and innovations of streams that it holds for."""
    frames = [frame for seed in range(3) for frame in stream(seed, 1.0)]
    truth = np.concatenate([from_space(true, "xywh") for true, _ in frames])
    boxes = np.concatenate([found.boxes for _, found in frames])
    matrices = np.concatenate([found.covariance.matrices for _, found in frames if found.covariance])
    detections = Detections(boxes, covariance=BoxCovariance(matrices, "xywh", "px"))
    calibration = calibrate(Matches(np.zeros(len(truth), int), detections, truth), level=0.9)
    innovations = []
    for seed in range(3):
        filters = Filters()
        found = [filters.update(calibration.apply(detections)) for _, detections in stream(seed, 1.0)]
        innovations += found[10:]
    return calibration, np.concatenate(innovations)


@pytest.mark.parametrize("scale", [0.5, 1.0, 2.0])
def test_coverage_comes_back_without_labels(held: tuple[Calibration, np.ndarray], scale: float) -> None:
    calibration, innovations = held
    following = InnovationConformal(calibration, innovations, step=0.03)
    filters, errors, fixed, moving = Filters(), [], [], []
    for true, detections in stream(9, scale):
        errors.append(to_space(detections.boxes, "xywh") - true)
        fixed.append(calibration.half_widths(detections))
        moving.append(following.half_widths(detections))
        following.update(filters.update(following.apply(detections)))
    np.testing.assert_allclose(following.scale, scale, rtol=0.25)
    gaps = [
        np.abs(coverage(np.concatenate(errors), np.concatenate(widths)) - 0.9) for widths in (fixed, moving)
    ]
    assert (gaps[1] < 0.05).all()
    if scale != 1:
        assert (gaps[1] < gaps[0] / 3).all()


def test_a_scene_of_larger_errors_is_found_out_without_its_labels() -> None:
    sequences = []
    for scene, scale in enumerate((1.0, 1.0, 1.0, 2.0)):
        frames = list(stream(scene, scale))
        numbers = np.repeat(np.arange(1, FRAMES + 1), OBJECTS)
        boxes = np.concatenate([from_space(true, "xywh") for true, _ in frames])
        truth = Tracks(numbers, np.tile(np.arange(OBJECTS), FRAMES), boxes)
        found = {number: detections for number, (_, detections) in enumerate(frames, 1)}
        sequences.append(V2XSimSequence(1, scene, found, truth, SequenceInfo("", 5.0, FRAMES, 500, 500)))
    agents = Agents(sequences, [match(item.detections, item.truth) for item in sequences])
    (quantiles,) = follow_innovations(agents, 3, "xywh", 0.9)
    assert quantiles.shape == (len(agents.matches[3]), 4)
    np.testing.assert_array_equal(quantiles[0], calibrate(pooled(agents.matches[:3]), level=0.9).quantiles[0])
    np.testing.assert_allclose(quantiles[-OBJECTS * 100 :].mean(axis=0) / quantiles[0], 2.0, rtol=0.3)
    others = Agents(sequences[:3], agents.matches[:3])
    (same,) = follow_innovations(others, 2, "xywh", 0.9)
    np.testing.assert_allclose(same[-OBJECTS * 100 :].mean(axis=0) / same[0], 1.0, rtol=0.2)


def test_the_scale_multiplies_the_calibrated_and_stays_within_its_bound(
    held: tuple[Calibration, np.ndarray],
) -> None:
    calibration, innovations = held
    following = InnovationConformal(calibration, innovations, step=0.5, bound=3.0)
    _, detections = next(stream(0, 1.0))
    first = following.apply(detections)
    assert first.covariance is not None
    np.testing.assert_array_equal(first.covariance.matrices, calibration.covariance(detections).matrices)
    for _ in range(20):
        following.update(np.full((2, 4), [100.0, 100.0, 0.0, 0.0]))
    np.testing.assert_allclose(following.scale, [3.0, 3.0, 1 / 3, 1 / 3])
    scaled = following.apply(detections).covariance
    assert scaled is not None
    expected = np.diag(first.covariance.matrices[0]) * [9, 9, 1 / 9, 1 / 9]
    np.testing.assert_allclose(np.diag(scaled.matrices[0]), expected)
    following.update(np.empty((0, 4)))
    empty = Detections(np.empty((0, 4)))
    assert following.apply(empty) is empty


def test_what_makes_no_sense_is_refused(held: tuple[Calibration, np.ndarray]) -> None:
    calibration, innovations = held
    with pytest.raises(SettingError, match="more than 1"):
        InnovationConformal(calibration, innovations, bound=1.0)
    with pytest.raises(SettingError, match="9 scores or more"):
        InnovationConformal(calibration, innovations[:8])
    with pytest.raises(DataError, match="2 dimensions"):
        InnovationConformal(calibration, innovations[:, :2])
    with pytest.raises(DataError, match="0 or more"):
        InnovationConformal(calibration, innovations).update([[1.0, 1.0, -1.0, 1.0]])
